"""The networks, by name."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from .ufuser import UFuser

# name → class; every fusion network maps (ir, vi), two B×1×H×W images in [0, 1], to fused B×1×H×W.
FUSION_MODELS: dict[str, type[nn.Module]] = {"ufuser": UFuser}


def create(name: str) -> nn.Module:
    """A freshly initialised network. Raises InputError for a name that isn't there."""
    try:
        return FUSION_MODELS[name]()
    except KeyError:
        raise InputError(
            f"unknown model '{name}': expected one of {', '.join(sorted(FUSION_MODELS))}"
        ) from None
