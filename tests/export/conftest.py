"""One export for all who need one: a network of few blocks, because tracing takes as long as it has nodes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.export.export_cache import ExportCache, weights_of
from ufuser.export import exporter, lowering
from ufuser.export.tolerances import PARITY_SHAPES
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models import create

# Every scale, and both branches. What the number of blocks decides (operations, nodes, parameters of the whole network)
# is tested without tracing, or by the shipped file: no test traces the whole U-Fuser, which takes most of a minute.
FEW_BLOCKS = {"global_blocks": [0, 0, 0, 1], "local_blocks": [1, 1, 1, 0]}


@pytest.fixture(scope="module")
def small_parity_shapes() -> Iterator[None]:
    """The exporter's own checks at small sizes, for networks whose answer takes PyTorch seconds at 240x320."""
    small = PARITY_SHAPES[:2]
    with pytest.MonkeyPatch.context() as patch:
        for module in (exporter, lowering):
            patch.setattr(module, "PARITY_SHAPES", small)
        yield


@pytest.fixture(scope="session")
def export(export_cache: ExportCache) -> SimpleNamespace:
    """An exported random network of `options`: `checkpoint`, `onnx`, the command's `stderr` and `stdout`."""
    torch.manual_seed(3)
    model = create("ufuser", FEW_BLOCKS)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.mul_(1.4)  # PyTorch's own start gives a nearly constant picture

    def run_script(folder: Path) -> None:
        checkpoint = folder / "model.safetensors"
        save_checkpoint(checkpoint, model.state_dict(), "ufuser", 'name = "test"', {"step": 1}, FEW_BLOCKS)
        script = Path(__file__).resolve().parents[2] / "export" / "to_onnx.py"
        words = [script, "--checkpoint", checkpoint, "--out", folder / "model.onnx"]
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "stderr").write_text(done.stderr)
        (folder / "stdout").write_text(done.stdout)

    folder = export_cache("ufuser", [weights_of(model), str(FEW_BLOCKS)], run_script)
    return SimpleNamespace(
        checkpoint=folder / "model.safetensors",
        onnx=folder / "model.onnx",
        stderr=(folder / "stderr").read_text(),
        stdout=(folder / "stdout").read_text(),
        options=FEW_BLOCKS,
    )
