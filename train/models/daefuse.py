"""DAE-Fuse (Guo et al., "DAE-Fuse: An Adaptive Discriminative Autoencoder for Multi-Modality Image Fusion").

A shallow encoder of channel-transformer (Restormer) blocks, behind it a deep high-frequency encoder (a residual
CNN) and a deep low-frequency encoder (a vision transformer) side by side, cross-attention between the two
modalities both ways, and a decoder built like the shallow encoder. One encoder serves both modalities, as
Eq. (1) writes it. There is no public code: where the paper gives no detail, the smallest network that matches its text
was chosen, and docs/daefuse.md lists each choice.

Two of the choices keep the cost proportional to H·W:

- All features are at half resolution. The four pixels of a 2×2 cell become four channels, so nothing is lost
  (`pixel_unshuffle`); at the end they become pixels again.
- Spatial attention (`GridAttention`) has a query at every position, but keys and values are the mean features of
  8×8 cells: a picture of any size has 64 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .options import Options
from .ufuser import ChannelLayerNorm

CELL = 2  # pixels a side that become channels
PATCH = 4  # of the ViT, in positions of the half-resolution map: 8 pixels
GRID = 8  # cells a side that keys and values are means over


class DepthwiseAttention(nn.Module):
    """Restormer's transposed attention: heads over channels, a c×c map per head, 3×3 convolutions depthwise."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dw = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        parts = self.qkv_dw(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (t.reshape(b, self.heads, c // self.heads, h * w) for t in parts)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).reshape(b, c, h, w))


class DepthwiseFeedForward(nn.Module):
    """Restormer's gated feed-forward, expansion 2, its 3×3 convolution depthwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class RestormerBlock(nn.Module):
    """Pre-norm channel attention and gated feed-forward, both residual; B×C×h×w → the same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.attn = DepthwiseAttention(channels, heads)
        self.norm2 = ChannelLayerNorm(channels)
        self.mlp = DepthwiseFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class BasicBlock(nn.Module):
    """ResNet's block of two 3×3 convolutions, without its batch normalisations: B×C×h×w → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class HighFrequencyEncoder(nn.Module):
    """DHE: ResNet's four stages at 1/2, 1/4, 1/8 and 1/8 of the picture's size, B×C×h×w → the same.

    The maps return to full size from the deepest up: enlarged twice by repetition and added to the map of the stage
    before, through a 1×1 convolution. The fourth stage keeps the size of the third, so that multiples of 8 pixels
    suffice.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()

        def stage() -> nn.Sequential:
            return nn.Sequential(*(BasicBlock(channels) for _ in range(blocks)))

        self.stage1, self.stage2, self.stage3, self.stage4 = (stage() for _ in range(4))
        self.down2, self.down3 = (nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(2))
        self.lateral3, self.lateral2, self.lateral1 = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        half = self.stage1(x)
        quarter = self.stage2(self.down2(half))
        eighth = self.stage3(self.down3(quarter))
        deep = self.stage4(eighth)
        deep = deep + self.lateral3(eighth)
        deep = F.interpolate(deep, scale_factor=2.0, mode="nearest") + self.lateral2(quarter)
        return F.interpolate(deep, scale_factor=2.0, mode="nearest") + self.lateral1(half)


def cell_weights(size: int, grid: int, like: Tensor) -> Tensor:
    """Weights of `size` positions in the means of `grid` equal cells: size×grid. Each column sums to 1.

    A position that a cell's border cuts counts by the part inside. So any size has `grid` cells, even one of fewer
    positions.
    """
    position = torch.arange(size, device=like.device, dtype=torch.float32)[:, None]
    cell = torch.arange(grid, device=like.device, dtype=torch.float32)[None]
    width = size / grid
    overlap = torch.minimum(position + 1, (cell + 1) * width) - torch.maximum(position, cell * width)
    return (overlap.clamp_min(0) / width).to(like.dtype)


def cell_means(x: Tensor, grid: int) -> Tensor:
    """Means over grid×grid equal cells of B×C×h×w, as B×C×grid²."""
    rows, columns = (cell_weights(size, grid, x) for size in x.shape[2:])
    return (rows.t() @ (x @ columns)).flatten(2)


class GridAttention(nn.Module):
    """Attention of every position of one map to the cell means of a map: B×C×h×w, B×C×h'×w' → B×C×h×w.

    The same map twice makes it self-attention, the other modality's makes it cross-attention.
    Its cost is h·w·64 instead of (h·w)². No positions are encoded: the meaning of a part of the picture does not
    depend on its position.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv1d(channels, channels, 1, bias=False)
        self.value = nn.Conv1d(channels, channels, 1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        b, c, h, w = x.shape
        size = c // self.heads
        cells = cell_means(other, GRID)
        q = self.query(x).reshape(b, self.heads, size, h * w)
        k, v = (part(cells).reshape(b, self.heads, size, GRID * GRID) for part in (self.key, self.value))
        attention = (q.transpose(2, 3) @ k * size**-0.5).softmax(dim=-1)
        return self.proj((v @ attention.transpose(2, 3)).reshape(b, c, h, w))


class TransformerBlock(nn.Module):
    """ViT's block on a map of patches: attention and a GELU perceptron, both pre-norm and residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.attn = GridAttention(channels, heads)
        self.norm2 = ChannelLayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        normalised = self.norm1(x)
        x = x + self.attn(normalised, normalised)
        return x + self.mlp(self.norm2(x))


class LowFrequencyEncoder(nn.Module):
    """DLE: a vision transformer over patches of 8×8 pixels, B×C×h×w → the same.

    Bilinear interpolation spreads a patch's features over its 4×4 positions, so that its edges do not show.
    """

    def __init__(self, channels: int, dim: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, dim, PATCH, PATCH)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(blocks)))
        self.head = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.head(self.blocks(self.embed(x)))
        return F.interpolate(patches, scale_factor=float(PATCH), mode="bilinear", align_corners=False)


class CrossFusion(nn.Module):
    """Cross-attention both ways and the convolution that joins its outputs: two B×C×h×w → B×C×h×w.

    Queries come from one modality's embedding, keys and values from the other's; the output is added to the first.
    Initially the block is the mean of both embeddings, which the decoder of the first phase can decode.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_a, self.norm_b = ChannelLayerNorm(channels), ChannelLayerNorm(channels)
        self.a_to_b, self.b_to_a = GridAttention(channels, 1), GridAttention(channels, 1)
        self.join = nn.Conv2d(2 * channels, channels, 1)
        with torch.no_grad():
            for attention in (self.a_to_b, self.b_to_a):
                attention.proj.weight.zero_()
            identity = torch.eye(channels)[:, :, None, None] / 2
            self.join.weight.copy_(torch.cat((identity, identity), dim=1))
            if self.join.bias is not None:
                self.join.bias.zero_()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        na, nb = self.norm_a(a), self.norm_b(b)
        return self.join(torch.cat((a + self.a_to_b(na, nb), b + self.b_to_a(nb, na)), dim=1))


@dataclass(frozen=True)
class Reconstruction:
    """The output of phase one's autoencoder for one picture."""

    picture: Tensor  # B×1×H×W
    high: Tensor  # φ_DH of it, B×width×H/2×W/2
    low: Tensor  # φ_DL of it, B×width×H/2×W/2


_Positive = Annotated[int, msgspec.Meta(ge=1)]


class DAEFuseOptions(Options, frozen=True):
    """The size of the network."""

    width: _Positive = 32
    """Channels of the shallow encoder and of each deep encoder, a multiple of `heads`."""
    heads: _Positive = 4
    shallow_blocks: _Positive = 1
    """Restormer blocks of the shallow encoder and of the decoder."""
    residual_blocks: _Positive = 1
    """Blocks of each of the four stages of the high-frequency encoder (ResNet18 has 2)."""
    vit_dim: _Positive = 64
    """Channels of the low-frequency encoder, a multiple of `vit_heads`."""
    vit_blocks: _Positive = 2
    """Transformer blocks of the low-frequency encoder."""
    vit_heads: _Positive = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or self.vit_dim % self.vit_heads:
            raise ValueError(
                f"{self.heads} heads must divide {self.width}, and {self.vit_heads} divide {self.vit_dim}"
            )


class DAEFuse(nn.Module):
    """DAE-Fuse F(i, v): two B×1×H×W images in [0, 1], H and W multiples of 8 → B×1×H×W in (0, 1)."""

    shape_multiple = CELL * PATCH

    def __init__(self, options: DAEFuseOptions | None = None) -> None:
        super().__init__()
        o = options or DAEFuseOptions()
        width = o.width

        def restormer() -> list[nn.Module]:
            return [RestormerBlock(width, o.heads) for _ in range(o.shallow_blocks)]

        self.shallow = nn.Sequential(
            nn.PixelUnshuffle(CELL), nn.Conv2d(CELL**2, width, 3, padding=1), *restormer()
        )
        self.high = HighFrequencyEncoder(width, o.residual_blocks)
        self.low = LowFrequencyEncoder(width, o.vit_dim, o.vit_blocks, o.vit_heads)
        self.fusion = CrossFusion(2 * width)
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            *restormer(),
            nn.Conv2d(width, CELL**2, 3, padding=1),
            nn.PixelShuffle(CELL),
            nn.Sigmoid(),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """φ_DH(φ_S(x)) and φ_DL(φ_S(x)), whose concatenation is Φ(x) of Eq. (1)."""
        shallow = self.shallow(x)
        return self.high(shallow), self.low(shallow)

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """The autoencoder of phase one, Eqs. (1) and (2)."""
        high, low = self.encode(x)
        return Reconstruction(self.decoder(torch.cat((high, low), dim=1)), high, low)

    def forward(self, ir: Tensor, vi: Tensor | None = None) -> Tensor:
        """The fused picture of two, the reconstruction of one."""
        if vi is None:
            return self.reconstruct(ir).picture
        a, b = (torch.cat(self.encode(x), dim=1) for x in (ir, vi))
        return self.decoder(self.fusion(a, b))
