"""The pseudo-sensing modules A_i and A_v of EMMA (Zhao et al., "Equivariant Multi-Modality Image
Fusion", section 3.3.3 and its released code): they predict a camera's image from a fused one.

A U-Net with four 2× max-pools. Its width is a parameter: the release's is 64 (39.4 M parameters,
13.6 GMACs at 128×128); a CPU can train width 16, a sixteenth of that cost.
Attribute names are the release's, because they are the keys of its checkpoints.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn

from .options import Options


class ConvBlock(nn.Module):
    """Twice 3×3 convolution – BatchNorm – ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False), nn.ReLU())


class PseudoSensingOptions(Options, frozen=True):
    """The size of the network."""

    width: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Channels at full resolution; they double with each of the four halvings."""


class PseudoSensing(nn.Module):
    """A(f): B×1×H×W in [0, 1], H and W multiples of 16 → B×1×H×W in (0, 1)."""

    shape_multiple = 16

    def __init__(self, options: PseudoSensingOptions | None = None) -> None:
        super().__init__()
        width = (options or PseudoSensingOptions()).width
        w1, w2, w3, w4, w5 = (width << k for k in range(5))
        self.down_sample = nn.MaxPool2d(2)
        self.down1, self.down2, self.down3 = ConvBlock(1, w1), ConvBlock(w1, w2), ConvBlock(w2, w3)
        self.down4, self.down5 = ConvBlock(w3, w4), ConvBlock(w4, w5)
        self.up_sample5, self.up4 = _up(w5, w4), ConvBlock(2 * w4, w4)
        self.up_sample4, self.up3 = _up(w4, w3), ConvBlock(2 * w3, w3)
        self.up_sample3, self.up2 = _up(w3, w2), ConvBlock(2 * w2, w2)
        self.up_sample2, self.up1 = _up(w2, w1), ConvBlock(2 * w1, w1)
        self.last = nn.Sequential(nn.Conv2d(w1, 1, 3, padding=1), nn.Sigmoid())

    def forward(self, fused: Tensor) -> Tensor:
        d1 = self.down1(fused)
        d2 = self.down2(self.down_sample(d1))
        d3 = self.down3(self.down_sample(d2))
        d4 = self.down4(self.down_sample(d3))
        x = self.down5(self.down_sample(d4))
        x = self.up4(torch.cat((self.up_sample5(x), d4), dim=1))
        x = self.up3(torch.cat((self.up_sample4(x), d3), dim=1))
        x = self.up2(torch.cat((self.up_sample3(x), d2), dim=1))
        x = self.up1(torch.cat((self.up_sample2(x), d1), dim=1))
        return self.last(x)
