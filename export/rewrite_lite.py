"""U-Fuser Lite for engines: the branches that its convolutions were trained with become one kernel each, and the
statistic of the picture is subtracted.

`tests/export/test_rewrite_lite.py` holds the answer under 1e-5 of the trained network's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.train.models.lite import BranchedConv, ChannelStatistic, Lite


def folded(conv: BranchedConv) -> nn.Conv2d:
    """Its branches as one zero-padded 3×3 convolution: the 1×1 and the identity are kernels with one tap."""
    weight = conv.full.weight.detach().double()
    bias = conv.full.bias
    assert bias is not None
    if conv.point is not None:
        weight[:, :, 1, 1] += conv.point.weight.detach().double()[:, :, 0, 0]
    if conv.skip:
        weight[:, :, 1, 1] += torch.eye(len(weight), dtype=torch.float64)
    cout, cin = weight.shape[:2]
    kernel = nn.Conv2d(cin, cout, 3, padding=1).requires_grad_(False)
    kernel.weight.copy_(weight)
    assert kernel.bias is not None
    kernel.bias.copy_(bias.detach())
    return kernel


class SubtractedStatistic(nn.Module):
    """x − (−s) in place of x + s.

    ONNX Runtime keeps an addition in the blocked layout of its convolutions, where adding one number a channel takes
    ten times as long as it should; a subtraction it makes in the plain layout, which the mean needs anyway.
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
    """Make every rewrite, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BranchedConv):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, folded(module))
    if model.statistic is not None:
        model.statistic = SubtractedStatistic(model.statistic)  # type: ignore[assignment]
