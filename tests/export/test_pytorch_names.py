"""The exporter uses public names of PyTorch and ONNX Script only: private ones change with any release."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ufuser.export.exporter import trace

ROOT = Path(__file__).resolve().parents[2]


class Maximum(nn.Module):
    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        return torch.maximum(ir, vi)


def test_exports_without_a_private_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(torch._dynamo.config)
    patch = kind.patch

    def without_the_switch(self: object, *names: object, **values: object) -> object:
        if "fake_tensor_cache_enabled" in values:
            raise AttributeError("torch._dynamo.config.fake_tensor_cache_enabled does not exist")
        return patch(self, *names, **values)

    monkeypatch.setattr(kind, "patch", without_the_switch)
    assert [node.op_type for node in trace(Maximum(), 20).graph.node] == ["Max"]


@pytest.mark.parametrize("room", ["export", "benchmarks"])
def test_no_private_module_is_used(room: str) -> None:
    found = []
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            else:
                continue
            found += [
                f"{file.name}: {name}"
                for name in names
                if name.startswith(("torch.", "onnx.", "onnxscript.")) and "._" in name
            ]
    assert found == []
