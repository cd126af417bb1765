"""Which pairs are for training and which for validation: by a list of names, or by a seeded draw."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.images import read_names

from .data import Pair
from .recipe import RECIPES

SHARE = 0.1
"""Of the pairs, kept for validation where nothing else is said."""
LIST = "validation.txt"
"""The names of a drawn split, beside the run."""
_SHIPPED_LIST = RECIPES / "roadscene_validation.txt"


@dataclass(frozen=True)
class Split:
    """Pairs for training, and pairs for validation only."""

    training: list[Pair]
    validation: list[Pair]
    note: str = ""
    """How the split was made; empty if a list gives it as it stands."""

    def write(self, out: Path) -> None:
        """Write the names to the folder of the run as a list for `--validation`, unless a list gave them."""
        if self.note:
            write_bytes(out / LIST, "".join(f"{p.name}\n" for p in self.validation).encode())


def split_pairs(pairs: list[Pair], wanted: str | None, listed: Path | None, seed: int) -> Split:
    """Split pairs as the command line says, else as the recipe says.

    Args:
        pairs: all pairs.
        wanted: a share between 0 and 1, or a file of stems, one a line; None leaves it to the recipe.
        listed: the recipe's file; None if it names none.
        seed: of the draw.

    Without any file, a tenth is drawn. Of the shipped list of RoadScene, the names that are in the data are used; if
    there are none, a tenth is drawn.

    Raises:
        InputError: a file that cannot be read or names pairs that are not in the data; a side without pairs.
    """
    share = None if wanted is None else _share(wanted)
    if share is not None:
        return _drawn(pairs, share, seed, f"validation={wanted}")
    if wanted is not None:
        if not wanted:
            raise InputError("validation='': expected a file of names, or a share", "validation")
        return by_list(pairs, Path(wanted))
    if listed is None:
        return _drawn(pairs, SHARE, seed, "no validation list")
    names = set(read_names(listed))
    present = names & {p.name for p in pairs}
    if names != set(read_names(_SHIPPED_LIST)) or present == names:
        return by_list(pairs, listed)
    if not present:
        return _drawn(pairs, SHARE, seed, f"none of the pairs of {listed.name} is in the data")
    note = (
        f"{len(present)} of the {len(names)} pairs of {listed.name} are in the data and are used for validation, "
        f"listed in {LIST}"
    )
    return _split(pairs, present, listed, note)


def by_list(pairs: list[Pair], path: Path) -> Split:
    """Those named in the list, one stem a line, are for validation only. Raises InputError."""
    names = set(read_names(path))
    absent = sorted(names - {p.name for p in pairs})
    if absent:  # a misspelt name would put its pair into training
        more = f" (and {len(absent) - 5} more)" if len(absent) > 5 else ""
        raise InputError(f"{path} names pairs that are not in the data: {', '.join(absent[:5])}{more}")
    return _split(pairs, names, path)


def _split(pairs: Sequence[Pair], names: Collection[str], path: Path, note: str = "") -> Split:
    training = [p for p in pairs if p.name not in names]
    validation = [p for p in pairs if p.name in names]
    if not training or not validation:
        raise InputError(
            f"{path} names {len(validation)} of the {len(pairs)} pairs: expected at least one on each side of the split"
        )
    return Split(training, validation, note)


def _drawn(pairs: Sequence[Pair], share: float, seed: int, why: str) -> Split:
    """Draw by a hash of seed and name: another pair in the folder moves few of the others."""
    if len(pairs) < 2:
        raise InputError("there is only one pair: expected at least two, one of them for validation")
    count = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    order = sorted(pairs, key=lambda p: hashlib.sha256(f"{seed} {p.name}".encode()).digest())
    names = {p.name for p in order[:count]}
    note = f"{why}: {count} of {len(pairs)} pairs are drawn for validation (seed {seed}), listed in {LIST}"
    return Split([p for p in pairs if p.name not in names], [p for p in pairs if p.name in names], note)


def _share(wanted: str) -> float | None:
    """A number between 0 and 1, or None for the name of a file."""
    try:
        share = float(wanted)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise InputError(
            f"validation={wanted}: expected a file of names, or a share above 0 and below 1", "validation"
        )
    return share
