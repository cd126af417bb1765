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

EPSILON = 1e-5  # of the network's LayerNorm


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

    - q and k come from one folded convolution, ordered head by head, in one reshape. Their norms divide the
      small product of that map with its own transpose, which holds q kᵀ; no map is normalised pixel by pixel.
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
        self.query_key = _conv(torch.cat((q, k), dim=1).flatten(0, 1), padding=1)
        self.value = _conv(v, padding=1)
        self.scale = nn.Parameter(attention.scale.detach().clone(), requires_grad=False)
        projection = attention.proj.weight.detach().reshape(channels, HEADS, c).transpose(0, 1)
        self.projection = nn.Parameter(F.pad(projection, (0, c)), requires_grad=False)  # heads × C × 2c

    def forward(self, x: Tensor) -> Tensor:
        c, height, width = self.per_head, x.shape[2], x.shape[3]
        qk = self.query_key(x).reshape(-1, HEADS, 2 * c, height * width)
        # 1e-12 is the floor under the norms in F.normalize.
        norms = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).clamp_min(1e-12)
        cosine = (qk @ qk.transpose(-2, -1)) / (norms * norms.transpose(-2, -1))
        attention = (cosine[..., c:] * self.scale).softmax(dim=-1)
        mixing = (self.projection @ attention).transpose(1, 2).reshape(-1, self.channels, self.channels)
        mixed = mixing @ self.value(x).reshape(-1, self.channels, height * width)
        return torch.reshape(mixed, (-1, self.channels, height, width))


class FusedLayerNorm(nn.Module):
    """LayerNorm over channels as the fused operator on a channels-last view, for 16 channels and more."""

    def __init__(self, norm: ChannelLayerNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.body.weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(norm.body.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, EPSILON).permute(0, 3, 1, 2)


class Standardise(nn.Module):
    """LayerNorm over few channels without its affine part, in the map's own layout.

    For 8 channels the fused operator spends its time on transposing the map there and back, and on starting
    rows. Here the variance is a 1×1 convolution of the squares, with epsilon as its bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.variance = nn.Conv2d(channels, 1, 1).requires_grad_(False)
        self.variance.weight.fill_(1 / channels)
        assert self.variance.bias is not None
        self.variance.bias.fill_(EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
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


def fold_expansion(mlp: GatedFeedForward) -> None:
    """Make the feed-forward's 1×1 and grouped 3×3 convolution one dense 3×3, in place.

    Reflection commutes with a 1×1 convolution. The dense kernel has more multiplications, 9·2C² instead of
    2C² + 36C a pixel, but grouped convolutions of two channels run at a small share of a processor's speed:
    it pays at 8 channels and no longer at 16.
    """
    inward = mlp.project_in
    pointwise = inward.weight.detach().double()[:, :, 0, 0]
    grouped = mlp.dwconv.weight.detach().double()  # 2C × 2 × 3 × 3
    pairs = pointwise.reshape(-1, 2, pointwise.shape[1])  # the two inputs of each group …
    pairs = pairs.repeat_interleave(2, dim=0)  # … for each of its two outputs
    dense = _conv(torch.einsum("omhw,omi->oihw", grouped, pairs), padding=1, padding_mode="reflect")
    if inward.bias is not None:
        shifts = inward.bias.detach().double().reshape(-1, 2).repeat_interleave(2, dim=0)
        shift = torch.einsum("omhw,om->o", grouped, shifts)
        dense.bias = nn.Parameter(shift.float(), requires_grad=False)
    mlp.project_in = nn.Identity()  # type: ignore[assignment]
    mlp.dwconv = dense


def rewrite_global_feature(feature: GlobalFeature) -> None:
    """Make every rewrite in one global branch, in place."""
    if feature.attn.proj.weight.shape[0] == HEADS:  # one channel a head, at full resolution
        feature.attn = single_channel_attention(feature.attn)  # type: ignore[assignment]
        feature.norm1 = standardised_norm(feature.norm1)  # type: ignore[assignment]
        feature.norm2 = fold_affine(feature.norm2, feature.mlp)  # type: ignore[assignment]
        fold_expansion(feature.mlp)
    else:
        feature.attn = GramAttention(feature.attn)  # type: ignore[assignment]
        feature.norm1 = FusedLayerNorm(feature.norm1)  # type: ignore[assignment]
        feature.norm2 = FusedLayerNorm(feature.norm2)  # type: ignore[assignment]


def rewrite(model: nn.Module) -> nn.Module:
    """A copy of a trained network with all exact rewrites made, in evaluation mode; the original stays."""
    result = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(result.modules()):
        if isinstance(module, GlobalFeature):
            rewrite_global_feature(module)
    return result
