"""Exact rewrites of U-Fuser (see `rewrite`): folded q·k·v, one product for all heads, norms without transposes.

docs/speed.md has the effect of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.export.layers import (
    bias_of,
    convolution,
    expect,
    kernel_of,
    matrix_of,
    parameter,
    pointwise,
    without_bias,
)
from ufuser.train.models.ufuser import (
    HEADS,
    ChannelAttention,
    ChannelLayerNorm,
    GatedFeedForward,
    GlobalFeature,
    JoiningConv,
    RestormerCNNBlock,
    UFuser,
)

EPSILON = 1e-5  # of the network's LayerNorm


def folded_qkv(attention: ChannelAttention) -> Tensor:
    """The 1×1 and the 3×3 convolution of q, k, v as one kernel, 3C×C×3×3, float64.

    Neither has a bias, nothing stands between them, and the 3×3 pads with zeros, which the 1×1 maps to zeros:
    W[o, i] = Σ_m W3[o, m] · W1[m, i], at the borders too.
    """
    without_bias(attention.qkv1, attention.qkv2)
    return torch.einsum("omhw,mi->oihw", kernel_of(attention.qkv2), matrix_of(attention.qkv1))


def single_channel_attention(attention: ChannelAttention) -> nn.Conv2d:
    """Attention with as many heads as channels, as one equivalent 3×3 convolution.

    Each attention map is a softmax over one element, 1 for any q and k. The output projection of v remains.
    """
    value = folded_qkv(attention)[2 * HEADS :]
    return convolution(torch.einsum("om,mihw->oihw", matrix_of(attention.proj), value), padding=1)


class GramAttention(nn.Module):
    """Channel attention over the map with channels last, all heads in one C×C product.

    - q, k and v come from three folded convolutions: the output of one would have to be split.
    - The norms of q and k divide the small product k qᵀ; no map is normalised pixel by pixel. Pairs of channels
      that belong to different heads are masked out of the softmax: computing them costs less than keeping the
      heads apart, for which engines leave the layout of their convolutions.
    - The output projection is multiplied onto the attention map, not onto the picture.

    The statistics are float32 for maps of any type: in half precision sums of squares over a picture
    overflow, and 1e-12, the floor under the norms in F.normalize, is zero.
    """

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        kernel = folded_qkv(attention)
        self.channels = channels = kernel.shape[1]
        self.query, self.key, self.value = (convolution(part, padding=1) for part in kernel.chunk(3))
        expect(channels % HEADS == 0, f"a multiple of {HEADS} channels in an attention", channels)
        per_head = channels // HEADS
        own_head = torch.eye(HEADS).repeat_interleave(per_head, 0).repeat_interleave(per_head, 1).bool()
        scale = attention.scale.detach().flatten().repeat_interleave(per_head)
        self.scale = parameter(scale)  # of each row of q
        self.mask = parameter(torch.zeros(channels, channels).masked_fill(~own_head, -1e30))
        self.projection = parameter(matrix_of(attention.proj).t())

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        q, k, v = (
            conv(x).permute(0, 2, 3, 1).reshape(-1, height * width, self.channels)
            for conv in (self.query, self.key, self.value)
        )
        mixed = v @ self.mixing(q.float(), k.float()).to(v.dtype)
        return torch.reshape(mixed, (-1, height, width, self.channels)).permute(0, 3, 1, 2)

    def mixing(self, q: Tensor, k: Tensor) -> Tensor:
        """B×C×C: the weight of each channel of v (rows) in each channel of the output; q and k are B×HW×C."""
        norm_q, norm_k = (torch.linalg.vector_norm(t, dim=1, keepdim=True).clamp_min(1e-12) for t in (q, k))
        cosine = (k.transpose(1, 2) @ q) / (norm_k.transpose(1, 2) * norm_q)
        attention = (cosine * self.scale.float() + self.mask.float()).softmax(dim=1)
        return torch.matmul(attention, self.projection.float())


class Standardise(nn.Module):
    """LayerNorm over channels without its affine part, in any memory layout of the map.

    The fused operator wants channels last; engines whose convolutions keep channels in blocks transpose the
    map there and back, and reductions over channels are slow in their layout. Here the mean is taken off by a
    1×1 convolution with I − 1/C, and the variance is a 1×1 convolution of the squares, with epsilon as its bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.centre = pointwise(torch.eye(channels, dtype=torch.float64) - 1 / channels)
        self.variance = pointwise(torch.full((1, channels), 1 / channels), torch.tensor([EPSILON]))

    def forward(self, x: Tensor) -> Tensor:
        centred: Tensor = self.centre(x)
        deviation: Tensor = self.variance(centred * centred).sqrt()
        return centred / deviation


def standardised_norm(norm: ChannelLayerNorm) -> nn.Sequential:
    """`Standardise` and the affine part, as the scale and shift of a batch normalisation at rest.

    The shift can't go on into a zero-padded convolution: at the border the padding would have none.
    """
    channels = norm.body.weight.shape[0]
    affine = nn.BatchNorm2d(channels, eps=0.0)  # untrained statistics: mean 0, variance 1
    affine.weight, affine.bias = parameter(norm.body.weight.clone()), parameter(norm.body.bias.clone())
    return nn.Sequential(Standardise(channels), affine).eval()


def fold_affine(norm: ChannelLayerNorm, mlp: GatedFeedForward) -> Standardise:
    """Move a norm's affine part into the 1×1 convolution after it, in place; returns the rest of the norm."""
    scale, shift = norm.body.weight.detach().double(), norm.body.bias.detach().double()
    kernel = matrix_of(mlp.project_in)
    mlp.project_in = pointwise(kernel * scale, kernel @ shift + bias_of(mlp.project_in))
    return Standardise(kernel.shape[1])


class TwoPathFeedForward(nn.Module):
    """Gated feed-forward with gate and value as two paths from one reflected map, which need not be split.

    Reflection commutes with a 1×1 convolution, so it comes first, where the map is half as wide.
    """

    def __init__(self, mlp: GatedFeedForward) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        inward, grouped = mlp.project_in.weight.detach().chunk(2), mlp.dwconv.weight.detach().chunk(2)
        bias = mlp.project_in.bias
        shifts = (None, None) if bias is None else bias.detach().chunk(2)
        self.gate, self.value = (
            PairedConv(*of_path) for of_path in zip(inward, grouped, shifts, strict=True)
        )
        self.project_out = mlp.project_out

    def forward(self, x: Tensor) -> Tensor:
        x = self.pad(x)
        answer: Tensor = self.project_out(F.gelu(self.gate(x)) * self.value(x))
        return answer


class PairedConv(nn.Module):
    """A 1×1 and an unpadded 3×3 convolution in groups of two channels, as the sum of two depthwise ones.

    Engines run depthwise convolutions at the memory's speed and groups of two channels at a small share of
    it. Each output needs its own channel and the other one of its pair: the latter comes from a second 1×1
    convolution with the pairs' rows swapped, which costs less than moving channels about.

    Args:
        inward: kernel of the 1×1, C×cin×1×1.
        grouped: kernel of the grouped one, C×2×3×3.
        shift: bias of the 1×1, C, or None.
    """

    def __init__(self, inward: Tensor, grouped: Tensor, shift: Tensor | None) -> None:
        super().__init__()
        expect(
            grouped.shape[1:] == (2, 3, 3),
            "a 3x3 convolution in groups of two channels",
            tuple(grouped.shape),
        )
        channels = len(grouped)
        each = torch.arange(channels)
        swapped = each ^ 1
        self.own = convolution(inward, shift)
        self.other = convolution(inward[swapped], None if shift is None else shift[swapped])
        self.of_own = convolution(grouped[each, each % 2, None], groups=channels)
        self.of_other = convolution(grouped[each, swapped % 2, None], groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.of_own(self.own(x)) + self.of_other(self.other(x))
        return answer


class SummedConv(nn.Module):
    """A convolution over concatenated maps, as a sum of one for each map: no map is copied.

    Every map has the same number of channels, as everywhere in U-Fuser.
    """

    def __init__(self, conv: JoiningConv, maps: int) -> None:
        super().__init__()
        expect(
            conv.bias is None and conv.padding_mode == "reflect" and conv.in_channels % maps == 0,
            f"a reflected convolution without bias over {maps} maps of as many channels each",
            conv,
        )
        self.parts = nn.ModuleList(
            convolution(kernel, padding=1, padding_mode="reflect")
            for kernel in conv.weight.chunk(maps, dim=1)
        )

    def forward(self, *maps: Tensor) -> Tensor:
        answer: Tensor
        answer, *others = (part(x) for part, x in zip(self.parts, maps, strict=True))
        for other in others:
            answer = answer + other
        return answer


def rewrite_global_feature(feature: GlobalFeature) -> None:
    """Make every rewrite in one global branch, in place."""
    single = feature.attn.proj.weight.shape[0] == HEADS  # one channel a head, at full resolution
    attention = single_channel_attention(feature.attn) if single else GramAttention(feature.attn)
    feature.attn = attention  # type: ignore[assignment]
    feature.norm1 = standardised_norm(feature.norm1)  # type: ignore[assignment]
    feature.norm2 = fold_affine(feature.norm2, feature.mlp)  # type: ignore[assignment]
    feature.mlp = TwoPathFeedForward(feature.mlp)  # type: ignore[assignment]


def rewrite_ufuser(model: UFuser) -> None:
    """Make every rewrite, in place."""
    for module in list(model.modules()):
        if isinstance(module, GlobalFeature):
            rewrite_global_feature(module)
        elif isinstance(module, RestormerCNNBlock) and module.has_global and module.has_local:
            module.FFN = SummedConv(module.FFN, 2)  # type: ignore[assignment]
    for block in (model.f_1, model.f_2, model.f_3, model.f_4, model.de_1, model.de_2, model.de_3):
        block.embed = SummedConv(block.embed, 2)  # type: ignore[assignment]
