"""Everything that a training needs before its objective: recipe, network, pairs, device and processes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import nn

from ufuser.runtime.errors import InputError
from ufuser.runtime.limits import require_threads

from .checkpoint import digest, find_checkpoint, load_weights, read_initial
from .data import Example, Pair, find_pairs, tone_mapped_pairs
from .models import MODELS, create, names, shape_multiple
from .models.fnet import FNet, FNetPair
from .objectives.objective import Objective, Task
from .processes import Processes, first_alone, joined
from .recipe import Recipe, find_recipe, load_recipe
from .sections import DataRecipe
from .split import Split, split_pairs
from .trainer import check_out

INFRARED = "infrared"
"""Folder of a run with the tone-mapped pictures of a camera's raw counts."""


@dataclass(frozen=True)
class Setup:
    """The common part of every training."""

    recipe: Recipe
    model: nn.Module
    device: torch.device
    processes: Processes
    split: Split
    origin: dict[str, object]
    """Digests of the pairs' names and of the initial weights."""

    @property
    def training(self) -> list[Pair]:
        """Pairs to train on."""
        return self.split.training

    @property
    def validation(self) -> list[Pair]:
        """Pairs to validate on during training."""
        return self.split.validation[: self.recipe.data.validate_on or None]

    def print(self, text: str) -> None:
        """Print a line, in the first process only."""
        if self.processes.is_first:
            print(text, flush=True)

    def task(
        self,
        objective: Objective,
        training: Sequence[Example] | None = None,
        validation: Sequence[Example] | None = None,
        data: DataRecipe | None = None,
        origin: Mapping[str, object] | None = None,
    ) -> Task:
        """An objective with its data; by default the pairs, cut as the recipe says."""
        return Task(
            objective,
            self.training if training is None else training,
            self.validation if validation is None else validation,
            self.recipe.data if data is None else data,
            {**self.origin, **(origin or {})},
        )


@contextmanager
def prepared(args: argparse.Namespace, command: str) -> Iterator[Setup]:
    """Read and check the recipe and the pairs, create the network, and join the other processes, if any.

    `command` is the objective that the recipe must be for.
    """
    path = find_recipe(args.recipe)
    recipe = with_steps(load_recipe(path), args.steps)
    if recipe.command != command:
        raise InputError(
            f"{args.recipe} is for `ufuser train {recipe.command}`, got `ufuser train {command}`"
        )
    torch.manual_seed(recipe.seed)
    model = _network(recipe, path)
    if args.threads is not None:
        require_threads(args.threads)
        torch.set_num_threads(args.threads)
    check_out(args.out, args.resume)
    listed = path.parent / recipe.data.validation if recipe.data.validation else None
    split = split_pairs(find_pairs(args.data), args.validation, listed, recipe.seed)
    stems = ["\n".join(pair.name for pair in side) for side in (split.training, split.validation)]
    origin: dict[str, object] = {"pairs": hashlib.sha256("\n\n".join(stems).encode()).hexdigest()}
    if args.init is not None:
        initial = find_checkpoint(args.init, "init")
        load_weights(model, read_initial(initial, recipe.model), str(initial))
        origin |= digests(init=initial)
    with joined(args.device) as (processes, device):
        raw = sum(pair.raw for pair in (*split.training, *split.validation))
        with first_alone(processes):
            split = _tone_mapped(split, args.out / INFRARED, processes.is_first)
        setup = Setup(recipe, model, device, processes, split, origin)
        if raw:
            setup.print(
                f"{raw} infrared pictures hold raw counts: tone mapped to 8 bits in {args.out / INFRARED}"
            )
        yield setup


def _tone_mapped(split: Split, folder: Path, write: bool) -> Split:
    training, validation = (
        tone_mapped_pairs(side, folder, write) for side in (split.training, split.validation)
    )
    return dataclasses.replace(split, training=training, validation=validation)


def with_steps(recipe: Recipe, steps: int | None) -> Recipe:
    """The recipe with another number of steps; None keeps its own."""
    if steps is None:
        return recipe
    if steps < 1:
        raise InputError(f"steps={steps}: expected at least 1", "steps")
    return msgspec.structs.replace(recipe, optim=msgspec.structs.replace(recipe.optim, steps=steps))


def _network(recipe: Recipe, path: Path) -> nn.Module:
    model = create(recipe.model, recipe.network)
    kinds = recipe.objective.kinds
    if MODELS[recipe.model].kind not in kinds:
        raise InputError(
            f"{path} trains the model '{recipe.model}' by [{recipe.command}]: "
            f"expected one of {', '.join(names(*kinds))}"
        )
    multiple = shape_multiple(model)
    if recipe.data.crop % multiple:
        raise InputError(
            f"{path} [data]: 'crop' must be a multiple of {multiple} for {recipe.model}, got {recipe.data.crop}"
        )
    if isinstance(model, (FNet, FNetPair)):
        model.join_convolutions()
    return model


def digests(**paths: Path | None) -> dict[str, object]:
    """SHA-256 of each file that is given, by the name of its argument."""
    return {name: digest(path) for name, path in paths.items() if path is not None}
