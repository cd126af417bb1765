"""What a paradigm asks of the network it trains: the terms of its loss, and what to show of it.

The trainer knows batches, steps and files; an objective knows what the two images of a batch mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from .precision import Network

Terms = dict[str, Tensor]  # weighted, by name; their sum is the loss
Loss = Callable[[Tensor, Tensor, Tensor], Terms]


class Objective(Protocol):
    """A way of training. Images are B×1×H×W, float32 in [0, 1]."""

    def train(self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator) -> Terms:
        """The loss of one batch of patches; `rng` depends on the run's seed and the step alone."""
        ...

    def validate(
        self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        """The loss of one whole example of any size and the images that show it, without gradients."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective that changes as it trains (discriminators, say): the trainer keeps its state in last.pt."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts in dicts and lists: all that a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def pad_to_multiple(x: Tensor, multiple: int = 8) -> Tensor:
    """Reflect at the right and the bottom up to the next multiple."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="reflect")


def at_any_size(network: Network, multiple: int) -> Network:
    """A network that takes sizes of one multiple only, for images of any size: padded, then cropped."""

    def call(*images: Tensor) -> Tensor:
        height, width = images[0].shape[-2:]
        if height % multiple == 0 and width % multiple == 0:
            return network(*images)
        return network(*(pad_to_multiple(x, multiple) for x in images))[..., :height, :width]

    return call


class DirectObjective:
    """A fusion network trained against both sources directly: first image infrared, second visible."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def train(self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator) -> Terms:
        return self._loss(network(first, second), first, second)

    def validate(
        self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        fused = network(first, second)
        return self._loss(fused, first, second), [first, second, fused]
