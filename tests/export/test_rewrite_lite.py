"""U-Fuser Lite's branches folded: the same answer, within the budget that it is made for."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from tests.export.export_cache import ExportCache, weights_of
from tests.export.test_rewrite_ufuser import SIZES, TOLERANCE, assert_same, picture, randomised
from ufuser.export.exporter import count_macs, trace
from ufuser.export.fidelity import onnx_network, psnr, synthetic_pair
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_lite import SubtractedStatistic, folded
from ufuser.export.tolerances import PSNR_FLOOR
from ufuser.train.models.lite import BranchedConv, ChannelStatistic, Lite, LiteOptions
from ufuser.train.objectives.distill import find_teacher


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(6, 6), (6, 10)], ids=["identity", "no identity"])
def test_folded_branches_are_one_convolution_borders_included(
    channels: tuple[int, int], size: tuple[int, int]
) -> None:
    conv = randomised(BranchedConv(*channels, branches=True))
    assert isinstance(conv, BranchedConv)
    x = picture(channels[0], size)
    assert_same(conv(x), folded(conv)(x))


@pytest.mark.parametrize(
    "options", [{}, {"head": "guided"}, {"fine": 4}, {"separable": True}, {"branches": False}]
)
def test_the_network_answers_the_same(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = Lite(LiteOptions(**options)).eval().requires_grad_(False)  # type: ignore[arg-type]
    for parameter in model.maps.parameters():  # type: ignore[union-attr]
        parameter.mul_(3)  # PyTorch's own start would all but give the visible picture
    deployed = rewrite(model)
    ir, vi = torch.rand(2, 2, 1, 72, 104, generator=torch.Generator().manual_seed(1))
    before = model(ir, vi)
    assert before.std() > 0.05
    assert (before - deployed(ir, vi)).abs().max() <= TOLERANCE
    assert not any(isinstance(m, BranchedConv) for m in deployed.modules())
    assert any(isinstance(m, BranchedConv) for m in model.modules())  # the original stays


def test_the_statistic_is_subtracted_and_the_same() -> None:
    statistic = randomised(ChannelStatistic(6))
    assert isinstance(statistic, ChannelStatistic)
    x = picture(6, (24, 40))
    before = statistic(x)
    assert_same(before, SubtractedStatistic(copy.deepcopy(statistic))(x))
    assert (before - x).abs().max() > 0.05


def test_it_keeps_the_budget_it_is_made_for() -> None:
    assert count_macs(rewrite(Lite()), 480, 640) <= 2e9
    assert sum(p.numel() for p in Lite().parameters()) <= 120_000


def test_half_precision_keeps_the_sums_over_a_picture_in_float32(export_cache: ExportCache) -> None:
    model, _ = find_teacher("lite")
    folder = export_cache(
        "lite-fp16",
        [weights_of(model)],
        lambda folder: onnx.save(trace(to_half(rewrite(model)), 20), folder / "x.onnx"),
    )
    graph = onnx.load(folder / "x.onnx")
    made = {output: node for node in graph.graph.node for output in node.output}
    (mean,) = (node for node in graph.graph.node if node.op_type == "ReduceMean")
    before = made[mean.input[0]]
    assert before.op_type == "Cast"
    assert [a.i for a in before.attribute if a.name == "to"] == [TensorProto.FLOAT]
    ir, vi = synthetic_pair((1, 480, 640))
    with torch.no_grad():
        expected = model(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
    found = onnx_network(graph.SerializeToString())(ir, vi)
    assert psnr(float(np.mean((found - expected) ** 2))) >= PSNR_FLOOR["fp16"]
