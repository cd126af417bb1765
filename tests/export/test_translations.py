"""Tracing without decompositions: the same answer as PyTorch's, and operators that have to be decomposed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ufuser.export import translations
from ufuser.export.to_onnx import trace


class Untranslated(nn.Module):
    """What `TRANSLATIONS` is for, each with options that differ from the defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 2, 2)
        self.norm = nn.BatchNorm2d(4, eps=0.1)
        self.up = nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1, groups=2)
        self.unbiased = nn.ConvTranspose2d(2, 1, 3, 1, 2, bias=False, dilation=2)
        for value in (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias):
            assert value is not None
            nn.init.uniform_(value, 0.5, 1.5)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        x = self.norm(
            self.down(torch.cat((ir, vi), dim=1)).relu()
        ).square()  # beside a convolution it is folded
        answer: Tensor = self.unbiased(self.up(x).half().float())
        return answer


class Padded(nn.Module):
    """A convolution that is padded by name, which the exporter knows in its decomposed form alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding="same")

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        answer: Tensor = self.conv(torch.cat((ir, vi), dim=1))
        return answer


def made(network: nn.Module) -> onnx.ModelProto:
    """Its graph, after what it answers was held against PyTorch."""
    proto = trace(network.eval(), 20)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 16, 24), (3, 1, 40, 16)):
        ir, vi = np.random.default_rng(0).random((2, *shape), np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
        (given,) = session.run(None, {"ir": ir, "vi": vi})
        assert expected.std() > 0.05
        np.testing.assert_allclose(given, expected, atol=1e-3)  # half precision in between
    return proto


def test_nothing_is_decomposed_that_has_a_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    decomposed = []
    monkeypatch.setattr(
        torch.export.ExportedProgram, "run_decompositions", lambda *given: decomposed.append(given)
    )
    torch.manual_seed(0)
    graph = made(Untranslated()).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["ConvTranspose"], kinds["BatchNormalization"], kinds["Cast"]) == (2, 1, 2)
    assert decomposed == []


def test_what_has_none_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    kept = translations.as_it_is

    def watched(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        asked.append(program)
        return kept(program)

    monkeypatch.setattr(translations, "as_it_is", watched)
    assert not any("padding" in str(known) for known in translations.TRANSLATIONS)
    torch.manual_seed(0)
    assert [node.op_type for node in made(Padded()).graph.node] == ["Concat", "Conv"]
    assert len(asked) == 1
