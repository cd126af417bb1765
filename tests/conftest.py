"""The test doubles of TensorRT and PyCUDA, for whatever room needs them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

# Tests run side by side, a process per core: threads of PyTorch, in them and in the commands that they start, would
# only wait for each other. Before PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_DOUBLE = Path(__file__).parent / "tensorrt_api" / "double"


@pytest.fixture(scope="session")
def double_modules() -> dict[str, ModuleType]:
    """The doubles, loaded once: Polygraphy holds on to the module it has seen first."""
    files = {
        "pycuda": _DOUBLE / "pycuda" / "__init__.py",
        "pycuda.driver": _DOUBLE / "pycuda" / "driver.py",
        "tensorrt": _DOUBLE / "tensorrt.py",
    }
    before = {name: sys.modules.pop(name, None) for name in files}
    loaded = {}
    for name, file in files.items():
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module
    return loaded


@pytest.fixture
def double(
    double_modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """TensorRT and PyCUDA replaced by their doubles: `cuda` and `tensorrt` hold what a test may set and see.

    Afterwards no context may have been left current.
    """
    for name, module in double_modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    cuda, tensorrt = double_modules["pycuda.driver"]._state, double_modules["tensorrt"]._settings
    cuda.reset()
    tensorrt.reset()
    yield SimpleNamespace(cuda=cuda, tensorrt=tensorrt, module=double_modules["tensorrt"])
    assert cuda.balance == 0, "a context was pushed and not popped"
