"""Tiny fusion models, pictures and the real command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ufuser.cli import main

MakeModel = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


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
    """fused = max(ir, vi): whatever else happens to a picture on its way shows."""
    return make_model()


@pytest.fixture
def quick_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The same without a process of its own: for the many small refusals. What libraries print is seen, too."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, args))
        try:
            code: Any = main(words)
        except SystemExit as ended:  # by argparse
            code = ended.code
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """`python -m ufuser ...` in a process of its own, run in `tmp_path`."""

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
