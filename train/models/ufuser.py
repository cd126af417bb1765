"""U-Fuser, the fusion network of EMMA (Zhao et al., "Equivariant Multi-Modality
Image Fusion", section 3.3 and its released code).

A U-Net whose units are Restormer-CNN blocks: per scale, both sources are encoded
separately, fused, and decoded with skip connections. Where paper and release differ the
release is followed (channels 8, 16, 32, 32), so that published checkpoints load.
Attribute names are the release's, because they are the keys of its checkpoints.
How many blocks each branch has is an option, for the paper's ablations (its Table 2, Exp. IV and V).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .options import Options

CHANNELS = (8, 16, 32, 32)
HEADS = 8


def _conv3x3(cin: int, cout: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, 1, groups=groups, bias=bias, padding_mode="reflect")


class JoiningConv(nn.Conv2d):
    """A reflect-padded 3×3 convolution over maps side by side; each B×C×H×W with channels of its own."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, padding=1, bias=False, padding_mode="reflect")

    def forward(self, *maps: Tensor) -> Tensor:
        return super().forward(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])


class _Affine(nn.Module):
    """Scale and shift per channel; a module of its own because the release keeps them one level down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of a B×C×H×W map, per pixel (eps 1e-5, biased variance)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _Affine(channels)

    def forward(self, x: Tensor) -> Tensor:
        # Two means: torch.var_mean over a strided axis is ten times slower on a CPU.
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        normalised = centred * torch.rsqrt(variance + 1e-5)
        return normalised * self.body.weight[:, None, None] + self.body.bias[:, None, None]


class ChannelAttention(nn.Module):
    """Transposed self-attention: heads over channels, a c×c attention map per head (c = C / 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv1 = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv2 = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, HEADS, c // HEADS, h * w) for t in self.qkv2(self.qkv1(x)).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).reshape(b, c, h, w))


class GatedFeedForward(nn.Module):
    """GELU-gated feed-forward; its 3×3 convolution mixes two channels a group."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.dwconv = _conv3x3(2 * channels, 2 * channels, groups=channels)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class GlobalFeature(nn.Module):
    """Global branch: pre-norm channel attention and gated feed-forward, both residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.attn = ChannelAttention(channels)
        self.norm2 = ChannelLayerNorm(channels)
        self.mlp = GatedFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ResidualBlock(nn.Module):
    """conv – ReLU – conv plus skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv3x3(channels, channels, bias=True), nn.ReLU(), _conv3x3(channels, channels, bias=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class LocalFeature(nn.Module):
    """Local branch: residual blocks, two in the release."""

    def __init__(self, channels: int, blocks: int = 2) -> None:
        super().__init__()
        self.Extraction = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.Extraction(x)


class RestormerCNNBlock(nn.Module):
    """Restormer-CNN block: maps of together B×in×H×W → B×out×H×W, global and local branch side by side.

    A branch of no blocks is left out, and the convolution that joins both takes the other one alone.
    """

    def __init__(
        self, in_channels: int, out_channels: int, global_blocks: int = 1, local_blocks: int = 2
    ) -> None:
        super().__init__()
        self.embed = JoiningConv(in_channels, out_channels)
        blocks = [GlobalFeature(out_channels) for _ in range(global_blocks)]
        # Not wrapped where it is the only one: the release has no number in its name.
        self.GlobalFeature = blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)
        self.LocalFeature = LocalFeature(out_channels, local_blocks)
        self.has_global, self.has_local = global_blocks > 0, local_blocks > 0
        self.FFN = JoiningConv((self.has_global + self.has_local) * out_channels, out_channels)

    def forward(self, *maps: Tensor) -> Tensor:
        x = self.embed(*maps)
        branches = [self.GlobalFeature] * self.has_global + [self.LocalFeature] * self.has_local
        return self.FFN(*(branch(x) for branch in branches))


def _up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False), nn.ReLU())


_Count = Annotated[int, msgspec.Meta(ge=0)]
_Counts = tuple[_Count, _Count, _Count, _Count]


class UFuserOptions(Options, frozen=True):
    """How many blocks each branch of a unit has, from full resolution down; 0 leaves a branch out."""

    global_blocks: _Counts = (1, 1, 1, 1)
    """Restormer blocks of the global branch."""
    local_blocks: _Counts = (2, 2, 2, 2)
    """Residual blocks of the local branch."""

    def __post_init__(self) -> None:
        if not all(map(sum, zip(self.global_blocks, self.local_blocks, strict=True))):
            raise ValueError(f"a scale has neither branch: {self.global_blocks} and {self.local_blocks}")


class UFuser(nn.Module):
    """U-Fuser F(i, v): two B×1×H×W images in [0, 1], H and W multiples of 8 → B×1×H×W in (0, 1)."""

    shape_multiple = 8

    def __init__(self, options: UFuserOptions | None = None) -> None:
        super().__init__()
        options = options or UFuserOptions()

        def block(in_channels: int, scale: int) -> RestormerCNNBlock:
            counts = options.global_blocks[scale], options.local_blocks[scale]
            return RestormerCNNBlock(in_channels, CHANNELS[scale], *counts)

        c1, c2, c3, c4 = CHANNELS
        self.V_en_1, self.V_en_2, self.V_en_3, self.V_en_4 = (
            block(1, 0),
            block(c1, 1),
            block(c2, 2),
            block(c3, 3),
        )
        self.I_en_1, self.I_en_2, self.I_en_3, self.I_en_4 = (
            block(1, 0),
            block(c1, 1),
            block(c2, 2),
            block(c3, 3),
        )
        self.f_1, self.f_2, self.f_3, self.f_4 = (block(2 * c, k) for k, c in enumerate(CHANNELS))
        self.V_down1, self.V_down2, self.V_down3 = (_conv3x3(c, c, stride=2) for c in CHANNELS[:3])
        self.I_down1, self.I_down2, self.I_down3 = (_conv3x3(c, c, stride=2) for c in CHANNELS[:3])
        self.up4, self.up3, self.up2 = _up(c4, c3), _up(c3, c2), _up(c2, c1)
        self.de_1, self.de_2, self.de_3, self.de_4 = (
            block(2 * c1, 0),
            block(2 * c2, 1),
            block(2 * c3, 2),
            block(c4, 3),
        )
        self.last = nn.Sequential(_conv3x3(c1, 1, bias=True), nn.Sigmoid())

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        i1 = self.I_en_1(ir)
        i2 = self.I_en_2(self.I_down1(i1))
        i3 = self.I_en_3(self.I_down2(i2))
        i4 = self.I_en_4(self.I_down3(i3))

        v1 = self.V_en_1(vi)
        v2 = self.V_en_2(self.V_down1(v1))
        v3 = self.V_en_3(self.V_down2(v2))
        v4 = self.V_en_4(self.V_down3(v3))

        f1 = self.f_1(i1, v1)
        f2 = self.f_2(i2, v2)
        f3 = self.f_3(i3, v3)
        f4 = self.f_4(i4, v4)

        x = self.up4(self.de_4(f4))
        x = self.up3(self.de_3(x, f3))
        x = self.up2(self.de_2(x, f2))
        x = self.de_1(x, f1)
        return self.last(x)
