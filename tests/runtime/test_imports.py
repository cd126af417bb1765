"""The runtime stays light: what it imports, and how long that takes."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ufuser import runtime

ROOT = Path(runtime.__file__).parent
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "av", "tensorrt")
FORBIDDEN = {"torch", "onnx", "ufuser.train", "ufuser.export", "ufuser.benchmarks"}
LIMIT = 0.5
"""Seconds."""


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["ufuser", "ufuser.cli", "ufuser.runtime.sinks", "ufuser.runtime.sources"])
def test_no_heavy_import(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _run(code) == "[]"


def test_import_is_quick() -> None:
    def once() -> float:
        code = "import time; t = time.perf_counter(); import ufuser; print(time.perf_counter() - t)"
        return float(_run(code))

    best = once()
    for _ in range(4):
        if best <= LIMIT:
            break
        time.sleep(1)  # a busy machine is not the import's fault
        best = min(best, once())
    assert best <= LIMIT


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
    assert (
        not {part for name in named for part in (name.split(".")[0], ".".join(name.split(".")[:2]))}
        & FORBIDDEN
    )
