"""Commands of the export room without the packages that they need: one line that names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
for name in {absent!r}: sys.modules[name] = None
from ufuser.cli import main
sys.exit(main())
"""
MODEL = Path(__file__).resolve().parents[2] / "runtime" / "weights" / "lite.onnx"


@pytest.mark.parametrize(
    ("absent", "words", "extra"),
    [
        (["torch"], ["export", "--checkpoint", "x.safetensors", "--out", "x.onnx"], "export,cpu"),
        (["onnx"], ["export", "--checkpoint", "x.safetensors", "--out", "x.onnx"], "export,cpu"),
        (["onnx"], ["build", "--onnx", "x.onnx", "--dry-run"], "tensorrt"),
        (["onnx"], ["verify", "x.onnx", "y.onnx"], "export,cpu"),
        (["onnx"], ["explain", "--ir", "x.png", "--vi", "y.png", "--out", "out"], "explain"),
    ],
)
def test_one_line_names_the_extra(tmp_path: Path, absent: list[str], words: list[str], extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(absent=absent), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f'pip install "ufuser[{extra}]"' in line
    assert absent[0] in line


def test_onnx_files_are_compared_without_pytorch(tmp_path: Path) -> None:
    words = ["verify", str(MODEL), str(MODEL), "--shapes", "1x16x24"]
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(absent=["torch"]), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pass" in done.stdout
