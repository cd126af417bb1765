"""FNet rewritten for engines: the same answer, borders included, from convolutions that processors serve well.

- **Joined.** Convolutions of the same input are one: D_k and D'_{k+1} of the same features; conv_u and the decoder's
  first convolution (and conv_v and its third); C_k, U_k and U'_k, whose outputs are added, of their inputs stacked.
  The factors 1 + ρ_k and ρ_k go into the kernels.
- **By rows.** A 9×9 convolution from 64 channels to one reaches a small share of a processor's speed. As nine
  1×9 convolutions, one for each row of the kernel, whose answers are then shifted and added, it has nine times
  the outputs, as many multiplications, and zero padding in one direction each. Towards 64 channels likewise:
  first nine shifted copies, then one 1×9 convolution of them all.
- **Scaled.** Features are carried γ times as large, so that the threshold's slope needs no multiplication: the
  kernels that read e grow by γ, those that leave the features shrink by it, all others are linear and stay.

In `tests/export/test_rewrite_fnet.py` each changes the answer by less than 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ufuser.export.fnet_parts import FEATURES, PARTS
from ufuser.export.layers import convolution, parameter
from ufuser.train.models.fnet import FNet
from ufuser.train.models.sparse_coding import KERNEL, LZSC, QUASI


def _same(kernel: Tensor) -> nn.Conv2d:
    """A 'same' convolution with the given kernel, without bias."""
    height, width = kernel.shape[2:]
    return convolution(kernel, padding=(height // 2, width // 2), dtype=kernel.dtype)


def from_features(weight: Tensor) -> nn.Sequential:
    """A 'same' convolution from many channels to few, o×i×9×9: a 1×9 one for each row, then their sum.

    Zero padding gives the same: beyond the upper and lower border the rows' answers are zero as well.
    """
    outputs, inputs = weight.shape[:2]
    rows = weight.transpose(1, 2).reshape(outputs * KERNEL, inputs, 1, KERNEL)
    gather = weight.new_zeros(outputs, outputs * KERNEL, KERNEL, 1)
    for o in range(outputs):
        gather[o, o * KERNEL : (o + 1) * KERNEL, :, 0] = torch.eye(KERNEL)
    return nn.Sequential(_same(rows), _same(gather))


def to_features(weight: Tensor) -> nn.Sequential:
    """A 'same' convolution from few channels to many, o×i×9×9: shifted copies, then a 1×9 one of them all."""
    outputs, inputs = weight.shape[:2]
    spread = weight.new_zeros(inputs * KERNEL, inputs, KERNEL, 1)
    for i in range(inputs):
        spread[i * KERNEL : (i + 1) * KERNEL, i, :, 0] = torch.eye(KERNEL)
    rows = weight.reshape(outputs, inputs * KERNEL, 1, KERNEL)
    return nn.Sequential(_same(spread), _same(rows))


def _number(x: Tensor | float) -> nn.Parameter:
    value = torch.as_tensor(x).reshape(())
    return parameter(value, value.dtype)


def _present(x: Tensor | None, what: str) -> Tensor:
    if x is None:
        raise ValueError(f"an iteration with momentum got no {what}: expected it from the iteration before")
    return x


class SigmoidalThreshold(nn.Module):
    """γ·h(x; θ) of γ·x."""

    def __init__(self, theta: Tensor, alpha: float, gamma: float) -> None:
        super().__init__()
        self.theta = _number(gamma * theta)
        self.limit = float(alpha * gamma * theta.detach())

    def forward(self, x: Tensor) -> Tensor:
        # αθ·sign(x), as a steep line that is clipped: Sign is slow in engines.
        steep = 6e4 if x.dtype == torch.float16 else 1e30
        offset = (x * steep).clamp(-self.limit, self.limit)
        # Without a sigmoid: ONNX Runtime approximates it, which changed the fused image by 1.7e-4.
        # If e^… overflows, in half precision from θ = 0.11 on, the quotient is zero, as it should be.
        return (x - offset) / (1 + torch.exp(self.theta - x.abs()))


class SoftThreshold(nn.Module):
    """sign(x)·max(|x| − θ, 0), as x minus x clipped at ±θ."""

    def __init__(self, theta: Tensor, gamma: float) -> None:
        super().__init__()
        self.theta = float(gamma * theta.detach())

    def forward(self, x: Tensor) -> Tensor:
        return x - x.clamp(-self.theta, self.theta)


def _threshold(block: LZSC, k: int) -> nn.Module:
    coding, theta = block.coding, block.theta(k)
    if coding.thresholding == "soft":
        return SoftThreshold(theta, coding.gamma)
    return SigmoidalThreshold(theta, coding.alpha, coding.gamma)


class Iteration(nn.Module):
    """One iteration module: (e, x_{k−1}, x_{k−2}, D'_k x_{k−2}) → x_k, D'_{k+1} x_{k−1}."""

    def __init__(self, block: LZSC, k: int) -> None:
        super().__init__()
        momentum, rho = block.coding.momentum, block.rho(k).detach()
        nesterov, polyak = momentum == "nesterov", momentum == "polyak"
        first, second, later = block.first(k), block.second(k), block.second(k + 1)
        reads = [first.ch_down.weight]
        adds = [
            block.coding.gamma * block.conv_in(k).weight,
            (-(1 + rho) if nesterov else -1.0) * first.ch_up.weight,
        ]
        if second is not None:
            adds.append(rho * second.ch_up.weight)
        if later is not None:
            reads.append(later.ch_down.weight)
        self.channels = first.ch_down.weight.shape[0]
        self.down, self.step = from_features(torch.cat(reads)), to_features(torch.cat(adds, dim=1))
        self.has_second, self.has_later = second is not None, later is not None
        self.own = _number(1 + rho) if nesterov or (polyak and k > 1) else None
        self.past = _number(-rho) if k > 1 and (nesterov or polyak) else None
        self.threshold = _threshold(block, k)

    def forward(
        self, e: Tensor, x: Tensor, before: Tensor | None, down_before: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        down, later = self.down(x), None
        if self.has_later:
            down, later = down.split(self.channels, dim=1)
        parts = [e, down]
        if self.has_second:
            parts.append(_present(down_before, "D'_k x_{k−2}"))
        step = self.step(torch.cat(parts, dim=1)) + (x if self.own is None else self.own * x)
        if self.past is not None:
            step = step + self.past * _present(before, "x_{k−2}")
        return self.threshold(step), later


class QuasiHyperbolicIteration(nn.Module):
    """As `Iteration`, for the momentum that averages gradients: (e, x_{k−1}, average) → x_k, average."""

    def __init__(self, block: LZSC, k: int) -> None:
        super().__init__()
        first, rho = block.first(k), block.rho(k).detach()
        self.down = from_features(first.ch_down.weight)
        entry = -block.coding.gamma * block.conv_in(k).weight
        self.gradient = to_features(torch.cat((entry, first.ch_up.weight), dim=1))
        self.kept, self.new = _number(rho), _number(1 - rho)
        self.threshold = _threshold(block, k)

    def forward(self, e: Tensor, x: Tensor, average: Tensor | None) -> tuple[Tensor, Tensor]:
        now = self.gradient(torch.cat((e, self.down(x)), dim=1))
        average = self.new * now if average is None else self.kept * average + self.new * now
        return self.threshold(x - (1 - QUASI) * now - QUASI * average), average


class Coding(nn.Module):
    """A sparse coding block: e → γ times its features."""

    def __init__(self, block: LZSC) -> None:
        super().__init__()
        self.entry = to_features(block.coding.gamma * block.conv_in(0).weight)
        self.threshold = _threshold(block, 0)
        self.quasi = block.coding.momentum == "quasi_hyperbolic"
        kind = QuasiHyperbolicIteration if self.quasi else Iteration
        self.iterations = nn.ModuleList(kind(block, k) for k in range(1, block.coding.iterations + 1))

    def forward(self, e: Tensor) -> Tensor:
        x: Tensor = self.threshold(self.entry(e))
        before: Tensor | None = None
        kept: Tensor | None = None
        for iteration in self.iterations:
            if self.quasi:
                x, kept = iteration(e, x, kept)
            else:
                new, kept = iteration(e, x, before, kept)
                before, x = x, new
        return x


class DeployedFNet(nn.Module):
    """FNet's answer for two B×1×H×W images, and its parts."""

    def __init__(self, network: FNet) -> None:
        super().__init__()
        self.net_u, self.net_v, self.net_z = (
            Coding(block) for block in (network.net_u, network.net_v, network.net_z)
        )
        decoder, shrink = network.decoder, 1 / network.net_u.coding.gamma
        # conv_u's answer is subtracted from e; the decoder's is added to the picture.
        self.from_u = from_features(shrink * torch.cat((-network.conv_u.weight, decoder.conv_1.weight)))
        self.from_v = from_features(shrink * torch.cat((-network.conv_v.weight, decoder.conv_3.weight)))
        self.from_z = from_features(shrink * decoder.conv_2.weight)

    def parts(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, ...]:
        """`PARTS` and `FEATURES`: the contributions to the fused image, each B×1×H×W, and the features that they are
        made from, γ times as large, B×64×H×W.
        """
        u, v = self.net_u(ir), self.net_v(vi)
        less_u, unique_ir = self.from_u(u).split(1, dim=1)
        less_v, unique_vi = self.from_v(v).split(1, dim=1)
        z = self.net_z(torch.cat((ir + less_u, vi + less_v), dim=1))
        return unique_ir, self.from_z(z), unique_vi, u, z, v

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        return fused_from(self.parts(ir, vi))


def fused_from(parts: Sequence[Tensor]) -> Tensor:
    """The sum of the first three parts, in float32: half precision rounds levels near 1."""
    unique_ir, common, unique_vi = (p.float() if p.dtype == torch.float16 else p for p in parts[:3])
    return unique_ir + common + unique_vi


class NamedParts(nn.Module):
    """(ir, vi) → fused and its parts, which the exporter names; `body` may be in half precision."""

    part_names = (*PARTS, *FEATURES)

    def __init__(self, body: DeployedFNet) -> None:
        super().__init__()
        self.body = body

    def forward(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, ...]:
        dtype = next(self.body.parameters()).dtype
        parts = self.body.parts(ir.to(dtype), vi.to(dtype))
        return fused_from(parts), *parts


def with_parts(network: nn.Module) -> nn.Module:
    """A rewritten FNet with its parts as further answers, also in half precision; other networks unchanged."""
    body = getattr(network, "body", network)
    return NamedParts(body) if isinstance(body, DeployedFNet) else network


def thresholds(network: FNet) -> dict[str, dict[str, list[float]]]:
    """The learnt θ_k and ρ_k of each sparse coding block, k = 0 … N, by the name of its part."""
    blocks = {"unique_ir": network.net_u, "common": network.net_z, "unique_vi": network.net_v}
    steps = range(network.net_u.coding.iterations + 1)
    with torch.no_grad():
        return {
            name: {
                "theta": [round(block.theta(k).item(), 6) for k in steps],
                "rho": [round(block.rho(k).item(), 6) for k in steps],
            }
            for name, block in blocks.items()
        }
