"""Exact rewrites of DAE-Fuse, besides those that it shares with U-Fuser (`rewrite`).

Each is an identity of real arithmetic, borders included; in float32 the answers differ by rounding, less than 1e-5
in the tests. docs/daefuse.md has the effect of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.export.layers import (
    bias_of,
    convolution,
    expect,
    expect_type,
    matrix_of,
    parameter,
    pointwise,
    without_bias,
)
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


def affine(norm: ChannelLayerNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a LayerNorm, float64."""
    return norm.body.weight.detach().double(), norm.body.bias.detach().double()


def folded_paths(
    norm: ChannelLayerNorm, inward: nn.Conv2d, depthwise: nn.Conv2d, count: int
) -> Iterator[nn.Sequential]:
    """A norm's affine part, a 1×1 and a depthwise 3×3 convolution as `count` paths of two convolutions.

    The shift becomes the 1×1 convolution's bias. The zeros that pad the 3×3 convolution come after it in
    both, so borders stay. There are paths instead of one map that is split because engines copy maps to split them.
    """
    without_bias(inward, depthwise)
    expect(depthwise.groups == depthwise.out_channels, "a depthwise convolution", depthwise)
    scale, shift = affine(norm)
    kernel = matrix_of(inward)
    parts = zip(
        (kernel * scale).chunk(count),
        (kernel @ shift).chunk(count),
        depthwise.weight.chunk(count),
        strict=True,
    )
    for folded, bias, spatial in parts:
        yield nn.Sequential(pointwise(folded, bias), convolution(spatial, padding=1, groups=len(spatial)))


class DepthwiseGramAttention(GramAttention):
    """`GramAttention` of Restormer's depthwise attention, with the affine part of the norm before it."""

    def __init__(self, norm: ChannelLayerNorm, attention: DepthwiseAttention) -> None:
        nn.Module.__init__(self)  # the base's convolutions are dense
        self.channels = channels = attention.proj.weight.shape[0]
        self.query, self.key, self.value = folded_paths(  # type: ignore[assignment]
            norm, attention.qkv, attention.qkv_dw, 3
        )
        head = torch.arange(attention.heads).repeat_interleave(channels // attention.heads)
        self.scale = parameter(attention.scale.detach().flatten()[head])
        other = head[:, None] != head[None]
        self.mask = parameter(torch.zeros(channels, channels).masked_fill(other, -1e30))
        self.projection = parameter(matrix_of(attention.proj).t())


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

    For one head, with query Q, key K, value V, projection P and the affine parts γ, β of the norm of the queries' map
    and γ', β' of the other map, whose means over cells are m:

    - (Q x)ᵀ (K c) = xᵀ (Qᵀ K c): x is only standardised, s = (x − β)/γ; the cells carry the rest, with βᵀ Qᵀ K c
      as an offset of each cell.
    - The cells' mean of an affine map is the affine map of the cells' mean.
    - P (Σ a V c) = Σ a (P V c), likewise for any 1×1 convolution that follows: `after` is P or that product.

    Several heads would need these products once per head and save nothing, so they keep the query's convolution.
    """

    def __init__(
        self, norm: ChannelLayerNorm, norm_of_cells: ChannelLayerNorm, attention: GridAttention, after: Tensor
    ) -> None:
        super().__init__()
        expect(attention.heads == 1, "an attention to cells with 1 head", f"{attention.heads} heads")
        without_bias(attention.query, attention.key, attention.value)
        scale, shift = affine(norm)
        cell_scale, cell_shift = affine(norm_of_cells)
        size = scale.shape[0]
        product = matrix_of(attention.query).t() @ matrix_of(attention.key) * size**-0.5
        value = after @ matrix_of(attention.value)
        # Rows: the C channels multiplied with s, the offset, the outputs of `after`.
        rows = torch.cat((scale[:, None] * product, shift[None] @ product, value))
        self.size = size
        self.cells = nn.Conv1d(size, rows.shape[0], 1).requires_grad_(False)
        self.cells.weight = parameter((rows * cell_scale)[:, :, None])
        self.cells.bias = parameter(rows @ cell_shift)

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

    Only a bias stands between them, so both are one product; the attentions' answers are added after it.
    """

    def __init__(self, fusion: CrossFusion, entry: nn.Conv2d) -> None:
        super().__init__()
        channels = fusion.join.weight.shape[0]
        kernel = matrix_of(entry) @ matrix_of(fusion.join)
        bias = matrix_of(entry) @ bias_of(fusion.join) + bias_of(entry)
        of_a, of_b = kernel.chunk(2, dim=1)
        self.join = pointwise(kernel, bias)
        self.norm_a, self.norm_b = Standardise(channels), Standardise(channels)
        self.a_to_b = CellAttention(
            fusion.norm_a, fusion.norm_b, fusion.a_to_b, of_a @ matrix_of(fusion.a_to_b.proj)
        )
        self.b_to_a = CellAttention(
            fusion.norm_b, fusion.norm_a, fusion.b_to_a, of_b @ matrix_of(fusion.b_to_a.proj)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        na, nb = self.norm_a(a), self.norm_b(b)
        answers = self.a_to_b(na, nb) + self.b_to_a(nb, na)
        joined: Tensor = self.join(torch.cat((a, b), dim=1))
        fused: Tensor = joined + answers.permute(0, 3, 1, 2)
        return fused


def rewrite_transformer_block(block: TransformerBlock) -> None:
    """Fold both norms' affine parts into the layers after them, in place.

    The key's share of the shift is the same for every key: the softmax cancels it.
    """
    attention = block.attn
    scale, shift = affine(block.norm1)
    for name in ("query", "key", "value"):
        conv = getattr(attention, name)
        kernel = matrix_of(conv)
        folded = type(conv)(kernel.shape[1], kernel.shape[0], 1, bias=name != "key").requires_grad_(False)
        folded.weight = parameter((kernel * scale).reshape(conv.weight.shape))
        if name != "key":
            folded.bias = parameter(kernel @ shift)
        setattr(attention, name, folded)
    scale, shift = affine(block.norm2)
    inward = expect_type(block.mlp[0], nn.Conv2d, "the first layer of a transformer block's feed-forward")
    kernel = matrix_of(inward)
    block.mlp[0] = pointwise(kernel * scale, kernel @ shift + bias_of(inward))
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
    expect(kernel.shape[1:] == (CELL**2, 3, 3), f"a 3x3 convolution of {CELL**2} channels as the entry", conv)
    side = CELL * kernel.shape[2]
    strided = nn.Conv2d(1, kernel.shape[0], side, CELL, CELL).requires_grad_(False)
    strided.weight = parameter(F.pixel_shuffle(kernel, CELL))  # moves channel 2·dy + dx there
    strided.bias = conv.bias
    return strided


def rewrite_daefuse(model: DAEFuse) -> None:
    """Every rewrite of DAE-Fuse, in place. The result only fuses: phase one's reconstruction is removed."""
    for module in list(model.modules()):
        if isinstance(module, RestormerBlock):
            rewrite_restormer_block(module)
        elif isinstance(module, TransformerBlock):
            rewrite_transformer_block(module)
    unshuffle, first, *blocks = model.shallow
    expect_type(unshuffle, nn.PixelUnshuffle, "the shallow encoder's first layer")
    first = expect_type(first, nn.Conv2d, "the shallow encoder's second layer")
    model.shallow = nn.Sequential(strided_entry(first), *blocks)
    entry, *rest = model.decoder
    entry = expect_type(entry, nn.Conv2d, "the decoder's first layer")
    model.fusion = JoinedFusion(model.fusion, entry)  # type: ignore[assignment]
    model.decoder = nn.Sequential(*rest)
