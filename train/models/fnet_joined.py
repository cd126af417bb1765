"""FNet's convolutions arranged for a CPU: the same outputs, borders included, several times faster.

PyTorch is slow at 9×9 convolutions between 64 channels and one, and FNet has no others. Two identities help:

- **Joined.** The update of iteration k from D_k x_{k−1}, D'_k x_{k−2} and e is one convolution of
  the three stacked, with the kernels −(1 + ρ_k) U_k, ρ_k U'_k and C_k stacked; D_k and D'_{k+1} read the same
  features and are one convolution.
- **In blocks.** Pictures and features are arranged by 2×2 pixels (space to depth): a 9×9 convolution from c to o
  channels is a 5×5 convolution from 4c to 4o there. It has 100 taps instead of 81, some of them zero, and
  enough channels on both sides for the processor's vector units. Zero padding of 4 pixels is padding of 2 blocks;
  beyond the border of an odd size, half a block is kept at zero by a mask.

The parameters stay as they are: kernels are joined and rearranged at each call, and gradients flow through that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sparse_coding import LZSC, QUASI

BLOCK = 2


def kernel_in_blocks(weight: Tensor, block: int = BLOCK) -> Tensor:
    """A 'same' 9×9 kernel o×i×9×9 for pictures laid out in blocks: o·b²×i·b²×n×n, n = 8/b + 1, padding 4/b.

    Channel c of a picture becomes b² channels c·b² + …, one for each pixel of a block, as `pixel_unshuffle` does.
    """
    places = [
        F.pixel_unshuffle(F.pad(weight, (x, block - 1 - x, y, block - 1 - y)), block)
        for y in range(block)
        for x in range(block)
    ]
    return torch.stack(places, dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, kernel_in_blocks(weight), padding=(weight.shape[-1] // 2) // BLOCK)


def _into_blocks(x: Tensor) -> Tensor:
    """B×C×H×W → B×4C×⌈H/2⌉×⌈W/2⌉, zero beyond the picture."""
    height, width = x.shape[-2:]
    if height % BLOCK or width % BLOCK:
        x = F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK))
    return F.pixel_unshuffle(x, BLOCK).contiguous(memory_format=torch.channels_last)


class _Odd:
    """Keeps the parts of blocks beyond the picture's border at zero."""

    def __init__(self, e: Tensor) -> None:
        height, width = e.shape[-2:]
        whole = height % BLOCK == 0 and width % BLOCK == 0
        self._mask = None if whole else _into_blocks(torch.ones_like(e[:1, :1]))

    def __call__(self, x: Tensor) -> Tensor:
        return x if self._mask is None else x * self._mask.repeat(1, x.shape[1] // BLOCK**2, 1, 1)


class _Threshold(torch.autograd.Function):
    """h(x; θ) with its derivative written out: PyTorch would keep six maps where one is enough.

    By the sigmoid, which doesn't overflow as exp(−γ(|x| − θ)) and its derivative do.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, theta: Tensor, *slope: float) -> Tensor:
        ctx.save_for_backward(x, theta)
        ctx.slope = slope  # type: ignore[attr-defined]
        alpha, gamma = slope
        gate = x.abs().sub_(theta).mul_(gamma).sigmoid_()
        return torch.sign(x).mul_(-alpha * theta).add_(x).mul_(gate)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, theta = ctx.saved_tensors  # type: ignore[attr-defined]
        alpha, gamma = ctx.slope  # type: ignore[attr-defined]
        magnitude = x.abs()
        gate = (magnitude - theta).mul_(gamma).sigmoid_()
        # The gate's derivative by |x|; that by θ is its negative.
        slope_x = (1 - gate).mul_(gate).mul_(gamma).mul_(magnitude.sub_(alpha * theta))
        by_x = (slope_x + gate).mul_(grad)
        by_theta = -(gate.mul_(alpha).add_(slope_x).mul_(torch.sign(x)).mul_(grad)).sum()
        return by_x, by_theta.reshape(theta.shape), None, None


def _threshold(block: LZSC, x: Tensor, k: int) -> Tensor:
    if block.coding.thresholding == "soft":
        return block.threshold(x, k)
    thresholded: Tensor = _Threshold.apply(x, block.theta(k), block.coding.alpha, block.coding.gamma)  # type: ignore[no-untyped-call]
    return thresholded


def code_jointly(block: LZSC, e: Tensor) -> Tensor:
    """The output of `block(e)`, B×c×H×W → B×64×H×W."""
    height, width = e.shape[-2:]
    inside = _Odd(e)
    e = _into_blocks(e)
    x = inside(_threshold(block, _conv(e, block.conv_in(0).weight), 0))
    before = averaged = down_before = None
    for k in range(1, block.coding.iterations + 1):
        rho, later = block.rho(k), block.second(k + 1)
        reads = [block.first(k).ch_down.weight] + ([later.ch_down.weight] if later else [])
        down, *down_later = inside(_conv(x, torch.cat(reads))).chunk(len(reads), dim=1)
        if block.coding.momentum == "quasi_hyperbolic":
            now = _conv(torch.cat((e, down), 1), _stacked(block, k, -1.0, 1.0))
            averaged = (1 - rho) * now if averaged is None else rho * averaged + (1 - rho) * now
            step = x - (1 - QUASI) * now - QUASI * averaged
        else:
            step = _linear_step(block, k, rho, e, x, before, down, down_before)
        down_before = down_later[0] if down_later else None
        before, x = x, inside(_threshold(block, step, k))
    return F.pixel_shuffle(x, BLOCK)[..., :height, :width]


def _stacked(block: LZSC, k: int, of_e: float, of_x: Tensor | float) -> Tensor:
    """C_k and U_k, each times a factor, as one kernel of e and D_k x."""
    return torch.cat((of_e * block.conv_in(k).weight, of_x * block.first(k).ch_up.weight), dim=1)


def _linear_step(
    block: LZSC,
    k: int,
    rho: Tensor,
    e: Tensor,
    x: Tensor,
    before: Tensor | None,
    down: Tensor,
    down_before: Tensor | None,
) -> Tensor:
    """The argument of h in Eq. 20, or without momentum, or with Polyak's."""
    nesterov, polyak = (block.coding.momentum == name for name in ("nesterov", "polyak"))
    scale = rho[:, None, None, None]
    inputs = [e, down]
    kernel = _stacked(block, k, 1.0, -(1 + scale) if nesterov else -1.0)
    second = block.second(k)
    if second is not None and down_before is not None:
        inputs.append(down_before)
        kernel = torch.cat((kernel, scale * second.ch_up.weight), dim=1)
    step = _conv(torch.cat(inputs, dim=1), kernel)
    step = torch.addcmul(step, x, 1 + scale) if nesterov else step + x
    if before is not None and (nesterov or polyak):
        step = torch.addcmul(step, before, -scale)
        if polyak:
            step = torch.addcmul(step, x, scale)
    return step


def sum_jointly(parts: Sequence[tuple[nn.Conv2d, Tensor]]) -> Tensor:
    """The sum of convolutions, each of its own features B×64×H×W, as one: → B×1×H×W."""
    kernel = torch.cat([conv.weight for conv, _ in parts], dim=1)
    features = torch.cat([x for _, x in parts], dim=1)
    height, width = features.shape[-2:]
    return F.pixel_shuffle(_conv(_into_blocks(features), kernel), BLOCK)[..., :height, :width]
