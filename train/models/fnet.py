"""FNet and IFNet (seed paper "l0-Regularized Sparse Coding-based Interpretable Network for Multi-Modal Image
Fusion", sections III-A to III-C, and its released code).

FNet estimates the sparse features (`sparse_coding`) that are unique to each source and those common to both, and adds
up their contributions to the fused image. IFNet is the inverse, from the fused image to both sources; only training
uses it.

Attribute names are the release's, because they are the keys of its checkpoints. `join_convolutions` of a network makes
it faster and does not change its output.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from .fnet_joined import code_jointly, sum_jointly
from .sparse_coding import FILTERS, LZSC, SparseCoding, coding_block, same_conv


@torch.no_grad()
def _init_decoder(conv: nn.Conv2d, block: LZSC, weight: float) -> None:
    """Initialise a convolution to decode the features of `block` (the mean of its channels), times a weight."""
    conv.weight.copy_(weight * block.first(1).ch_down.weight.mean(dim=0, keepdim=True))


class _Decoder(nn.Module):
    """The contributions of unique and common features to the fused picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.conv_3 = (same_conv(FILTERS, 1) for _ in range(3))


class FNet(nn.Module):
    """F(ir, vi): two B×1×H×W images in [0, 1], of any size → B×1×H×W, not bounded.

    Args:
        coding: options of its sparse coding blocks; None takes the paper's.
    """

    def __init__(self, coding: SparseCoding | None = None) -> None:
        super().__init__()
        coding = coding or SparseCoding()
        self.joined = False
        self.net_u, self.net_v, self.net_z = (
            coding_block(1, coding),
            coding_block(1, coding),
            coding_block(2, coding),
        )
        self.conv_u, self.conv_v = same_conv(FILTERS, 1), same_conv(FILTERS, 1)
        self.decoder = _Decoder()
        # Half of each source counts as unique. The fused halves give the mean of both sources.
        for conv, block, weight in (
            (self.conv_u, self.net_u, 0.5),
            (self.conv_v, self.net_v, 0.5),
            (self.decoder.conv_1, self.net_u, 0.5),
            (self.decoder.conv_2, self.net_z, 0.0),
            (self.decoder.conv_3, self.net_v, 0.5),
        ):
            _init_decoder(conv, block, weight)

    def join_convolutions(self) -> None:
        """Compute the same output several times faster on a CPU, also in training (`fnet_joined`)."""
        self.joined = True

    def features(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unique features of infrared, common features, unique features of visible, each B×64×H×W."""
        if self.joined:
            u, v = code_jointly(self.net_u, ir), code_jointly(self.net_v, vi)
            e = torch.cat((ir - sum_jointly([(self.conv_u, u)]), vi - sum_jointly([(self.conv_v, v)])), dim=1)
            return u, code_jointly(self.net_z, e), v
        u, v = self.net_u(ir), self.net_v(vi)
        e = torch.cat((ir - self.conv_u(u), vi - self.conv_v(v)), dim=1)
        return u, self.net_z(e), v

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        d = self.decoder
        u, z, v = self.features(ir, vi)
        if self.joined:
            return sum_jointly([(d.conv_1, u), (d.conv_2, z), (d.conv_3, v)])
        return d.conv_1(u) + d.conv_2(z) + d.conv_3(v)


class IFNet(nn.Module):
    """The inverse fusion network: a fused image B×1×H×W → both sources, each B×1×H×W (Eq. 24).

    Each source has its own last convolution, as the paper says; the release applies the first one to both.
    """

    def __init__(self, coding: SparseCoding) -> None:
        super().__init__()
        self.joined = False
        self.net_x1, self.net_x2 = coding_block(1, coding), coding_block(1, coding)
        self.conv_x1, self.conv_x2 = same_conv(FILTERS, 1), same_conv(FILTERS, 1)
        _init_decoder(self.conv_x1, self.net_x1, 1.0)
        _init_decoder(self.conv_x2, self.net_x2, 1.0)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        if self.joined:
            x, y = code_jointly(self.net_x1, fused), code_jointly(self.net_x2, fused)
            return sum_jointly([(self.conv_x1, x)]), sum_jointly([(self.conv_x2, y)])
        return self.conv_x1(self.net_x1(fused)), self.conv_x2(self.net_x2(fused))


class PairOptions(SparseCoding, frozen=True):
    """Options of FNet, for both networks, and one for IFNet alone."""

    inverse_thresholding: Literal["same", "sigmoidal", "soft"] = "same"
    """IFNet's thresholding; "same" is FNet's (AE12 of the ablations)."""


class FNetPair(nn.Module):
    """FNet and IFNet together, as stage I trains them: (ir, vi) → fused, and both recovered, B×3×H×W."""

    def __init__(self, options: PairOptions | None = None) -> None:
        super().__init__()
        options = options or PairOptions()
        self.fnet = FNet(options)
        if options.inverse_thresholding == "same":
            coding: SparseCoding = options
        else:
            coding = msgspec.structs.replace(options, thresholding=options.inverse_thresholding)
        self.ifnet = IFNet(coding)

    def join_convolutions(self) -> None:
        """As FNet's."""
        self.fnet.joined = self.ifnet.joined = True

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        fused = self.fnet(ir, vi)
        return torch.cat((fused, *self.ifnet(fused)), dim=1)
