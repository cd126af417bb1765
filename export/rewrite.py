"""Exact rewrites: the same answer by fewer operations.

`rewrite` returns a copy of a trained network in which every step below has been made. Each is an identity of
real arithmetic (borders included); in float32 the answers differ by rounding, which the tests hold under 1e-5.
What each is worth is in docs/speed.md.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.ufuser import (
    HEADS,
    ChannelAttention,
    ChannelLayerNorm,
    GatedFeedForward,
    GlobalFeature,
)


def folded_qkv(attention: ChannelAttention) -> Tensor:
    """The 1×1 and the 3×3 convolution of q, k, v as one kernel, 3C×C×3×3, float64.

    Neither has a bias, nothing stands between them, and the 3×3 pads with zeros, which the 1×1 maps to zeros:
    W[o, i] = Σ_m W3[o, m] · W1[m, i], at the borders too.
    """
    pointwise = attention.qkv1.weight.detach().double()[:, :, 0, 0]
    return torch.einsum("omhw,mi->oihw", attention.qkv2.weight.detach().double(), pointwise)


def _conv(weight: Tensor, **options: object) -> nn.Conv2d:
    """A bias-free convolution with the given kernel (cout×cin×kh×kw)."""
    cout, cin, *size = weight.shape
    conv = nn.Conv2d(cin, cout, tuple(size), bias=False, **options)  # type: ignore[arg-type]
    conv.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
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
    """Channel attention with its passes over the whole map reduced to three: q and k, v, and the output.

    - q and k come from one folded convolution, ordered head by head, in one reshape. The product of that map
      with its own transpose holds q kᵀ and, on its diagonal, the squared norms of q and k, so neither is ever
      normalised pixel by pixel.
    - The output projection is multiplied onto the c×c attention maps, not onto the picture: one C×C matrix
      is applied to v. Its columns for the rows of k, which attend to nothing in the network, are zero.
    """

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        kernel = folded_qkv(attention)
        self.channels = channels = kernel.shape[1]
        self.per_head = c = channels // HEADS
        q, k, v = kernel.chunk(3)
        q, k = (kernel.reshape(HEADS, c, channels, 3, 3) for kernel in (q, k))
        by_head = torch.cat((q, k), dim=1).flatten(0, 1)
        self.query_key = _conv(by_head, padding=1)
        self.value = _conv(v, padding=1)
        self.scale = nn.Parameter(attention.scale.detach().clone(), requires_grad=False)
        projection = attention.proj.weight.detach().reshape(channels, HEADS, c).transpose(0, 1)
        self.projection = nn.Parameter(F.pad(projection, (0, c)), requires_grad=False)  # heads × C × 2c
        self.register_buffer("diagonal", torch.eye(2 * c), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        c, height, width = self.per_head, x.shape[2], x.shape[3]
        qk = self.query_key(x).reshape(-1, HEADS, 2 * c, height * width)
        gram = qk @ qk.transpose(-2, -1)
        # 1e-12 is the floor under the norms in F.normalize.
        norms = (gram * self.diagonal).sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
        cosine = gram / (norms * norms.transpose(-2, -1))
        attention = (cosine[..., c:] * self.scale).softmax(dim=-1)
        mixing = (self.projection @ attention).transpose(1, 2).reshape(-1, self.channels, self.channels)
        mixed = mixing @ self.value(x).reshape(-1, self.channels, height * width)
        return torch.reshape(mixed, (-1, self.channels, height, width))


class FusedLayerNorm(nn.Module):
    """LayerNorm over channels as the fused operator on a channels-last view.

    Instead of its eight steps, each a pass over the map.
    """

    def __init__(self, norm: ChannelLayerNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.body.weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(norm.body.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-5).permute(0, 3, 1, 2)


def fold_expansion(mlp: GatedFeedForward) -> None:
    """Make the feed-forward's 1×1 and grouped 3×3 convolution one dense 3×3, in place.

    Reflection commutes with a 1×1 convolution. The dense kernel has more multiplications, 9·2C² instead of
    2C² + 36C a pixel, but grouped convolutions of two channels run at a small share of a CPU's or GPU's speed:
    it pays at 8 channels and no longer at 16.
    """
    pointwise = mlp.project_in.weight.detach().double()[:, :, 0, 0]
    grouped = mlp.dwconv.weight.detach().double()  # 2C × 2 × 3 × 3
    pairs = pointwise.reshape(-1, 2, pointwise.shape[1])  # the two inputs of each group …
    pairs = pairs.repeat_interleave(2, dim=0)  # … for each of its two outputs
    mlp.project_in = nn.Identity()  # type: ignore[assignment]
    mlp.dwconv = _conv(torch.einsum("omhw,omi->oihw", grouped, pairs), padding=1, padding_mode="reflect")


def rewrite_global_feature(feature: GlobalFeature) -> None:
    """Make every rewrite in one global branch, in place."""
    narrow = feature.attn.proj.weight.shape[0] == HEADS
    feature.attn = (single_channel_attention if narrow else GramAttention)(feature.attn)  # type: ignore[assignment]
    feature.norm1 = FusedLayerNorm(feature.norm1)  # type: ignore[assignment]
    feature.norm2 = FusedLayerNorm(feature.norm2)  # type: ignore[assignment]
    if narrow:
        fold_expansion(feature.mlp)


def rewrite(model: nn.Module) -> nn.Module:
    """A copy of a trained network with all exact rewrites made, in evaluation mode; the original stays."""
    result = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(result.modules()):
        if isinstance(module, GlobalFeature):
            rewrite_global_feature(module)
    return result
