"""Exact rewrites of U-Fuser (see `rewrite`): folded q·k·v, one product for all heads, norms without transposes.

What each is worth is in docs/speed.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    pointwise = attention.qkv1.weight.detach().double()[:, :, 0, 0]
    return torch.einsum("omhw,mi->oihw", attention.qkv2.weight.detach().double(), pointwise)


def _conv(weight: Tensor, bias: Tensor | None = None, **options: object) -> nn.Conv2d:
    """A convolution with the given kernel (cout×cin/groups×kh×kw) and bias."""
    groups = options.get("groups", 1)
    assert isinstance(groups, int)
    cout, cin, *size = weight.shape
    conv = nn.Conv2d(cin * groups, cout, tuple(size), bias=bias is not None, **options)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return conv


def single_channel_attention(attention: ChannelAttention) -> nn.Conv2d:
    """Attention with as many heads as channels, as the one 3×3 convolution that it is.

    Each attention map is then a softmax over one element, which is 1 whatever q and k are. What remains is
    the output projection of v.
    """
    value = folded_qkv(attention)[2 * HEADS :]
    projection = attention.proj.weight.detach().double()[:, :, 0, 0]
    return _conv(torch.einsum("om,mihw->oihw", projection, value), padding=1)


class GramAttention(nn.Module):
    """Channel attention over the map seen channels last, all heads in one C×C product.

    - q, k and v come from three folded convolutions: what one convolution would give would have to be split.
    - The norms of q and k divide the small product k qᵀ; no map is normalised pixel by pixel. Pairs of channels
      that belong to different heads are masked out of the softmax: computing them costs less than keeping the
      heads apart, for which engines leave the layout of their convolutions.
    - The output projection is multiplied onto the attention map, not onto the picture.

    The statistics are float32 whatever the maps are: in half precision sums of squares over a picture
    overflow, and 1e-12, the floor under the norms in F.normalize, is zero.
    """

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        kernel = folded_qkv(attention)
        self.channels = channels = kernel.shape[1]
        self.query, self.key, self.value = (_conv(part, padding=1) for part in kernel.chunk(3))
        per_head = channels // HEADS
        own_head = torch.eye(HEADS).repeat_interleave(per_head, 0).repeat_interleave(per_head, 1).bool()
        scale = attention.scale.detach().flatten().repeat_interleave(per_head)
        self.scale = nn.Parameter(scale, requires_grad=False)  # of each row of q
        self.mask = nn.Parameter(torch.zeros(channels, channels).masked_fill(~own_head, -1e30), False)
        self.projection = nn.Parameter(attention.proj.weight.detach()[:, :, 0, 0].t().clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        q, k, v = (
            conv(x).permute(0, 2, 3, 1).reshape(-1, height * width, self.channels)
            for conv in (self.query, self.key, self.value)
        )
        mixed = v @ self.mixing(q.float(), k.float()).to(v.dtype)
        return torch.reshape(mixed, (-1, height, width, self.channels)).permute(0, 3, 1, 2)

    def mixing(self, q: Tensor, k: Tensor) -> Tensor:
        """B×C×C: what each channel of v (rows) gives to each channel of the output; q and k are B×HW×C."""
        norm_q, norm_k = (torch.linalg.vector_norm(t, dim=1, keepdim=True).clamp_min(1e-12) for t in (q, k))
        cosine = (k.transpose(1, 2) @ q) / (norm_k.transpose(1, 2) * norm_q)
        attention = (cosine * self.scale.float() + self.mask.float()).softmax(dim=1)
        return torch.matmul(attention, self.projection.float())


class Standardise(nn.Module):
    """LayerNorm over channels without its affine part, in whatever layout the map has.

    The fused operator wants channels last; engines whose convolutions keep channels in blocks transpose the
    map there and back, and reductions over channels are slow in their layout. Here the mean is taken off by a
    1×1 convolution with I − 1/C, and the variance is a 1×1 convolution of the squares, with epsilon as its bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        centring = (torch.eye(channels, dtype=torch.float64) - 1 / channels)[:, :, None, None]
        self.centre = _conv(centring)
        self.variance = nn.Conv2d(channels, 1, 1).requires_grad_(False)
        self.variance.weight.fill_(1 / channels)
        assert self.variance.bias is not None
        self.variance.bias.fill_(EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        centred: Tensor = self.centre(x)
        deviation: Tensor = self.variance(centred * centred).sqrt()
        return centred / deviation


def standardised_norm(norm: ChannelLayerNorm) -> nn.Sequential:
    """`Standardise` and the affine part, as the scale and shift of a batch normalisation at rest.

    The shift can't go on into a zero-padded convolution: at the border the padding would have none.
    """
    channels = norm.body.weight.shape[0]
    affine = nn.BatchNorm2d(channels, eps=0.0)  # its statistics are those of nothing: mean 0, variance 1
    affine.weight = nn.Parameter(norm.body.weight.detach().clone(), requires_grad=False)
    affine.bias = nn.Parameter(norm.body.bias.detach().clone(), requires_grad=False)
    return nn.Sequential(Standardise(channels), affine).eval()


def fold_affine(norm: ChannelLayerNorm, mlp: GatedFeedForward) -> Standardise:
    """Move a norm's affine part into the 1×1 convolution after it, in place; what is left of the norm."""
    pointwise = mlp.project_in.weight.detach().double()
    folded = nn.Conv2d(pointwise.shape[1], pointwise.shape[0], 1).requires_grad_(False)
    folded.weight.copy_(pointwise * norm.body.weight.detach().double()[:, None, None])
    assert folded.bias is not None
    folded.bias.copy_(pointwise[:, :, 0, 0] @ norm.body.bias.detach().double())
    mlp.project_in = folded
    return Standardise(pointwise.shape[1])


class TwoPathFeedForward(nn.Module):
    """Gated feed-forward with gate and value as two paths from one reflected map: nothing to split.

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
        pointwise: kernel of the 1×1, C×cin×1×1.
        grouped: kernel of the grouped one, C×2×3×3.
        shift: bias of the 1×1, C, or None.
    """

    def __init__(self, pointwise: Tensor, grouped: Tensor, shift: Tensor | None) -> None:
        super().__init__()
        channels = len(grouped)
        each = torch.arange(channels)
        swapped = each ^ 1
        self.own = _conv(pointwise, shift)
        self.other = _conv(pointwise[swapped], None if shift is None else shift[swapped])
        self.of_own = _conv(grouped[each, each % 2, None], groups=channels)
        self.of_other = _conv(grouped[each, swapped % 2, None], groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.of_own(self.own(x)) + self.of_other(self.other(x))
        return answer


class SummedConv(nn.Module):
    """A convolution over maps side by side, as a sum of one for each map: nothing is copied together.

    Their shares of the channels are alike, as everywhere in U-Fuser.
    """

    def __init__(self, conv: JoiningConv, maps: int) -> None:
        super().__init__()
        parts = (
            _conv(weight, padding=1, padding_mode="reflect") for weight in conv.weight.chunk(maps, dim=1)
        )
        self.parts = nn.ModuleList(parts)

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
