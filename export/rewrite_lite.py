"""U-Fuser Lite for engines: the branches that its convolutions were trained with become one kernel each.

`tests/export/test_rewrite_lite.py` holds the answer under 1e-5 of the trained network's.
"""

from __future__ import annotations

import torch
from torch import nn

from train.models.lite import BranchedConv, Lite


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


def rewrite_lite(model: Lite) -> None:
    """Make every rewrite, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BranchedConv):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, folded(module))
