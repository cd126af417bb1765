"""Each exact rewrite beside what it replaces, on random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ufuser.export.exporter import count_macs
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_ufuser import (
    GramAttention,
    SummedConv,
    TwoPathFeedForward,
    fold_affine,
    folded_qkv,
    single_channel_attention,
    standardised_norm,
)
from ufuser.train.models.ufuser import (
    HEADS,
    ChannelAttention,
    ChannelLayerNorm,
    GatedFeedForward,
    GlobalFeature,
    JoiningConv,
    UFuser,
)

SIZES = [(8, 8), (24, 40), (56, 8), (72, 104)]  # odd multiples of 8, narrow and wide
TOLERANCE = 1e-5


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of a trained network's size: nothing at its neutral start, no answer all but constant."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim == 4 else 1
        scale = (1.5 / fan_in) ** 0.5 if fan_in > 1 else 0.5
        offset = 1.0 if parameter.ndim in (1, 3) else 0.0  # norms and temperatures around 1
        with torch.no_grad():
            parameter.copy_(offset + scale * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


def picture(channels: int, size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn((batch, channels, *size), generator=torch.Generator().manual_seed(7))


def assert_same(before: Tensor, after: Tensor) -> None:
    assert before.std() > 0.05, "an answer that hardly varies shows nothing"
    assert (before - after).abs().max() <= TOLERANCE * max(1.0, before.abs().max().item())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [8, 16, 32])
def test_the_folded_kernel_is_both_convolutions_borders_included(
    channels: int, size: tuple[int, int]
) -> None:
    attention = randomised(ChannelAttention(channels))
    x = picture(channels, size)
    before = attention.qkv2(attention.qkv1(x))
    after = nn.functional.conv2d(x, folded_qkv(attention).float(), padding=1)
    assert_same(before, after)
    assert_same(before[..., 0, :], after[..., 0, :])


@pytest.mark.parametrize("size", SIZES)
def test_attention_of_single_channel_heads_is_one_convolution(size: tuple[int, int]) -> None:
    attention = randomised(ChannelAttention(HEADS))
    x = picture(HEADS, size)
    assert_same(attention(x), single_channel_attention(attention)(x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 32])
def test_gram_attention(channels: int, size: tuple[int, int]) -> None:
    attention = randomised(ChannelAttention(channels))
    x = picture(channels, size)
    assert_same(attention(x), GramAttention(attention)(x))


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-4, 100.0])
def test_gram_attention_on_flat_maps(level: float) -> None:
    """Black frames: q and k may be zero, and nothing may divide by that."""
    attention = randomised(ChannelAttention(16))
    x = torch.full((1, 16, 16, 24), level)
    before, after = attention(x), GramAttention(attention)(x)
    assert torch.isfinite(after).all()
    assert (before - after).abs().max() <= TOLERANCE * max(1.0, level)


@pytest.mark.parametrize("channels", [8, 16, 32])
def test_layer_norm(channels: int) -> None:
    norm = randomised(ChannelLayerNorm(channels))
    x = picture(channels, (24, 40)) * 3 + 1
    assert_same(norm(x), standardised_norm(norm)(x))


@pytest.mark.parametrize("channels", [8, 16, 32])
@pytest.mark.parametrize("level", [0.0, 1.0, 100.0])
def test_layer_norm_of_flat_pixels(channels: int, level: float) -> None:
    norm = randomised(ChannelLayerNorm(channels))
    x = torch.full((1, channels, 16, 16), level)
    # The centring convolution leaves rounding of the level, which the flat pixel's deviation, the square
    # root of epsilon, magnifies three hundred times.
    assert (norm(x) - standardised_norm(norm)(x)).abs().max() <= TOLERANCE * max(1.0, level)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [8, 16, 32])
def test_the_feed_forward_with_and_without_the_norms_affine_part(
    channels: int, size: tuple[int, int]
) -> None:
    norm, mlp = randomised(ChannelLayerNorm(channels)), randomised(GatedFeedForward(channels), seed=1)
    x = picture(channels, size) * 3 + 1
    assert_same(mlp(x), TwoPathFeedForward(mlp)(x))
    before = mlp(norm(x))
    standardise = fold_affine(norm, mlp)
    assert_same(before, mlp(standardise(x)))
    assert_same(before, TwoPathFeedForward(mlp)(standardise(x)))


@pytest.mark.parametrize("size", SIZES)
def test_a_convolution_over_maps_side_by_side_is_a_sum(size: tuple[int, int]) -> None:
    conv = randomised(JoiningConv(24, 8))
    assert isinstance(conv, JoiningConv)
    maps = [picture(8, size), picture(8, size) + 1, picture(8, size).flip(-1)]
    assert_same(conv(*maps), SummedConv(conv, 3)(*maps))


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (72, 104)])
def test_the_whole_network_answers_alike(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    model = UFuser().eval().requires_grad_(False)
    for parameter in model.parameters():
        # PyTorch's own start gives a nearly constant picture and norms that do nothing.
        parameter.mul_(1.4) if parameter.ndim == 4 else parameter.add_(0.1 * torch.randn_like(parameter))
    ir, vi = picture(1, size).sigmoid(), picture(1, size).flip(-1).sigmoid()
    before = model(ir, vi)
    assert_same(before, rewrite(model)(ir, vi))
    assert not torch.allclose(before, model(vi, ir), atol=1e-2), "both encoders must be told apart"


def test_the_original_is_left_as_it_was() -> None:
    model = randomised(UFuser())
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    rewrite(model)
    assert all(torch.equal(kept[k], v) for k, v in model.state_dict().items())
    assert any(isinstance(m, GlobalFeature) and isinstance(m.attn, ChannelAttention) for m in model.modules())


def test_multiply_accumulates_before_and_after() -> None:
    model = UFuser()
    assert count_macs(model, 264, 400) == pytest.approx(13.895e9, rel=0.005)  # published: 13.89
    assert count_macs(rewrite(model), 264, 400) <= 8.9e9
