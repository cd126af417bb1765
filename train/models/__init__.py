"""The networks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import nn

from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import convert

from .daefuse import DAEFuse, DAEFuseOptions
from .fnet import FNet, FNetPair, PairOptions
from .lite import Lite, LiteOptions
from .options import Options
from .pseudo_sensing import PseudoSensing, PseudoSensingOptions
from .sparse_coding import SparseCoding
from .ufuser import UFuser, UFuserOptions


@dataclass(frozen=True)
class Model:
    """A network and its options."""

    network: type[nn.Module]
    """Takes the options as its only argument."""
    options: type[Options]
    kind: str = "fusion"
    """"fusion": (ir, vi), two B×1×H×W images in [0, 1], to fused, B×1×H×W. "sensing": fused to one source, each
    B×1×H×W. "pair": a fusion network and its inverse, (ir, vi) to fused, and ir and vi recovered, B×3×H×W; the
    submodule of the fusion network's name is the fusion network."""


MODELS = {
    "ufuser": Model(UFuser, UFuserOptions),
    "daefuse": Model(DAEFuse, DAEFuseOptions),
    "lite": Model(Lite, LiteOptions),
    "fnet": Model(FNet, SparseCoding),
    "pseudo_sensing": Model(PseudoSensing, PseudoSensingOptions, "sensing"),
    "fnet_pair": Model(FNetPair, PairOptions, "pair"),
}


def names(*kinds: str) -> list[str]:
    """The names of all models of some kinds."""
    return [name for name, model in MODELS.items() if model.kind in kinds]


def create(name: str, options: Mapping[str, object] | None = None) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: a key of `MODELS`.
        options: fields of the network's options; absent ones take their defaults. A list stands for a tuple.

    Raises:
        InputError: an unknown name or option, an option's value that the network cannot take.
    """
    return _model(name).network(_options(name, options or {}))


def all_options(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """A network's options, complete with the defaults, as a checkpoint stores them. Raises InputError as `create`."""
    complete: dict[str, Any] = msgspec.to_builtins(_options(name, options))
    return complete


def _model(name: str) -> Model:
    if name not in MODELS:
        raise InputError(f"unknown model '{name}': expected one of {', '.join(sorted(MODELS))}")
    return MODELS[name]


def _options(name: str, options: Mapping[str, object]) -> Options:
    return convert(dict(options), _model(name).options, f"model '{name}'")


def shape_multiple(network: nn.Module) -> int:
    """Height and width must be multiples of this; 1 for a network that takes any size."""
    return int(getattr(network, "shape_multiple", 1))
