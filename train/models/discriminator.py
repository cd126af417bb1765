"""A discriminative block of DAE-Fuse: convolutions, LeakyReLU, batch normalisation, and a fully connected layer."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class DiscriminativeBlock(nn.Module):
    """D_M of section II-A: B×1×H×W in [0, 1] → B logits; the paper's D is their sigmoid.

    Four strided layers of Conv2D–LeakyReLU–BatchNorm, each twice as wide as the last up to four times
    `width`, the mean over positions (so that a patch of any size will do) and one fully connected layer.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for cin, cout in pairwise(widths):
            layers += [nn.Conv2d(cin, cout, 3, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(cout)]
        self.features = nn.Sequential(*layers)
        self.verdict = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.verdict(self.features(x).mean(dim=(2, 3))).squeeze(1)
