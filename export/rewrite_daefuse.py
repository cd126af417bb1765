"""Exact rewrites of DAE-Fuse, beside those that it shares with U-Fuser (`rewrite`).

Each is an identity of real arithmetic, borders included; in float32 the answers differ by rounding, which the
tests hold under 1e-5. What each is worth is in docs/daefuse.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.export.rewrite_ufuser import GramAttention, Standardise
from ufuser.train.models.daefuse import (
    CELL,
    GRID,
    CrossFusion,
    DAEFuse,
    DepthwiseAttention,
    DepthwiseFeedForward,
    GridAttention,
    RestormerBlock,
    TransformerBlock,
    cell_means,
)
from ufuser.train.models.ufuser import ChannelLayerNorm


def _matrix(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    """A pointwise convolution's kernel as out×in, float64."""
    return conv.weight.detach().double().flatten(1)


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.float().contiguous(), requires_grad=False)


def _pointwise(kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """The 1×1 convolution of an out×in kernel."""
    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 1, bias=bias is not None)
    conv.weight = _fixed(kernel[:, :, None, None])
    if bias is not None:
        conv.bias = _fixed(bias)
    return conv


def _depthwise(kernel: Tensor) -> nn.Conv2d:
    """The zero-padded depthwise 3×3 convolution of a C×1×3×3 kernel."""
    channels = kernel.shape[0]
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    conv.weight = _fixed(kernel)
    return conv


def affine(norm: ChannelLayerNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a LayerNorm, float64."""
    return norm.body.weight.detach().double(), norm.body.bias.detach().double()


def folded_paths(
    norm: ChannelLayerNorm, pointwise: nn.Conv2d, depthwise: nn.Conv2d, count: int
) -> Iterator[nn.Sequential]:
    """A norm's affine part, a 1×1 and a depthwise 3×3 convolution as `count` paths of two convolutions.

    The shift becomes the 1×1 convolution's bias. The zeros that pad the 3×3 convolution come after it in
    both, so borders stay. Paths instead of one map that is split: engines copy what they split.
    """
    scale, shift = affine(norm)
    kernel = _matrix(pointwise)
    parts = zip(
        (kernel * scale).chunk(count),
        (kernel @ shift).chunk(count),
        depthwise.weight.chunk(count),
        strict=True,
    )
    for folded, bias, spatial in parts:
        yield nn.Sequential(_pointwise(folded, bias), _depthwise(spatial.detach()))


class DepthwiseGramAttention(GramAttention):
    """`GramAttention` of Restormer's depthwise attention, with the affine part of the norm before it."""

    def __init__(self, norm: ChannelLayerNorm, attention: DepthwiseAttention) -> None:
        nn.Module.__init__(self)  # the base's convolutions are dense
        self.channels = channels = attention.proj.weight.shape[0]
        self.query, self.key, self.value = folded_paths(  # type: ignore[assignment]
            norm, attention.qkv, attention.qkv_dw, 3
        )
        head = torch.arange(attention.heads).repeat_interleave(channels // attention.heads)
        self.scale = _fixed(attention.scale.detach().flatten()[head])
        other = head[:, None] != head[None]
        self.mask = _fixed(torch.zeros(channels, channels).masked_fill(other, -1e30))
        self.projection = _fixed(_matrix(attention.proj).t())


class DepthwisePaths(nn.Module):
    """Restormer's gated feed-forward with gate and value as two paths, and the norm's affine part in them."""

    def __init__(self, norm: ChannelLayerNorm, mlp: DepthwiseFeedForward) -> None:
        super().__init__()
        self.gate, self.value = folded_paths(norm, mlp.project_in, mlp.dwconv, 2)
        self.project_out = mlp.project_out

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.project_out(F.gelu(self.gate(x)) * self.value(x))
        return answer


class CellAttention(nn.Module):
    """`GridAttention` after a norm, whose 1×1 convolutions act on the 64 cells instead of on the picture.

    Of one head, with query Q, key K, value V, projection P and the norm's affine parts γ, β (of the map that
    asks) and γ', β' (of the other one, whose means over cells are m):

    - (Q x)ᵀ (K c) = xᵀ (Qᵀ K c): nothing is left to do to x but the standardisation s = (x − β)/γ; the cells
      carry the rest, with βᵀ Qᵀ K c as an offset of each cell.
    - The cells' mean of an affine map is the affine map of the cells' mean.
    - P (Σ a V c) = Σ a (P V c), and so with any 1×1 convolution that follows: `after` is P or that product.

    Several heads would need these products once a head, and save nothing: they keep the query's convolution.
    """

    def __init__(
        self, asking: ChannelLayerNorm, asked: ChannelLayerNorm, attention: GridAttention, after: Tensor
    ) -> None:
        super().__init__()
        assert attention.heads == 1
        scale, shift = affine(asking)
        cell_scale, cell_shift = affine(asked)
        size = scale.shape[0]
        product = _matrix(attention.query).t() @ _matrix(attention.key) * size**-0.5
        value = after @ _matrix(attention.value)
        # Rows: the C channels that meet s, the offset, the outputs of `after`.
        rows = torch.cat((scale[:, None] * product, shift[None] @ product, value))
        self.size = size
        self.cells = nn.Conv1d(size, rows.shape[0], 1).requires_grad_(False)
        self.cells.weight = _fixed((rows * cell_scale)[:, :, None])
        self.cells.bias = _fixed(rows @ cell_shift)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Of standardised maps B×C×h×w: B×h×w×(outputs of `after`)."""
        height, width = x.shape[2:]
        cells = self.cells(cell_means(other, GRID))
        keys, offset, values = cells.split((self.size, 1, cells.shape[1] - self.size - 1), dim=1)
        positions = x.permute(0, 2, 3, 1).reshape(-1, height * width, self.size)
        attention = (positions @ keys + offset).softmax(dim=-1)
        answer: Tensor = attention @ values.transpose(1, 2)
        return answer.reshape(-1, height, width, values.shape[1])


class JoinedFusion(nn.Module):
    """`CrossFusion` and the decoder's first 1×1 convolution: their kernels as one, its part in the values.

    Neither has anything but its bias between it and the next, so join and decoder are one product; what the
    attentions answer is added after it.
    """

    def __init__(self, fusion: CrossFusion, entry: nn.Conv2d) -> None:
        super().__init__()
        channels = fusion.join.weight.shape[0]
        assert fusion.join.bias is not None
        assert entry.bias is not None
        kernel = _matrix(entry) @ _matrix(fusion.join)
        bias = _matrix(entry) @ fusion.join.bias.detach().double() + entry.bias.detach().double()
        of_a, of_b = kernel.chunk(2, dim=1)
        self.join = _pointwise(kernel, bias)
        self.norm_a, self.norm_b = Standardise(channels), Standardise(channels)
        self.a_to_b = CellAttention(
            fusion.norm_a, fusion.norm_b, fusion.a_to_b, of_a @ _matrix(fusion.a_to_b.proj)
        )
        self.b_to_a = CellAttention(
            fusion.norm_b, fusion.norm_a, fusion.b_to_a, of_b @ _matrix(fusion.b_to_a.proj)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        na, nb = self.norm_a(a), self.norm_b(b)
        answers = self.a_to_b(na, nb) + self.b_to_a(nb, na)
        joined: Tensor = self.join(torch.cat((a, b), dim=1))
        fused: Tensor = joined + answers.permute(0, 3, 1, 2)
        return fused


def rewrite_transformer_block(block: TransformerBlock) -> None:
    """Fold both norms' affine parts into what follows them, in place.

    The key's share of the shift is the same for every key, and the softmax doesn't see it.
    """
    attention = block.attn
    scale, shift = affine(block.norm1)
    for name in ("query", "key", "value"):
        conv = getattr(attention, name)
        kernel = _matrix(conv)
        folded = type(conv)(kernel.shape[1], kernel.shape[0], 1, bias=name != "key").requires_grad_(False)
        folded.weight = _fixed((kernel * scale).reshape(conv.weight.shape))
        if name != "key":
            folded.bias = _fixed(kernel @ shift)
        setattr(attention, name, folded)
    scale, shift = affine(block.norm2)
    inward = block.mlp[0]
    assert isinstance(inward, nn.Conv2d)
    assert inward.bias is not None
    kernel = _matrix(inward)
    block.mlp[0] = _pointwise(kernel * scale, kernel @ shift + inward.bias.detach().double())
    size = scale.shape[0]
    block.norm1 = Standardise(size)  # type: ignore[assignment]
    block.norm2 = Standardise(size)  # type: ignore[assignment]


def rewrite_restormer_block(block: RestormerBlock) -> None:
    """Every rewrite of a Restormer block, in place."""
    channels = block.attn.proj.weight.shape[0]
    block.attn = DepthwiseGramAttention(block.norm1, block.attn)  # type: ignore[assignment]
    block.mlp = DepthwisePaths(block.norm2, block.mlp)  # type: ignore[assignment]
    block.norm1 = Standardise(channels)  # type: ignore[assignment]
    block.norm2 = Standardise(channels)  # type: ignore[assignment]


def strided_entry(conv: nn.Conv2d) -> nn.Conv2d:
    """`PixelUnshuffle` and the 3×3 convolution after it as one 6×6 convolution of stride 2.

    Channel 2·dy + dx of a cell is its pixel (dy, dx): W[o, 0, 2·ky + dy, 2·kx + dx] = w[o, 2·dy + dx, ky, kx].
    A border of one zero cell is one of two zero pixels.
    """
    kernel = conv.weight.detach()
    side = CELL * kernel.shape[2]
    strided = nn.Conv2d(1, kernel.shape[0], side, CELL, CELL).requires_grad_(False)
    strided.weight = _fixed(F.pixel_shuffle(kernel, CELL))  # puts channel 2·dy + dx exactly there
    strided.bias = conv.bias
    return strided


def rewrite_daefuse(model: DAEFuse) -> None:
    """Every rewrite of DAE-Fuse, in place. What is left only fuses: phase one's reconstruction is gone."""
    for module in list(model.modules()):
        if isinstance(module, RestormerBlock):
            rewrite_restormer_block(module)
        elif isinstance(module, TransformerBlock):
            rewrite_transformer_block(module)
    _, first, *blocks = model.shallow
    assert isinstance(first, nn.Conv2d)
    model.shallow = nn.Sequential(strided_entry(first), *blocks)
    entry, *rest = model.decoder
    assert isinstance(entry, nn.Conv2d)
    model.fusion = JoinedFusion(model.fusion, entry)  # type: ignore[assignment]
    model.decoder = nn.Sequential(*rest)
