"""FNet and IFNet (seed paper "l0-Regularized Sparse Coding-based Interpretable Network for Multi-Modal Image
Fusion", sections III-A to III-C, and its released code).

An image is explained as sparse features under learnt dictionaries. LZSC blocks estimate them by unfolded iterations
(Eq. 20), and a sigmoidal threshold keeps few of them different from zero. FNet estimates what is unique to each
source and what both share, and adds up what each contributes to the fused image; IFNet goes the way back, from
the fused image to both sources, and serves the training alone.

Attribute names are the release's, because they are the keys of its checkpoints. The options are those of the
paper's ablations (section IV-G). `join_convolutions` of a network changes how the answer is computed, not the answer.
"""

# What a module's call returns is Any to PyTorch's types; here it is always a Tensor.
# mypy: no-warn-return-any

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fnet_joined import QUASI, code_jointly, sum_jointly

FILTERS, KERNEL = 64, 9
THRESHOLDINGS = ("sigmoidal", "soft")
MOMENTA = ("nesterov", "none", "polyak", "quasi_hyperbolic")
BLOCKS = ("lzsc", "lcsc")


@dataclass(frozen=True)
class SparseCoding:
    """What the sparse coding blocks of a network are made of; the defaults are the paper's."""

    iterations: int = 4
    """Iteration modules after the first estimate."""
    thresholding: str = "sigmoidal"
    """Of the features: "sigmoidal" is l0, "soft" l1."""
    momentum: str = "nesterov"
    shared: bool = False
    """One set of convolutions for all iterations."""
    alpha: float = 0.1
    gamma: float = 100.0
    block: str = "lzsc"
    """"lcsc": the block of CU-Net instead."""

    def check(self) -> None:
        """Raises ValueError for a word or number that means nothing."""
        for name, choices in (("thresholding", THRESHOLDINGS), ("momentum", MOMENTA), ("block", BLOCKS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"'{name}' must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 1 <= self.iterations <= 64:
            raise ValueError(f"'iterations' must be from 1 to 64, got {self.iterations}")
        if not (0 <= self.alpha <= 1 and 0 < self.gamma < 1e6):
            raise ValueError(
                f"expected an 'alpha' from 0 to 1 and a 'gamma' over 0, got {self.alpha} and {self.gamma}"
            )


def _conv(cin: int, cout: int) -> nn.Conv2d:
    # Padded by name, as in the release: it matters to what profilers see of it.
    return nn.Conv2d(cin, cout, KERNEL, padding="same", bias=False)


class DownUp(nn.Module):
    """U D x: B×64×H×W → the source's channels → B×64×H×W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ch_down, self.ch_up = _conv(FILTERS, channels), _conv(channels, FILTERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.ch_up(self.ch_down(x))


class _First(nn.Module):
    """C_0 e."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = _conv(channels, FILTERS)


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

    # What the iterations are made of, by their number k = 0 … N.

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
        """U'_k D'_k, of the one before, x_{k−2}; None where the iteration has no such pair."""
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

    The paper describes its LCSC in a supplement that isn't at hand; this is the block of CU-Net (Deng and Dragotti,
    "Deep Convolutional Neural Network for Multi-Modal Image Restoration and Fusion", 2021), from whose layout
    FNet's comes: x_k = S(x_{k−1} − U_k D_k x_{k−1} + C e; λ_k), each λ begins with 0.01.
    """

    def __init__(self, channels: int, coding: SparseCoding) -> None:
        nn.Module.__init__(self)
        self.coding = SparseCoding(coding.iterations, "soft", "none", False, block="lcsc")
        self.conv_e = _conv(channels, FILTERS)
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


def _block(channels: int, coding: SparseCoding) -> LZSC:
    block = (LCSC if coding.block == "lcsc" else LZSC)(channels, coding)
    begin_as_solver(block)
    return block


@torch.no_grad()
def begin_as_solver(block: LZSC) -> None:
    """Let a fresh block be the iteration that it unfolds, in place: x + η Dᵀ(e − D x), with one random D throughout.

    Paper and release don't say how they begin. Independent random D and U are no descent on anything: training
    from there broke out at rates over the paper's. η D Dᵀ has the mean 0.8 over frequencies; up to 2 converges.
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


@torch.no_grad()
def _begin_as(conv: nn.Conv2d, block: LZSC, share: float) -> None:
    """A fresh convolution that gives back a share of what `block` has coded (the mean of its channels)."""
    conv.weight.copy_(share * block.first(1).ch_down.weight.mean(dim=0, keepdim=True))


class _Decoder(nn.Module):
    """What unique and common features add to the fused picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.conv_3 = (_conv(FILTERS, 1) for _ in range(3))


class FNet(nn.Module):
    """F(ir, vi): two B×1×H×W images in [0, 1], of any size → B×1×H×W, not bounded.

    The options are those of `SparseCoding`.

    Raises:
        ValueError: an option's value that means nothing.
    """

    def __init__(
        self,
        iterations: int = 4,
        thresholding: str = "sigmoidal",
        momentum: str = "nesterov",
        shared: bool = False,
        alpha: float = 0.1,
        gamma: float = 100.0,
        block: str = "lzsc",
    ) -> None:
        super().__init__()
        coding = SparseCoding(iterations, thresholding, momentum, shared, alpha, gamma, block)
        coding.check()
        self.joined = False
        self.net_u, self.net_v, self.net_z = _block(1, coding), _block(1, coding), _block(2, coding)
        self.conv_u, self.conv_v = _conv(FILTERS, 1), _conv(FILTERS, 1)
        self.decoder = _Decoder()
        # Half of each source is taken as its own. Fused, these halves give the mean of both sources.
        for conv, net in ((self.conv_u, self.net_u), (self.conv_v, self.net_v)):
            _begin_as(conv, net, 0.5)
        for conv, net in zip(
            (self.decoder.conv_1, self.decoder.conv_2, self.decoder.conv_3),
            (self.net_u, self.net_z, self.net_v),
            strict=True,
        ):
            _begin_as(conv, net, 0.0 if net is self.net_z else 0.5)

    def join_convolutions(self) -> None:
        """Compute the same answer several times faster on a CPU, in training, too (`fnet_joined`)."""
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
        self.net_x1, self.net_x2 = _block(1, coding), _block(1, coding)
        self.conv_x1, self.conv_x2 = _conv(FILTERS, 1), _conv(FILTERS, 1)
        _begin_as(self.conv_x1, self.net_x1, 1.0)
        _begin_as(self.conv_x2, self.net_x2, 1.0)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        if self.joined:
            x, y = code_jointly(self.net_x1, fused), code_jointly(self.net_x2, fused)
            return sum_jointly([(self.conv_x1, x)]), sum_jointly([(self.conv_x2, y)])
        return self.conv_x1(self.net_x1(fused)), self.conv_x2(self.net_x2(fused))


class FNetPair(nn.Module):
    """FNet and IFNet together, as stage I trains them: (ir, vi) → fused, infrared and visible again, B×3×H×W.

    The options are FNet's, for both networks; `inverse_thresholding` is IFNet's alone ("same": FNet's; AE12).
    """

    def __init__(
        self,
        iterations: int = 4,
        thresholding: str = "sigmoidal",
        momentum: str = "nesterov",
        shared: bool = False,
        alpha: float = 0.1,
        gamma: float = 100.0,
        block: str = "lzsc",
        inverse_thresholding: str = "same",
    ) -> None:
        super().__init__()
        self.fnet = FNet(iterations, thresholding, momentum, shared, alpha, gamma, block)
        backwards = thresholding if inverse_thresholding == "same" else inverse_thresholding
        coding = SparseCoding(iterations, backwards, momentum, shared, alpha, gamma, block)
        coding.check()
        self.ifnet = IFNet(coding)

    def join_convolutions(self) -> None:
        """As FNet's."""
        self.fnet.joined = self.ifnet.joined = True

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        fused = self.fnet(ir, vi)
        return torch.cat((fused, *self.ifnet(fused)), dim=1)
