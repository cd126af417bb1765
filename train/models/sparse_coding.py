"""The sparse coding blocks of FNet (sections III-A and III-B of its paper, and its released code).

A block estimates sparse features of an image under learnt dictionaries by unfolded iterations (Eq. 20). A sigmoidal
threshold keeps few of them different from zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .options import Options

FILTERS, KERNEL = 64, 9
QUASI = 0.7
"""ν of quasi-hyperbolic momentum: the weight of the averaged gradient (Ma and Yarats, ICLR 2019)."""


class SparseCoding(Options, frozen=True):
    """Options of the sparse coding blocks, those of the ablations in section IV-G. The defaults are the paper's."""

    iterations: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Iteration modules after the first estimate."""
    thresholding: Literal["sigmoidal", "soft"] = "sigmoidal"
    """Of the features: "sigmoidal" is l0, "soft" l1."""
    momentum: Literal["nesterov", "none", "polyak", "quasi_hyperbolic"] = "nesterov"
    shared: bool = False
    """One set of convolutions for all iterations."""
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    gamma: Annotated[float, msgspec.Meta(gt=0, lt=1e6)] = 100.0
    block: Literal["lzsc", "lcsc"] = "lzsc"
    """"lcsc": the block of CU-Net instead."""


def same_conv(cin: int, cout: int) -> nn.Conv2d:
    """A 9×9 convolution that keeps the size."""
    # Padded by name, as in the release: profilers count it differently.
    return nn.Conv2d(cin, cout, KERNEL, padding="same", bias=False)


class DownUp(nn.Module):
    """U D x: B×64×H×W → the source's channels → B×64×H×W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ch_down, self.ch_up = same_conv(FILTERS, channels), same_conv(channels, FILTERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.ch_up(self.ch_down(x))


class _First(nn.Module):
    """C_0 e."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = same_conv(channels, FILTERS)


class _Second(_First):
    """The first iteration: nothing lies before the first estimate."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.basic_layer = DownUp(channels)


class _Iteration(_First):
    """One iteration module with its own convolutions for the estimate (D, U) and the one before (D', U')."""

    def __init__(self, channels: int, nesterov: bool) -> None:
        super().__init__(channels)
        self.basic_layer1 = DownUp(channels)
        if nesterov:
            self.basic_layer2 = DownUp(channels)


def sigmoidal_threshold(x: Tensor, theta: Tensor, alpha: float = 0.1, gamma: float = 100.0) -> Tensor:
    """h(x; θ) = sign(x)·(|x| − α·θ) / (1 + exp(−γ(|x| − θ))): zero below θ, nearly x above."""
    magnitude = x.abs()
    return torch.sign(x) * (magnitude - alpha * theta) / (1 + torch.exp(-gamma * (magnitude - theta)))


def soft_threshold(x: Tensor, theta: Tensor) -> Tensor:
    """sign(x)·max(|x| − θ, 0): the step towards an l1-regularised answer."""
    return torch.sign(x) * F.relu(x.abs() - theta)


class LZSC(nn.Module):
    """Learnable l0 sparse coding of a source e, B×c×H×W → features x_N, B×64×H×W."""

    def __init__(self, channels: int, coding: SparseCoding) -> None:
        super().__init__()
        self.coding = coding
        self.w_theta, self.b_theta = nn.Parameter(torch.tensor([-0.5])), nn.Parameter(torch.tensor([-2.0]))
        self.w_ro, self.b_ro = nn.Parameter(torch.tensor([0.5])), nn.Parameter(torch.tensor([0.0]))
        nesterov = coding.momentum == "nesterov"
        if not coding.shared:
            self.x0_block, self.x1_block = _First(channels), _Second(channels)
        own = 1 if coding.shared else coding.iterations - 1
        self.IM = nn.ModuleList(_Iteration(channels, nesterov) for _ in range(own))

    # The parts of iteration k = 0 … N.

    def conv_in(self, k: int) -> nn.Conv2d:
        """C_k."""
        if self.coding.shared:
            return self.IM[0].conv_in  # type: ignore[return-value]
        return (self.x0_block, self.x1_block, *self.IM)[k].conv_in

    def first(self, k: int) -> DownUp:
        """U_k D_k, of the estimate x_{k−1}; k from 1."""
        if self.coding.shared:
            return self.IM[0].basic_layer1  # type: ignore[return-value]
        return self.x1_block.basic_layer if k == 1 else self.IM[k - 2].basic_layer1  # type: ignore[return-value]

    def second(self, k: int) -> DownUp | None:
        """U'_k D'_k, of the estimate before, x_{k−2}; None where the iteration has no such pair."""
        if self.coding.momentum != "nesterov" or not 2 <= k <= self.coding.iterations:
            return None
        return self.IM[0 if self.coding.shared else k - 2].basic_layer2  # type: ignore[return-value]

    def theta(self, k: int) -> Tensor:
        """θ_k = softplus(w_θ k + b_θ), over 0 and falling with k where w_θ is negative (Eq. 21)."""
        return F.softplus(self.w_theta * k + self.b_theta)

    def rho(self, k: int) -> Tensor:
        """ρ_k in [0, 1), growing with k where w_ρ is positive (Eq. 21)."""
        now = F.softplus(self.w_ro * k + self.b_ro)
        return (now - F.softplus(self.b_ro)) / now

    def threshold(self, x: Tensor, k: int) -> Tensor:
        """h(x; θ_k)."""
        if self.coding.thresholding == "soft":
            return soft_threshold(x, self.theta(k))
        return sigmoidal_threshold(x, self.theta(k), self.coding.alpha, self.coding.gamma)

    def forward(self, e: Tensor) -> Tensor:
        """Eq. 20."""
        before: Tensor | None = None
        gradient: Tensor | None = None  # averaged; quasi-hyperbolic momentum only
        x = self.threshold(self.conv_in(0)(e), 0)
        for k in range(1, self.coding.iterations + 1):
            rho, second = self.rho(k), self.second(k)
            if self.coding.momentum == "nesterov":
                step = (1 + rho) * (x - self.first(k)(x)) + self.conv_in(k)(e)
                if before is not None and second is not None:
                    step = step - rho * (before - second(before))
            elif self.coding.momentum == "quasi_hyperbolic":
                now = self.first(k)(x) - self.conv_in(k)(e)
                gradient = (1 - rho) * now if gradient is None else rho * gradient + (1 - rho) * now
                step = x - (1 - QUASI) * now - QUASI * gradient
            else:
                step = x - self.first(k)(x) + self.conv_in(k)(e)
                if self.coding.momentum == "polyak" and before is not None:
                    step = step + rho * (x - before)
            before, x = x, self.threshold(step, k)
        return x


class LCSC(LZSC):
    """The l1 block that AE1 puts in place of LZSC: one C for all iterations, soft thresholds learnt freely.

    The paper describes its LCSC in a supplement that is not available; this is the block of CU-Net (Deng and Dragotti,
    "Deep Convolutional Neural Network for Multi-Modal Image Restoration and Fusion", 2021), from which FNet's
    layout comes: x_k = S(x_{k−1} − U_k D_k x_{k−1} + C e; λ_k), each λ is initially 0.01.
    """

    def __init__(self, channels: int, coding: SparseCoding) -> None:
        nn.Module.__init__(self)
        self.coding = SparseCoding(coding.iterations, "soft", "none", block="lcsc")
        self.conv_e = same_conv(channels, FILTERS)
        self.layers = nn.ModuleList(DownUp(channels) for _ in range(coding.iterations))
        self.thresholds = nn.Parameter(torch.full((coding.iterations + 1,), 0.01))

    def conv_in(self, k: int) -> nn.Conv2d:
        return self.conv_e

    def first(self, k: int) -> DownUp:
        return self.layers[k - 1]  # type: ignore[return-value]

    def second(self, k: int) -> None:
        return None

    def theta(self, k: int) -> Tensor:
        return self.thresholds[k : k + 1]

    def rho(self, k: int) -> Tensor:
        return torch.zeros_like(self.thresholds[:1])


def coding_block(channels: int, coding: SparseCoding) -> LZSC:
    """A fresh block of the kind that the options name."""
    block = (LCSC if coding.block == "lcsc" else LZSC)(channels, coding)
    init_as_solver(block)
    return block


@torch.no_grad()
def init_as_solver(block: LZSC) -> None:
    """Initialise a block, in place, as the iteration that it unfolds: x + η Dᵀ(e − D x), with one random D throughout.

    Paper and release do not give their initialisation. Independent random D and U are no descent step: training
    diverged from there at rates above the paper's. η D Dᵀ has the mean 0.8 over frequencies; up to 2 converges.
    """
    dictionary = 0.6 * block.first(1).ch_down.weight
    rate = 0.8 * len(dictionary) / dictionary.square().sum()
    adjoint = rate * dictionary.transpose(0, 1).flip(2, 3)
    for k in range(block.coding.iterations + 1):
        block.conv_in(k).weight.copy_(adjoint)
        for pair in (block.first(k), block.second(k)) if k else ():
            if pair is not None:
                pair.ch_down.weight.copy_(dictionary)
                pair.ch_up.weight.copy_(adjoint)
