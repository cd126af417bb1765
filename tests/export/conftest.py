"""One export for the whole session: it takes half a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from train.checkpoint import save_checkpoint
from train.models.ufuser import UFuser


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An exported random network: `checkpoint`, `onnx`, and the `stderr` and `stdout` of the command."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(3)
    model = UFuser()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.mul_(1.4)  # PyTorch's own start gives a nearly constant picture
    checkpoint = folder / "model.safetensors"
    save_checkpoint(checkpoint, model.state_dict(), "ufuser", 'name = "test"', {"step": 1})
    out = folder / "model.onnx"
    script = Path(__file__).resolve().parents[2] / "export" / "to_onnx.py"
    done = subprocess.run(
        [sys.executable, str(script), "--checkpoint", str(checkpoint), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(checkpoint=checkpoint, onnx=out, stderr=done.stderr, stdout=done.stdout)
