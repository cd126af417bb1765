"""EMMA's second stage: pseudo-sensing modules learn from fused images what a camera saw of the scene
(Zhao et al., "Equivariant Multi-Modality Image Fusion", section 3.3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ufuser.runtime.errors import InputError

from .data import SUFFIXES, Pair, read_grey
from .objective import Terms
from .precision import Network
from .pseudo_fusers import FUSERS, write_fused
from .recipe import SensingRecipe


@dataclass(frozen=True)
class PseudoExample:
    """What some fuser made of a pair, and the source that is to be sensed from it."""

    name: str
    fused: Path
    source: Path

    @property
    def images(self) -> tuple[Path, Path]:
        """What the sensing network takes, and what it shall answer."""
        return self.fused, self.source


class SensingObjective:
    """A pseudo-sensing module against a source: first image fused, second the source."""

    def __init__(self, recipe: SensingRecipe) -> None:
        self._name = recipe.loss
        self._loss = {"mse": F.mse_loss, "l1": F.l1_loss}[recipe.loss]

    def train(self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator) -> Terms:
        return {self._name: self._loss(network(first), second)}

    def validate(
        self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        sensed = network(first)
        return {self._name: self._loss(sensed, second)}, [first, second, sensed]


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
                f"--pseudo {folder}: expected a folder of fused images or one of {', '.join(FUSERS)}"
            )
        label = "/".join(folder.resolve().parts[-2:])  # for the checkpoint: not where it lay on a machine
        if label in found:
            raise InputError(f"--pseudo {folder}: another folder {label} is given, too")
        found[label] = _fused_of(folder, pairs)
    for name in wanted:  # last, because it writes
        if name in FUSERS:
            write_fused(name, pairs, out / name)
            found[name] = _fused_of(out / name, pairs)  # what an earlier run left may be of other pairs
    return found


def _fused_of(folder: Path, pairs: Sequence[Pair]) -> dict[str, Path]:
    images: dict[str, Path] = {}
    problems = []
    for path in sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES):
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
        raise InputError(f"--pseudo {folder}: {'; '.join(problems[:5])}{more}")
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
    """One fuser's image of each pair, the fusers taking turns: enough to validate on, and as quick."""
    turns = list(fused.values())
    return [
        example
        for k, pair in enumerate(pairs)
        for example in examples({"": turns[k % len(turns)]}, [pair], target)
    ]
