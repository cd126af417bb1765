"""Test doubles of TensorRT and PyCUDA, tiny fusion models, the command line, and the cache of exports."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.export.export_cache import ExportCache
from ufuser.cli import main

if TYPE_CHECKING:
    from tests.export.small_networks import SmallGraphs

# Tests run side by side, a process per core: threads of PyTorch, in them and in the commands that they start, would
# only wait for each other. Before PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MakeModel = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
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
    assert cuda.leaked == [], "freed without a current context"


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Builds an ONNX file of a few nodes; without arguments it fuses by the maximum."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("models")

    def make(
        name: str = "max",
        nodes: Sequence[tuple[str, Sequence[str], Sequence[str], dict[str, Any]]] = (
            ("Max", ["ir", "vi"], ["fused"], {}),
        ),
        inputs: Sequence[str] = ("ir", "vi"),
        metadata: dict[str, str] | None = None,
        constants: dict[str, np.ndarray] | None = None,
        layout: Sequence[int | str] = ("b", 1, "h", "w"),
    ) -> Path:
        helper = onnx.helper
        graph = helper.make_graph(
            [helper.make_node(op, takes, gives, **attributes) for op, takes, gives, attributes in nodes],
            name,
            [helper.make_tensor_value_info(i, onnx.TensorProto.FLOAT, layout) for i in inputs],
            [helper.make_tensor_value_info("fused", onnx.TensorProto.FLOAT, layout)],
            [onnx.numpy_helper.from_array(value, key) for key, value in (constants or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(
            model, {"shape_multiple": "8", "model": name} if metadata is None else metadata
        )
        onnx.checker.check_model(model)
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return make


@pytest.fixture(scope="session")
def max_model(make_model: MakeModel) -> Path:
    """fused = max(ir, vi), so that any other change of a picture shows."""
    return make_model()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the cyclic garbage collector: what is in a reference cycle is not freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def quick_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Runs `ufuser …` in this process, for the many small errors. Captures what libraries print, too."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, args))
        try:
            code: Any = main(words)
        except SystemExit as ended:  # by argparse
            code = ended.code
        captured = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, captured.out, captured.err)

    return run


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `python -m ufuser …` as a process, in `tmp_path`."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ufuser", *map(str, args)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def export_cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> ExportCache:
    """Exports of this run and of earlier ones, shared by all workers."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # absent with -p no:cacheprovider
    shared = tmp_path_factory.getbasetemp().parent / "exports" if cache is None else cache.mkdir("exports")
    return ExportCache(shared)


@pytest.fixture(scope="session")
def small_graphs(export_cache: ExportCache) -> SmallGraphs:
    """Graphs of a small FNet and a small DAE-Fuse."""
    from tests.export.small_networks import SmallGraphs  # with PyTorch

    return SmallGraphs(export_cache)
