"""U-Fuser Lite for engines: the trained branches of a convolution become one kernel, the statistic is subtracted.

In `tests/export/test_rewrite_lite.py` the answer differs from the trained network's by less than 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.export.layers import bias_of, convolution, expect, kernel_of, matrix_of, without_bias
from ufuser.train.models.lite import BranchedConv, ChannelStatistic, Lite


def folded(conv: BranchedConv) -> nn.Conv2d:
    """Its branches as one zero-padded 3×3 convolution: the 1×1 and the identity are kernels with one tap."""
    kernel = kernel_of(conv.full)
    expect(kernel.shape[2:] == (3, 3), "a 3x3 convolution as the widest branch", conv.full)
    if conv.point is not None:
        without_bias(conv.point)
        kernel[:, :, 1, 1] += matrix_of(conv.point)
    if conv.skip:
        kernel[:, :, 1, 1] += torch.eye(len(kernel), dtype=torch.float64)
    return convolution(kernel, bias_of(conv.full), padding=1)


class SubtractedStatistic(nn.Module):
    """x − (−s) in place of x + s.

    ONNX Runtime computes an addition in the blocked layout of its convolutions, where adding one number per channel
    takes ten times as long; a subtraction in the plain layout, which the mean needs anyway.
    """

    def __init__(self, statistic: ChannelStatistic) -> None:
        super().__init__()
        self.inward, self.outward = statistic.inward, statistic.outward
        for parameter in self.outward.parameters():
            parameter.neg_()

    def forward(self, x: Tensor) -> Tensor:
        shift: Tensor = self.outward(F.relu(self.inward(x.mean(dim=(2, 3), keepdim=True))))
        return x - shift


def rewrite_lite(model: Lite) -> None:
    """Every rewrite of Lite, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BranchedConv):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, folded(module))
    if model.statistic is not None:
        model.statistic = SubtractedStatistic(model.statistic)  # type: ignore[assignment]
