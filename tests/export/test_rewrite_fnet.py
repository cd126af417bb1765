"""FNet's rewrites beside what they replace, and its export through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests.export.export_cache import ExportCache, weights_of
from ufuser.export.exporter import count_macs
from ufuser.export.fnet_parts import FEATURES, PARTS
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import (
    DeployedFNet,
    NamedParts,
    SigmoidalThreshold,
    SoftThreshold,
    from_features,
    thresholds,
    to_features,
    with_parts,
)
from ufuser.export.to_onnx import main
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models import all_options
from ufuser.train.models.fnet import FNet
from ufuser.train.models.sparse_coding import SparseCoding, sigmoidal_threshold, soft_threshold

SIZES = [(16, 24), (9, 13)]
FEW = {"iterations": 2}


def moved(network: nn.Module) -> nn.Module:
    """Weights that no longer belong together, as training leaves them."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * p.std() * torch.randn(p.shape, generator=generator) if p.numel() > 1 else 0.02)
    return network.eval().requires_grad_(False)


def fnet(seed: int = 0, **options: object) -> FNet:
    torch.manual_seed(seed)
    network = moved(FNet(SparseCoding(**{**FEW, **options})))  # type: ignore[arg-type]
    assert isinstance(network, FNet)
    return network


# Each rewrite


@pytest.mark.parametrize("size", [(20, 12), (9, 9), (3, 5)])
@pytest.mark.parametrize("few", [1, 2, 3])
def test_by_rows_is_the_same_convolution_borders_included(few: int, size: tuple[int, int]) -> None:
    for weight, make in (
        (torch.randn(few, 64, 9, 9), from_features),
        (torch.randn(64, few, 9, 9), to_features),
    ):
        x = torch.randn(2, weight.shape[1], *size)
        expected = torch.nn.functional.conv2d(x, weight, padding=4)
        given = make(weight)(x)
        assert (given - expected).abs().max() <= 1e-5 * expected.abs().max()
        many, height, width = max(weight.shape[:2]), 1, 9
        assert any(
            conv.weight.shape[2:] == (height, width) and many in conv.weight.shape[:2]
            for conv in make(weight)
        )


@pytest.mark.parametrize("gamma", [1.0, 100.0])
def test_thresholds_of_scaled_features(gamma: float) -> None:
    theta = torch.tensor([0.12])
    x = torch.cat((torch.linspace(-1, 1, 401), torch.tensor([0.0, 1e-20, -1e-20])))
    for rewritten, expected in (
        (SigmoidalThreshold(theta, 0.1, gamma), sigmoidal_threshold(x, theta, 0.1, gamma)),
        (SoftThreshold(theta, gamma), soft_threshold(x, theta)),
    ):
        torch.testing.assert_close(rewritten(gamma * x) / gamma, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iterations": 1},
        {"thresholding": "soft"},
        {"shared": True},
        {"momentum": "none"},
        {"momentum": "polyak"},
        {"momentum": "quasi_hyperbolic"},
        {"alpha": 0.05, "gamma": 200.0},
        {"block": "lcsc"},
    ],
    ids=str,
)
def test_the_whole_network_answers_the_same(options: dict[str, object]) -> None:
    """In float64, where rounding can't hide a slip: 1e-10 where the rewrites have to hold 1e-5."""
    network = fnet(**options).double()
    deployed = rewrite(network)
    assert isinstance(deployed, DeployedFNet)
    for size in SIZES:
        ir, vi = torch.rand(2, 1, 1, *size, dtype=torch.float64)
        expected = network(ir, vi)
        assert expected.std() > 0.05
        assert (deployed(ir, vi) - expected).abs().max() < 1e-10


def test_in_float32_the_whole_network_stays_within_rounding() -> None:
    network = fnet(iterations=4)
    ir, vi = torch.rand(2, 1, 1, 24, 32)
    assert (rewrite(network)(ir, vi) - network(ir, vi)).abs().max() < 1e-5


def test_the_original_stays_and_the_multiplications_hardly_grow() -> None:
    network = FNet().eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    deployed = rewrite(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert count_macs(deployed, 264, 400) < 1.06 * count_macs(network, 264, 400)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in deployed.modules()) // 2  # two make one of 9×9
    assert convolutions == 30  # of 62: joined
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 62


def test_the_parts_add_up_and_are_what_the_paper_calls_them() -> None:
    network = fnet().double()
    ir, vi = torch.rand(2, 1, 1, 16, 24, dtype=torch.float64)
    fused, *parts = NamedParts(DeployedFNet(network))(ir, vi)
    named = dict(zip((*PARTS, *FEATURES), parts, strict=True))
    u, z, v = network.features(ir, vi)
    gamma = network.net_u.coding.gamma
    for name, conv, features in (
        ("ir", network.decoder.conv_1, u),
        ("common", network.decoder.conv_2, z),
        ("vi", network.decoder.conv_3, v),
    ):
        part = named[name if name == "common" else f"unique_{name}"]
        torch.testing.assert_close(part, conv(features), atol=1e-9, rtol=0)
        torch.testing.assert_close(named[f"features_{name}"] / gamma, features, atol=1e-9, rtol=0)
    torch.testing.assert_close(fused, sum(parts[:3]))
    torch.testing.assert_close(fused, network(ir, vi), atol=1e-9, rtol=0)


def test_thresholds_are_the_blocks() -> None:
    network = fnet()
    found = thresholds(network)
    assert list(found) == list(PARTS)
    assert found["common"]["theta"] == pytest.approx(
        [network.net_z.theta(k).item() for k in range(3)], abs=1e-6
    )
    assert found["unique_vi"]["rho"][0] == 0


def test_half_precision_survives_thresholds_whose_exponential_overflows() -> None:
    network = fnet()
    with torch.no_grad():
        for net in (network.net_u, network.net_v, network.net_z):
            net.b_theta.fill_(0.0)  # θ_0 = 0.69: e^69
    half = to_half(rewrite(network))
    ir, vi = torch.rand(2, 1, 1, 16, 24)
    difference = half(ir, vi) - network(ir, vi)
    assert half(ir, vi).dtype == torch.float32
    assert difference.square().mean() < 1e-6  # 60 dB
    assert torch.isfinite(half(torch.zeros_like(ir), torch.zeros_like(vi))).all()


# Exported


@pytest.fixture(scope="module")
def exported(small_parity_shapes: None, export_cache: ExportCache) -> dict[str, Path]:
    """The graphs of a small network by precision."""
    network = fnet(iterations=1)
    options = all_options("fnet", {"iterations": 1})

    def export(folder: Path) -> None:
        checkpoint = folder / "x.safetensors"
        save_checkpoint(checkpoint, network.state_dict(), "fnet", "", {"step": 1}, options)
        for precision in ("fp32", "fp16"):
            out = str(folder / f"{precision}.onnx")
            words = ["--checkpoint", str(checkpoint), "--out", out, "--precision", precision]
            assert main(words) == 0

    folder = export_cache("fnet", [weights_of(network), json.dumps(options)], export)
    return {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16")}


def properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_output_and_named_parts(exported: dict[str, Path], precision: str) -> None:
    graph = onnx.load(exported[precision]).graph
    assert [v.name for v in graph.output] == ["fused"]
    assert {*PARTS, *FEATURES} <= {name for node in graph.node for name in node.output}
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input]
    assert dims == [["batch", 1, "height", "width"]] * 2


def test_metadata_tells_the_thresholds(exported: dict[str, Path]) -> None:
    notes = properties(exported["fp32"])
    assert notes["model"] == "fnet"
    assert notes["feature_scale"] == "100.0"
    assert json.loads(notes["thresholds"]) == thresholds(fnet(iterations=1))
    assert float(notes["error_largest"]) <= 1e-4


@pytest.mark.parametrize(("precision", "decibels"), [("fp32", 90), ("fp16", 60)])
def test_answers_at_other_sizes(exported: dict[str, Path], precision: str, decibels: float) -> None:
    ir, vi = np.random.default_rng(0).random((2, 2, 1, 40, 72), np.float32)
    session = onnxruntime.InferenceSession(str(exported[precision]), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"ir": ir, "vi": vi})
    with torch.no_grad():
        expected = fnet(iterations=1)(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
    assert -10 * np.log10(np.square(given - expected).mean()) > decibels


def test_other_networks_have_no_parts() -> None:
    network = nn.Conv2d(1, 1, 1)
    assert with_parts(network) is network
