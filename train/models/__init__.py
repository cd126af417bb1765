"""The networks, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import nn

from ufuser.runtime.errors import InputError

from .daefuse import DAEFuse
from .fnet import FNet, FNetPair
from .lite import Lite
from .pseudo_sensing import PseudoSensing
from .ufuser import UFuser

# name → class; every fusion network maps (ir, vi), two B×1×H×W images in [0, 1], to fused B×1×H×W.
FUSION_MODELS: dict[str, type[nn.Module]] = {"ufuser": UFuser, "daefuse": DAEFuse, "lite": Lite, "fnet": FNet}
# Every sensing network maps fused B×1×H×W to one source, B×1×H×W.
SENSING_MODELS: dict[str, type[nn.Module]] = {"pseudo_sensing": PseudoSensing}
# A fusion network with its inverse: (ir, vi) to fused, ir and vi again, B×3×H×W. Its `fnet.` is a fusion network.
PAIRED_MODELS: dict[str, type[nn.Module]] = {"fnet_pair": FNetPair}
MODELS = FUSION_MODELS | SENSING_MODELS | PAIRED_MODELS


def create(
    name: str,
    options: Mapping[str, object] | None = None,
    among: Mapping[str, type[nn.Module]] = MODELS,
) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: a key of `among`.
        options: arguments of the network's class (`width`, …); absent ones take their defaults. A list
            stands for a tuple.
        among: the kind of network that will do.

    Raises:
        InputError: a name or an option that isn't there, an option's value that the network can't take.
    """
    if name not in among:
        raise InputError(f"unknown model '{name}': expected one of {', '.join(sorted(among))}")
    defaults = all_options(name, {})
    for key, value in (options or {}).items():
        if key not in defaults:
            raise InputError(
                f"model '{name}' has no option '{key}': expected {', '.join(defaults) or 'none'}"
            )
        default = defaults[key]
        if isinstance(default, tuple):
            given = value if isinstance(value, (list, tuple)) else ()
            fits = [type(x) for x in given] == [type(x) for x in default]
            kind = f"a list of {len(default)} {type(default[0]).__name__}"
        else:
            fits, kind = type(value) is type(default), f"a {type(default).__name__}"
        if not fits:
            raise InputError(f"model '{name}': '{key}' must be {kind}, got {value!r}")
    try:
        return among[name](**(options or {}))
    except ValueError as e:
        raise InputError(f"model '{name}': {e}") from None


def kinds_for(paradigm: str) -> dict[str, type[nn.Module]]:
    """The networks that a paradigm of training, a section of a recipe, can train ("" is direct training)."""
    if paradigm == "sensing":
        return SENSING_MODELS
    return FUSION_MODELS | PAIRED_MODELS if paradigm == "fnet" else FUSION_MODELS


def all_options(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """A network's options with the defaults of those not given: what a checkpoint says of it."""
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return {p.name: p.default for p in parameters} | dict(options)


def shape_multiple(network: nn.Module) -> int:
    """What height and width must be multiples of; 1 for a network that takes any size."""
    return int(getattr(network, "shape_multiple", 1))
