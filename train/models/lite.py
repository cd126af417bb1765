"""U-Fuser Lite: a student of U-Fuser that runs at camera rates on two CPU cores.

The deep layers work at a fraction of the resolution. Their output at full resolution is not a picture but maps by which
the two sources are mixed. So detail comes from the sources and stays sharp, even with few channels.

The convolutions have branches while they are trained (after Ding et al., "RepVGG", CVPR 2021, without
normalisation); `ufuser.export.rewrite` folds each into one 3×3 kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .options import Options

# Number of maps at full resolution, by head.
MAPS = {"picture": 1, "mix": 2, "gated": 2, "sum": 2, "affine": 3, "guided": 3, "lifted": 4}
INTERPOLATED = ("guided", "lifted")


class BranchedConv(nn.Module):
    """A 3×3 convolution trained as the sum of a 3×3, a 1×1 and, at equal widths, the identity.

    All branches see the same zero-padded map, so their sum is one zero-padded 3×3 convolution.
    """

    def __init__(self, cin: int, cout: int, branches: bool) -> None:
        super().__init__()
        self.full = nn.Conv2d(cin, cout, 3, padding=1)
        self.point = nn.Conv2d(cin, cout, 1, bias=False) if branches else None
        self.skip = branches and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.full(x)
        if self.point is not None:
            y = y + self.point(x)
        return y + x if self.skip else y


class ChannelStatistic(nn.Module):
    """Adds to each channel a value computed from the means of all channels: information about the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inward, self.outward = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outward(F.relu(self.inward(x.mean(dim=(2, 3), keepdim=True))))


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU()
    )


class FullMaps(nn.Module):
    """The maps for `Mixing`, B×1×H×W each, from features at 1/`patch` of the resolution."""

    def __init__(self, cin: int, head: str, patch: int, branches: bool) -> None:
        super().__init__()
        self.patch, self.smooth = patch, head in INTERPOLATED
        self.conv = BranchedConv(cin, MAPS[head] * (1 if self.smooth else patch * patch), branches)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        x = self.conv(x)
        if self.smooth:
            x = F.interpolate(x, scale_factor=self.patch, mode="bilinear")
        else:
            x = F.pixel_shuffle(x, self.patch)
        return x.chunk(x.shape[1], dim=1)


class Mixing(nn.Module):
    """Mixes the sources by maps at full resolution; each B×1×H×W.

    "mix" is w·ir + (1 − w)·vi + r with w = sigmoid of the first map and r the second; "gated" adds the pixel's own
    ir − vi, times a learnt slope, under the sigmoid: so the brighter source can win pixel by pixel, finer than a coarse
    map allows. "sum" is vi + a·ir + r, which can carry both sources' detail in full; "affine" and "guided" are
    vi + a·ir + b·vi + r, and "lifted" adds d·(ir − vi)₊, which lets the brighter source win pixel by pixel, too.
    """

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head
        self.slope = nn.Parameter(torch.tensor(4.0)) if head == "gated" else None

    def forward(self, ir: Tensor, vi: Tensor, maps: Sequence[Tensor]) -> Tensor:
        if self.head == "picture":
            return maps[0].sigmoid()
        if self.head == "sum":
            return (maps[0] * ir + (vi + maps[1])).clamp(0, 1)
        if self.head in ("affine", "guided"):
            return (maps[0] * ir + maps[1] * vi + (vi + maps[2])).clamp(0, 1)
        if self.head == "lifted":
            lift = F.relu(ir - vi)
            return (maps[0] * ir + maps[1] * vi + maps[3] * lift + (vi + maps[2])).clamp(0, 1)
        apart = ir - vi
        share, residual = maps
        if self.slope is not None:
            share = share + self.slope * apart
        return (share.sigmoid() * apart + (vi + residual)).clamp(0, 1)


class LiteOptions(Options, frozen=True):
    """The size and the head of the network."""

    patch: Literal[2, 4, 8] = 4
    """Pixels per position of the deep map, in each direction."""
    width: Annotated[int, msgspec.Meta(ge=1)] = 24
    """Channels of the deep map."""
    depth: Annotated[int, msgspec.Meta(ge=0)] = 4
    """3×3 convolutions over the deep map."""
    fine: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Channels of a second map at half resolution, to which the deep one is added; 0 has none."""
    head: Literal["picture", "mix", "gated", "sum", "affine", "guided", "lifted"] = "lifted"
    """Meaning of the maps: "picture", the fused image itself; "mix", "gated", "sum" or "affine" (`Mixing`); "guided" or
    "lifted", likewise, with maps interpolated from the finest features' resolution."""
    separable: bool = False
    """Depthwise 3×3 and 1×1 convolutions instead of dense 3×3."""
    statistic: bool = True
    """Whether each channel learns from the whole picture."""
    branches: bool = True
    """Whether convolutions have branches in training."""

    def __post_init__(self) -> None:
        if self.fine and self.patch == 2:
            raise ValueError(
                f"fine is {self.fine}, expected 0 with patch 2, which has half the resolution already"
            )


class Lite(nn.Module):
    """Lite(ir, vi): two B×1×H×W images in [0, 1], H and W multiples of 8 → fused B×1×H×W in [0, 1]."""

    shape_multiple = 8

    def __init__(self, options: LiteOptions | None = None) -> None:
        super().__init__()
        o = options or LiteOptions()
        width, fine, branches = o.width, o.fine, o.branches
        self.patch = o.patch
        finest = 2 if fine else o.patch
        self.embed = nn.Conv2d(2, fine or width, 2 * finest, finest, finest // 2)
        if fine:
            self.fine = BranchedConv(fine, fine, branches)
            self.down = nn.Conv2d(fine, width, o.patch, o.patch // 2, o.patch // 4)
            self.up = nn.Conv2d(width, fine, 1)
            self.join = BranchedConv(fine, fine, branches)
        self.body = nn.ModuleList(
            _separable(width)
            if o.separable
            else nn.Sequential(BranchedConv(width, width, branches), nn.ReLU())
            for _ in range(o.depth)
        )
        self.statistic = ChannelStatistic(width) if o.statistic else None
        self.maps = FullMaps(fine or width, o.head, finest, branches)
        self.mixing = Mixing(o.head)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        return self.mixing(ir, vi, self.maps(self._features(torch.cat((ir, vi), dim=1))))

    def _features(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x))
        if not hasattr(self, "fine"):
            return self._deep(x)
        x = F.relu(self.fine(x))
        deep = self.up(self._deep(F.relu(self.down(x))))
        return F.relu(self.join(x + F.interpolate(deep, scale_factor=self.patch // 2, mode="nearest")))

    def _deep(self, x: Tensor) -> Tensor:
        middle = len(self.body) // 2
        for k, layer in enumerate(self.body):
            x = layer(x)
            if k == middle and self.statistic is not None:
                x = self.statistic(x)
        return x
