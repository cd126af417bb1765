"""EMMA's second stage: pseudo-sensing modules learn to predict a camera's image from fused images
(Zhao et al., "Equivariant Multi-Modality Image Fusion", section 3.3.3)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import read_grey

from ..data import Pair, is_picture
from ..networks import Network
from ..processes import first_alone
from ..pseudo_fusers import FUSERS, write_fused
from ..sections import SensingRecipe
from ..setup import Setup
from .objective import Task, Terms


@dataclass(frozen=True)
class PseudoExample:
    """A fuser's image of a pair, and the source to sense from it."""

    name: str
    fused: Path
    source: Path

    @property
    def images(self) -> tuple[Path, Path]:
        """The input of the sensing network and its target."""
        return self.fused, self.source


class SensingObjective:
    """A pseudo-sensing module against a source. The images are fused and the source."""

    def __init__(self, recipe: SensingRecipe) -> None:
        self._name = recipe.loss
        self._loss = {"mse": F.mse_loss, "l1": F.l1_loss}[recipe.loss]

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        return self.validate(network, images, rng)[0]

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        fused, source = images
        sensed = network(fused)
        return {self._name: self._loss(sensed, source)}, [fused, source, sensed]


def find_fused(wanted: Sequence[str], pairs: Sequence[Pair], out: Path) -> dict[str, dict[str, Path]]:
    """Pseudo ground truth: by the name of its fuser, a fused image for the stem of every pair.

    Args:
        wanted: folders of fused images named like the pairs, and names of built-in fusers (`FUSERS`).
        pairs: the pairs that must be there.
        out: folder to which built-in fusers write.

    Raises:
        InputError: a folder that isn't there, or whose images are missing, unreadable or of another size.
    """
    folders = [Path(name) for name in wanted if name not in FUSERS]
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"pseudo={folder}: expected a folder of fused images or one of {', '.join(FUSERS)}", "pseudo"
            )
        label = "/".join(folder.resolve().parts[-2:])  # for the checkpoint: no path of this machine
        if label in found:
            raise InputError(f"pseudo={folder}: another folder {label} is given, too", "pseudo")
        found[label] = _fused_of(folder, pairs)
    for name in wanted:  # last, because it writes
        if name in FUSERS:
            write_fused(name, pairs, out / name)
            found[name] = _fused_of(out / name, pairs)  # files of an earlier run may be of other pairs
    return found


def _fused_of(folder: Path, pairs: Sequence[Pair]) -> dict[str, Path]:
    images: dict[str, Path] = {}
    problems = []
    for path in sorted(filter(is_picture, folder.iterdir())):
        if path.stem in images:
            problems.append(f"it holds more than one {path.stem}")
        images[path.stem] = path
    for pair in pairs:
        if pair.name not in images:
            problems.append(f"it holds no {pair.name}")
            continue
        try:
            fused, source = read_grey(images[pair.name]).shape, read_grey(pair.ir).shape
        except InputError as e:
            problems.append(str(e))
            continue
        if fused != source:
            sizes = " instead of ".join("x".join(map(str, s[::-1])) for s in (fused, source))
            problems.append(f"{pair.name} is {sizes}")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise InputError(f"pseudo={folder}: {'; '.join(problems[:5])}{more}", "pseudo")
    return images


def examples(
    fused: Mapping[str, Mapping[str, Path]], pairs: Sequence[Pair], target: str
) -> list[PseudoExample]:
    """Every fuser's image of every pair."""
    return [
        PseudoExample(p.name, images[p.name], p.ir if target == "ir" else p.vi)
        for images in fused.values()
        for p in pairs
    ]


def examples_in_turn(
    fused: Mapping[str, Mapping[str, Path]], pairs: Sequence[Pair], target: str
) -> list[PseudoExample]:
    """One fuser's image of each pair, the fusers taking turns: enough to validate on."""
    fusers = list(fused.values())
    return [
        example
        for k, pair in enumerate(pairs)
        for example in examples({"": fusers[k % len(fusers)]}, [pair], target)
    ]


def prepare(setup: Setup, section: SensingRecipe, args: argparse.Namespace) -> Task:
    """Train a pseudo-sensing module on fused images of the pairs."""
    with first_alone(setup.processes):
        fused = find_fused(args.pseudo, [*setup.training, *setup.validation], args.out / "pseudo")
    setup.print(f"pseudo ground truth for '{section.target}': {', '.join(fused)}")
    return setup.task(
        SensingObjective(section),
        training=examples(fused, setup.training, section.target),
        validation=examples_in_turn(fused, setup.validation, section.target),
        origin={"target": section.target, "pseudo": list(fused)},
    )
