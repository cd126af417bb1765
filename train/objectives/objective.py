"""The interface between the trainer and objectives.

The trainer handles batches, steps and files; an objective knows the meaning of the images in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from ..data import Example
from ..networks import Network
from ..sections import DataRecipe

Terms = dict[str, Tensor]  # weighted, by name; their sum is the loss


class Objective(Protocol):
    """Computes the loss. Images are those of the examples in their order, each B×1×H×W, float32 in [0, 1]."""

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        """The loss of one batch of patches; `rng` depends on the run's seed and the step alone."""
        ...

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        """The loss of one whole example of any size, and the images to show of it. Called without gradients."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective that changes in training, such as discriminators: the trainer keeps its state in last.pt."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts in dicts and lists: all that a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        ...


@dataclass(frozen=True)
class Task:
    """An objective with its data."""

    objective: Objective
    training: Sequence[Example]
    validation: Sequence[Example]
    data: DataRecipe
    """How patches are cut and augmented."""
    origin: Mapping[str, object] = field(default_factory=dict)
    """Inputs that decide the result beside recipe and pairs, by the name of their argument: stored with the weights."""
