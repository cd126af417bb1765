"""Recipes: every number of a training run, read from TOML."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ufuser.runtime import structs
from ufuser.runtime.errors import InputError

from .objectives import DIRECT, OBJECTIVES
from .sections import CommonRecipe, ObjectiveRecipe

RECIPES = Path(__file__).parent / "recipes"
"""The shipped recipes."""


class Recipe(CommonRecipe, frozen=True, kw_only=True):
    """One training run."""

    command: str
    """Name of the objective (`objectives.OBJECTIVES`): the subcommand that takes the recipe."""
    objective: ObjectiveRecipe
    text: str
    """The TOML as read; stored in the checkpoint."""


_File = msgspec.defstruct(
    "_File",
    [(name, entry.recipe | None, None) for name, entry in OBJECTIVES.items() if name != DIRECT],
    bases=(CommonRecipe,),
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
)
"""The keys of a file: the common ones, and the section of one objective or none."""


def find_recipe(wanted: Path) -> Path:
    """A file, or a shipped recipe by its name (`ufuser_direct`, `ablations/exp1`). Raises InputError."""
    shipped = RECIPES / f"{wanted}.toml"
    if wanted.suffix or wanted.is_file():
        return wanted
    if not shipped.is_file():
        names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise InputError(f"recipe={wanted}: expected a .toml file or one of {names}", "recipe")
    return shipped


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InputError naming the file and the key that is wrong."""
    text = structs.read_text(path, "TOML")
    content = structs.convert(structs.parse_toml(text, str(path)), _File, str(path))
    common = {name: getattr(content, name) for name in CommonRecipe.__struct_fields__}
    given = {name: getattr(content, name, None) for name in OBJECTIVES}
    sections = [(name, section) for name, section in given.items() if section is not None]
    if len(sections) > 1:
        names = " and ".join(f"[{name}]" for name, _ in sections)
        raise InputError(
            f"{path} has {names}: expected the section of one objective, a recipe for each training"
        )
    command, objective = sections[0] if sections else (DIRECT, OBJECTIVES[DIRECT].recipe())
    recipe = Recipe(**common, command=command, objective=objective, text=text)
    try:
        objective.check(recipe)
    except ValueError as e:
        raise InputError(f"{path} [{command}]: {e}") from None
    return recipe
