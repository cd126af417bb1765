"""A fusion network trained against both sources directly."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..losses import DirectLoss
from ..networks import Network
from ..sections import DirectRecipe
from ..setup import Setup
from .objective import Task, Terms

Loss = Callable[[Tensor, Tensor, Tensor], Terms]
"""Of fused, infrared and visible."""


class DirectObjective:
    """A loss of the fused image and both sources. The images are infrared and visible."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        return self.validate(network, images, rng)[0]

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        ir, vi = images
        fused = network(ir, vi)
        return self._loss(fused, ir, vi), [ir, vi, fused]


def prepare(setup: Setup, section: DirectRecipe, args: argparse.Namespace) -> Task:
    """Train by `DirectLoss`."""
    return setup.task(DirectObjective(DirectLoss(setup.recipe.loss)))
