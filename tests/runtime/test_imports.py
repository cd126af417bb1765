"""What the runtime imports: no training or export packages, no other room, and no engine before it is opened."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ufuser import runtime

ROOT = Path(runtime.__file__).parent
ENGINES = ("onnxruntime", "openvino", "tensorrt", "pycuda", "av")
FORBIDDEN = (
    "torch",
    "onnx",
    "ufuser.train",
    "ufuser.export",
    "ufuser.benchmarks",
    "ufuser.simulation",
    "ufuser.cli",
)


def loaded(code: str, *packages: str) -> list[str]:
    """Which of some packages are loaded once code has run in a new process."""
    code += f"\nimport sys\nprint(*[name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_package_itself_imports_nothing() -> None:
    assert loaded("import ufuser", "numpy", "cv2", "msgspec", *ENGINES, *FORBIDDEN) == []


@pytest.mark.parametrize(
    "module", ["cli", "runtime.fuser", "runtime.sinks", "runtime.sources", "runtime.streaming"]
)
def test_engines_are_imported_when_they_are_opened(module: str) -> None:
    assert loaded(f"import ufuser.{module}", *ENGINES, *FORBIDDEN[:-1]) == []


def test_no_module_of_the_runtime_imports_another_room() -> None:
    code = (
        "import importlib, pkgutil, contextlib, ufuser.runtime\n"
        "for found in pkgutil.walk_packages(ufuser.runtime.__path__, 'ufuser.runtime.'):\n"
        "    with contextlib.suppress(ImportError):\n"  # an engine that is not installed
        "        importlib.import_module(found.name)\n"
    )
    assert loaded(code, *FORBIDDEN) == []


def test_no_function_of_the_runtime_imports_them_either() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert not any(f"{name}.".startswith(f"{other}.") for other in FORBIDDEN), f"{path}: {name}"
