"""Recipes: every number of a training run, read from TOML into frozen dataclasses."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


@dataclass(frozen=True)
class DataRecipe:
    """Where patches come from and what happens to them before the network sees them."""

    validation: str = ""  # a file beside the recipe with one pair's stem a line; kept out of training
    crop: int = 128  # patch edge in pixels, a multiple of 8
    cache_mib: int = 2048  # decoded images kept in memory up to this
    scale: tuple[float, float] = (0.5, 1.0)  # random shrinking: detail as fine as the pixel grid carries
    gamma: tuple[float, float] = (1.0, 1.0)  # random exponent, each source on its own (log-uniform)
    gain: tuple[float, float] = (1.0, 1.0)  # random factor, each source on its own (log-uniform)
    noise: float = 0.0  # largest standard deviation of added noise, in [0, 1] units
    invert: float = 0.0  # probability of black-hot infrared


@dataclass(frozen=True)
class LossRecipe:
    """Weights of the direct loss's terms (`losses.DirectLoss`)."""

    intensity: float = 1.0
    gradient: float = 1.0
    ssim: float = 1.0
    infrared_exponent: float = 0.0  # p of the intensity target v + i^p (i − v)₊; 0 is the pixel maximum


@dataclass(frozen=True)
class OptimRecipe:
    """How the weights are stepped."""

    steps: int = 10_000
    batch: int = 4
    learning_rate: float = 1e-3  # Adam; linear warm-up, then cosine decay to a hundredth
    warmup: int = 200  # steps
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are the ones kept


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    model: str
    seed: int
    validate_every: int
    data: DataRecipe
    loss: LossRecipe
    optim: OptimRecipe
    text: str  # the TOML as read; stored in the checkpoint


Section = TypeVar("Section")

# The allowed range of what a number alone can get wrong: lowest, highest. All numbers are finite anyway.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "": {"seed": (0, 2**63 - 1), "validate_every": (1, math.inf)},
    "data": {
        "crop": (16, math.inf),
        "cache_mib": (0, math.inf),
        "scale": (1e-3, 4),
        "gamma": (1e-3, 1e3),
        "gain": (1e-3, 1e3),
        "noise": (0, math.inf),
        "invert": (0, 1),
    },
    "loss": dict.fromkeys(("intensity", "gradient", "ssim", "infrared_exponent"), (0, math.inf)),
    "optim": {
        "steps": (1, math.inf),
        "batch": (1, math.inf),
        "learning_rate": (1e-12, math.inf),
        "warmup": (0, math.inf),
        "clip": (1e-12, math.inf),
        "ema": (0, 1),
    },
}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_ranges(table: dict[str, Any], section: str, where: str) -> None:
    for key, (low, high) in RANGES[section].items():
        if key not in table:
            continue
        value = table[key]
        numbers = value if isinstance(value, list) else [value]
        if not all(math.isfinite(x) and low <= x <= high for x in numbers):
            limit = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise InputError(f"{where}: '{key}' must be {limit}, got {value!r}")
        if numbers != sorted(numbers):
            raise InputError(f"{where}: '{key}' must be given as [lowest, highest], got {value!r}")


def _section(kind: type[Section], table: Any, section: str, where: str) -> Section:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a table, got {table!r}")
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'; expected one of {', '.join(known)}")
        default = known[key].default
        if isinstance(default, tuple):
            if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
                raise InputError(f"{where}: '{key}' must be a list of two numbers, got {value!r}")
        elif isinstance(value, bool) or not isinstance(
            value, (int, float) if isinstance(default, float) else type(default)
        ):
            raise InputError(f"{where}: '{key}' must be a {type(default).__name__}, got {value!r}")
    _check_ranges(table, section, where)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InputError naming the file and the key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as e:
        raise InputError(f"cannot read recipe {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"recipe {path} is not valid TOML: {e}") from None
    sections = {"data": DataRecipe, "loss": LossRecipe, "optim": OptimRecipe}
    scalars: dict[str, type] = {"name": str, "model": str, "seed": int, "validate_every": int}
    for key in table:
        if key not in sections and key not in scalars:
            raise InputError(f"{path}: unknown key '{key}'; expected {', '.join([*scalars, *sections])}")
    for key, kind in scalars.items():
        if not isinstance(table.get(key), kind) or isinstance(table.get(key), bool):
            raise InputError(f"{path}: '{key}' must be given as {kind.__name__}, got {table.get(key)!r}")
    _check_ranges(table, "", str(path))
    parts: dict[str, Any] = {
        name: _section(kind, table.get(name, {}), name, f"{path} [{name}]") for name, kind in sections.items()
    }
    recipe = Recipe(**{k: table[k] for k in scalars}, **parts, text=text)
    if recipe.data.crop % 8:
        raise InputError(f"{path} [data]: 'crop' must be a multiple of 8, got {recipe.data.crop}")
    if not recipe.data.validation:
        raise InputError(f"{path} [data]: 'validation' must name a file with one pair's stem a line")
    return recipe
