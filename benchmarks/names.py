"""Names of the models that a command compares: NAME=FILE, or the model itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ufuser.runtime.errors import InputError


def named_models(given: Sequence[str], option: str, taken: Iterable[str] = ()) -> dict[str, str]:
    """Each model by its name: of NAME=MODEL the name, of a file its stem, of a shipped model its own.

    Args:
        given: words of the command line.
        option: that took them, for errors.
        taken: names that other rows have.

    Raises:
        InputError: two models of one name.
    """
    found: dict[str, str] = {}
    for word in given:
        name, model = _name(word)
        if name in found or name in taken:
            raise InputError(
                f"{option} was given {word}: another row has the name {name}; expected NAME={model} with a unique name"
            )
        found[name] = model
    return found


def _name(word: str) -> tuple[str, str]:
    name, separator, model = word.partition("=")
    if separator and name and model and not Path(word).is_file():
        return name, model
    return Path(word).stem if Path(word).suffix else word, word
