"""FNet as released (seed paper "l0-Regularized Sparse Coding-based Interpretable Network for Multi-Modal Image
Fusion", section III): what the audit counts. Attribute names are the keys of the release's checkpoint.
"""

# What a module's call returns is Any to PyTorch's types; here it is always a Tensor.
# mypy: no-warn-return-any

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILTERS, KERNEL, ITERATIONS = 64, 9, 4
ALPHA, GAMMA = 0.1, 100.0


def _conv(cin: int, cout: int) -> nn.Conv2d:
    # Padded by name, as in the release: it matters to what profilers see of it.
    return nn.Conv2d(cin, cout, KERNEL, padding="same", bias=False)


class _Down(nn.Module):
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
    """The first iteration, which has no momentum yet."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.basic_layer = _Down(channels)


class _Iteration(_First):
    """One iteration module with momentum."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.basic_layer1, self.basic_layer2 = _Down(channels), _Down(channels)


def threshold(x: Tensor, theta: Tensor) -> Tensor:
    """h(x; θ) = sign(x)·(|x| − α·θ) / (1 + exp(−γ(|x| − θ))): zero below θ, nearly x above."""
    magnitude = x.abs()
    return torch.sign(x) * (magnitude - ALPHA * theta) / (1 + torch.exp(-GAMMA * (magnitude - theta)))


class LZSC(nn.Module):
    """Learnable l0 sparse coding of a source e, B×c×H×W → B×64×H×W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w_theta, self.b_theta = nn.Parameter(torch.tensor([-0.5])), nn.Parameter(torch.tensor([-2.0]))
        self.w_ro, self.b_ro = nn.Parameter(torch.tensor([0.5])), nn.Parameter(torch.tensor([0.0]))
        self.x0_block, self.x1_block = _First(channels), _Second(channels)
        self.IM = nn.ModuleList(_Iteration(channels) for _ in range(ITERATIONS - 1))

    def forward(self, e: Tensor) -> Tensor:
        before = threshold(self.x0_block.conv_in(e), self._theta(0))
        first = (1 + self._rho(1)) * (before - self.x1_block.basic_layer(before))
        x = threshold(first + self.x1_block.conv_in(e), self._theta(1))
        for k, module in enumerate(self.IM, start=2):
            forward = (1 + self._rho(k)) * (x - module.basic_layer1(x))  # type: ignore[operator]
            backward = self._rho(k) * (before - module.basic_layer2(before))  # type: ignore[operator]
            new = threshold(forward - backward + module.conv_in(e), self._theta(k))  # type: ignore[operator]
            before, x = x, new
        return x

    def _theta(self, k: int) -> Tensor:
        return F.softplus(self.w_theta * k + self.b_theta)

    def _rho(self, k: int) -> Tensor:
        now = F.softplus(self.w_ro * k + self.b_ro)
        return (now - F.softplus(self.b_ro)) / now


class _Decoder(nn.Module):
    """What unique and common features add to the fused picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.conv_3 = (_conv(FILTERS, 1) for _ in range(3))


class FNet(nn.Module):
    """F(ir, vi): two B×1×H×W images in [0, 1] → B×1×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.net_u, self.net_v, self.net_z = LZSC(1), LZSC(1), LZSC(2)
        self.conv_u, self.conv_v = _conv(FILTERS, 1), _conv(FILTERS, 1)
        self.decoder = _Decoder()

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        u, v = self.net_u(ir), self.net_v(vi)
        z = self.net_z(torch.cat((ir - self.conv_u(u), vi - self.conv_v(v)), dim=1))
        return self.decoder.conv_1(u) + self.decoder.conv_2(z) + self.decoder.conv_3(v)
