"""Exact rewrites: the same answer by fewer operations.

Each is an identity of real arithmetic (borders included); in float32 the answers differ by rounding, which the
tests hold under 1e-5. What is done to which network is in the module named after it.
"""

from __future__ import annotations

import copy

from torch import nn

from ufuser.export.rewrite_daefuse import rewrite_daefuse
from ufuser.export.rewrite_fnet import DeployedFNet
from ufuser.export.rewrite_lite import rewrite_lite
from ufuser.export.rewrite_ufuser import rewrite_ufuser
from ufuser.train.models.daefuse import DAEFuse
from ufuser.train.models.fnet import FNet
from ufuser.train.models.lite import Lite
from ufuser.train.models.ufuser import UFuser


def rewrite(model: nn.Module) -> nn.Module:
    """A copy of a trained network with all exact rewrites made, in evaluation mode; the original stays.

    A network that none is known for comes back as it is.
    """
    result = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(result, UFuser):
        rewrite_ufuser(result)
    elif isinstance(result, Lite):
        rewrite_lite(result)
    elif isinstance(result, DAEFuse):
        rewrite_daefuse(result)
    elif isinstance(result, FNet):
        return DeployedFNet(result).eval().requires_grad_(False)
    return result
