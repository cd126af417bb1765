"""DAE-Fuse's exact rewrites, its export with dynamic shapes, and half precision."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.export.export_cache import ExportCache, weights_of
from ufuser.export import to_onnx
from ufuser.export.exporter import count_macs
from ufuser.export.fidelity import compare, synthetic_samples, torch_network
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_daefuse import (
    CellAttention,
    DepthwiseGramAttention,
    DepthwisePaths,
    JoinedFusion,
    rewrite_restormer_block,
    rewrite_transformer_block,
    strided_entry,
)
from ufuser.export.rewrite_ufuser import GramAttention
from ufuser.export.tolerances import PARITY_SHAPES, PSNR_FLOOR
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models.daefuse import (
    CELL,
    CrossFusion,
    DAEFuse,
    DAEFuseOptions,
    RestormerBlock,
    TransformerBlock,
)

SIZES = [(4, 4), (12, 20), (28, 4), (36, 52)]  # positions, whose cells are cut and whole
TOLERANCE = 1e-5
Network = TypeVar("Network", bound=nn.Module)


def randomised(module: Network, seed: int = 0) -> Network:
    """Weights of a trained network's size: norms do something, both modalities are told apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            kernel = parameter.ndim > 2 and "scale" not in name  # else a bias, a norm or a temperature
            if kernel:
                parameter.copy_(noise * (1.3 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0))
    return module.eval().requires_grad_(False)


def maps(channels: int, size: tuple[int, int], count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn((2, channels, *size), generator=generator) for _ in range(count)]


def assert_same(before: Tensor, after: Tensor) -> None:
    assert before.std() > 0.02, "an answer that hardly varies shows nothing"
    assert (before - after).abs().max() <= TOLERANCE * max(1.0, before.abs().max().item())


@pytest.mark.parametrize("size", SIZES)
def test_restormer_block(size: tuple[int, int]) -> None:
    block = randomised(RestormerBlock(16, 4))
    (x,) = maps(16, size)
    before = block(x)
    for part in (
        DepthwiseGramAttention(block.norm1, block.attn),
        DepthwisePaths(block.norm2, block.mlp),
    ):
        assert sum(p.requires_grad for p in part.parameters()) == 0
    rewrite_restormer_block(block)
    assert_same(before, block(x))
    assert_same(before[..., 0, :], block(x)[..., 0, :])  # the border, where zeros are padded


@pytest.mark.parametrize("size", SIZES)
def test_transformer_block(size: tuple[int, int]) -> None:
    block = randomised(TransformerBlock(16, 4))
    (x,) = maps(16, size)
    before = block(x)
    rewrite_transformer_block(block)
    assert_same(before, block(x))


@pytest.mark.parametrize("size", [(8, 8), (24, 40)])
def test_the_entry_is_one_strided_convolution_borders_included(size: tuple[int, int]) -> None:
    entry = nn.Sequential(nn.PixelUnshuffle(CELL), randomised(nn.Conv2d(CELL**2, 8, 3, padding=1)))
    (x,) = maps(1, size)
    conv = entry[1]
    assert isinstance(conv, nn.Conv2d)
    after = strided_entry(conv)(x)
    assert_same(entry(x), after)
    assert_same(entry(x)[..., 0, :], after[..., 0, :])


@pytest.mark.parametrize("size", SIZES)
def test_the_fusion_and_the_decoders_entry(size: tuple[int, int]) -> None:
    fusion, entry = randomised(CrossFusion(16)), randomised(nn.Conv2d(16, 8, 1), 1)
    a, b = maps(16, size, 2)
    joined = JoinedFusion(fusion, entry)
    assert_same(entry(fusion(a, b)), joined(a, b))
    assert (joined(a, b) - joined(b, a)).abs().max() > 0.1


@pytest.mark.parametrize("level", [0.0, 1.0, 100.0])
def test_flat_maps(level: float) -> None:
    """Black frames: nothing may divide by what is zero there."""
    block, fusion = randomised(RestormerBlock(16, 4)), randomised(CrossFusion(16))
    x = torch.full((1, 16, 12, 16), level)
    before = block(x), fusion(x, x)
    rewrite_restormer_block(block)
    after = block(x), JoinedFusion(fusion, _identity(16))(x, x)
    for one, other in zip(before, after, strict=True):
        assert torch.isfinite(other).all()
        assert (one - other).abs().max() <= TOLERANCE * max(1.0, level)


def _identity(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1).requires_grad_(False)
    conv.weight.copy_(torch.eye(channels)[:, :, None, None])
    assert conv.bias is not None
    conv.bias.zero_()
    return conv


@pytest.fixture(scope="module")
def network() -> DAEFuse:
    """Of the shipped size."""
    return damped(randomised(DAEFuse(), 5))


def damped(model: DAEFuse) -> DAEFuse:
    """The network with a small last convolution: its sigmoid would be saturated."""
    last = model.decoder[-3]
    assert isinstance(last, nn.Conv2d)
    last.weight.mul_(0.3)
    return model


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (72, 104)])
def test_the_whole_network_answers_alike_and_stays_as_it_was(network: DAEFuse, size: tuple[int, int]) -> None:
    kept = copy.deepcopy(network.state_dict())
    generator = torch.Generator().manual_seed(2)
    ir, vi = (torch.rand((2, 1, *size), generator=generator) for _ in range(2))
    rewritten = rewrite(network)
    assert_same(network(ir, vi), rewritten(ir, vi))
    assert all(torch.equal(kept[k], v) for k, v in network.state_dict().items())
    kinds = {type(m) for m in rewritten.modules()}
    assert {CellAttention, DepthwiseGramAttention, DepthwisePaths, JoinedFusion} <= kinds
    assert issubclass(DepthwiseGramAttention, GramAttention)  # the statistics stay float32 in half precision


def test_multiply_accumulates_before_and_after(network: DAEFuse) -> None:
    before, after = (count_macs(m, 480, 640) for m in (network, rewrite(network)))
    assert after < before < 12.5e9


@pytest.fixture(scope="module")
def exported(small_parity_shapes: None, export_cache: ExportCache) -> SimpleNamespace:
    """`network`, and `onnx` by the real entry point: one transformer block, half the channels.

    It has every kind of block of the shipped size; the time of tracing grows with the number of nodes.
    """
    options = {"width": 16, "vit_dim": 32, "vit_blocks": 1}
    network = damped(randomised(DAEFuse(DAEFuseOptions(**options)), 5))

    def export(folder: Path) -> None:
        checkpoint = folder / "daefuse.safetensors"
        save_checkpoint(checkpoint, network.state_dict(), "daefuse", 'name = "test"', {"step": 1}, options)
        assert to_onnx.main(["--checkpoint", str(checkpoint), "--out", str(folder / "daefuse.onnx")]) == 0

    folder = export_cache("daefuse", [weights_of(network), str(options)], export)
    return SimpleNamespace(network=network, onnx=folder / "daefuse.onnx")


def test_the_export_has_dynamic_shapes_and_no_discriminator(exported: SimpleNamespace) -> None:
    proto = onnx.load(exported.onnx)
    found = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.input, *proto.graph.output)
    }
    assert found == {n: ["batch", 1, "height", "width"] for n in ("ir", "vi", "fused")}
    notes = {p.key: p.value for p in proto.metadata_props}
    own = sum(p.numel() for p in exported.network.parameters())
    assert (notes["model"], notes["parameters"], notes["shape_multiple"]) == ("daefuse", str(own), "8")
    held = sum(int(np.prod(t.dims)) for t in proto.graph.initializer)
    assert held < 1.1 * own  # a discriminative block alone would add a fifth
    assert exported.onnx.stat().st_size < 4.4 * own + 1e6


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 24, 136), (2, 200, 40)])
def test_agrees_with_pytorch_at_shapes_it_was_not_traced_at(
    exported: SimpleNamespace, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    rng = np.random.default_rng(1)
    ir, vi = (rng.random((batch, 1, height, width), np.float32) for _ in range(2))
    expected = exported.network(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
    session = onnxruntime.InferenceSession(str(exported.onnx), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"ir": ir, "vi": vi})
    assert expected.std() > 0.01
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_half_precision_stays_close_and_takes_black_frames(network: DAEFuse) -> None:
    """In PyTorch: a second export would cost half a minute."""
    half = to_half(rewrite(network))
    attention = next(m for m in half.modules() if isinstance(m, DepthwiseGramAttention))
    assert next(attention.query.parameters()).dtype == torch.float16
    assert attention.scale.dtype == torch.float32
    found = compare(torch_network(network), torch_network(half), synthetic_samples(PARITY_SHAPES[:1]))
    assert found.psnr_db >= PSNR_FLOOR["fp16"]
    black = torch.zeros(1, 1, 64, 64)
    assert torch.isfinite(half(black, black)).all()


def test_the_runtime_opens_it(exported: SimpleNamespace) -> None:
    from ufuser.runtime.fuser import Fuser

    rng = np.random.default_rng(3)
    ir, vi = rng.integers(0, 256, (61, 83), np.uint8), rng.integers(0, 256, (61, 83, 3), np.uint8)
    fused = Fuser.open(Path(exported.onnx), "onnxruntime", 1).fuse(ir, vi)
    assert fused.shape == vi.shape
    assert fused.std() > 5
