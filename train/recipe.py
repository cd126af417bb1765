"""Recipes: every number of a training run, read from TOML into frozen dataclasses."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ufuser.runtime.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


@dataclass(frozen=True)
class DataRecipe:
    """Where patches come from and what happens to them before the network sees them."""

    validation: str = ""  # a file beside the recipe with one pair's stem a line; kept out of training
    validate_on: int = 0  # only the first so many of them are looked at in training; 0 is all
    crop: int = 128  # patch edge in pixels, a multiple of 8
    cache_mib: int = 2048  # decoded images kept in memory up to this
    scale: tuple[float, float] = (0.5, 1.0)  # random shrinking: detail as fine as the pixel grid carries
    gamma: tuple[float, float] = (1.0, 1.0)  # random exponent, each source on its own (log-uniform)
    gain: tuple[float, float] = (1.0, 1.0)  # random factor, each source on its own (log-uniform)
    noise: float = 0.0  # largest standard deviation of added noise, in [0, 1] units
    invert: float = 0.0  # probability of black-hot infrared
    dark: float = 0.0  # probability of a visible picture in low light: a tenth to a half of its level
    blur: float = 0.0  # largest standard deviation of blur in pixels, each source on its own
    shared_jitter: bool = False  # one exponent and factor for both images: they stay each other's picture
    margin: int = 0  # pixels at the border that no patch takes, as far as an image has room


@dataclass(frozen=True)
class LossRecipe:
    """Weights of the direct loss's terms (`losses.DirectLoss`)."""

    intensity: float = 1.0
    gradient: float = 1.0
    ssim: float = 1.0
    target: str = "lift"  # of the intensity term: "lift" or "contrast" (`losses.intensity_target`)
    infrared_exponent: float = 0.0  # "lift": p of v + i^p (i − v)₊; 0 is the pixel maximum
    warm: float = 1.0  # "contrast": share of infrared's excess over its median
    cold: float = 0.8  # "contrast": share of what it lacks to its median


@dataclass(frozen=True)
class SensingRecipe:
    """What a pseudo-sensing module learns (`sensing.SensingObjective`)."""

    target: str = "ir"  # "ir" for A_i, "vi" for A_v
    loss: str = "mse"  # "mse" (release) or "l1" (paper)


@dataclass(frozen=True)
class EmmaRecipe:
    """Weights of Eq. (4): alpha0·L(A_i f, i) + alpha1·L(A_v f, v) + alpha2·L(T f, F(A_i T f, A_v T f))."""

    alpha0: float = 1.0  # 1 in paper and release
    alpha1: float = 1.0  # 1 in paper and release
    alpha2: float = 0.1  # 10 in the paper, 0.1 in the release
    gradient: float = 0.0  # L = L1 + this · L1 of Sobel gradients; 0 is the paper's, 0.5 the release's
    sensing: bool = True  # False compares f itself with i and v (the paper's Exp. II)
    equivariant_batch: int = 0  # images of the batch that the third term takes; 0 is all
    target_gradient: bool = True  # whether the third term pulls T f, too, towards the re-fused image
    input_gradient: bool = True  # whether it reaches f through A_i and A_v; without, only through F


@dataclass(frozen=True)
class DaeFuseRecipe:
    """A phase of DAE-Fuse (`adversarial`). The paper gives none of these numbers, but 1, 1, 1 in Eq. (13)."""

    phase: int = 1  # 1: autoencoder, Eq. (6); 2: fusion, Eq. (13)
    adversarial: float = 0.0  # λ of phase one; the weight of Eq. (14) in phase two
    correlation: float = 0.0  # phase one: σ, and 1 − σ for the content
    texture: float = 0.0  # phase two: of Eq. (15)
    intensity: float = 0.0  # phase two: of Eq. (16)
    discriminator_rate: float = 1e-4  # Adam's, constant
    discriminator_width: int = 16  # channels of the first of four layers


@dataclass(frozen=True)
class FNetRecipe:
    """A stage of FNet's training (`fnet`): weights of Eq. (25) or Eq. (26)."""

    stage: int = 1  # 1: FNet and IFNet recover both sources; 2: FNet against both sources
    intensity: float = 1.0  # 1 in stage I, 20 in stage II
    gradient: float = 1.0  # likewise; of Sobel kernels 1-2-1, which give 4 at a unit step
    ssim: float = 0.0  # 15 in stage II; stage I has no such term


@dataclass(frozen=True)
class DistillRecipe:
    """What a student learns of its teacher (`distill.DistillObjective`)."""

    variants: int = 4  # pictures of each pair that the teacher answers to: itself, the rest with other tones
    level: float = 1.0  # weight of L1 to the teacher's picture
    gradient: float = 1.0  # and of L1 to its Sobel gradients
    steady: float = 0.0  # of how much of the sources' noise passes on to its own picture (`noise_passed_on`)
    shake: float = 0.02  # that noise's standard deviation, in [0, 1] units
    sensing: float = 0.0  # of L1 between each source and what A_i or A_v sees in the student's picture


@dataclass(frozen=True)
class TransformRecipe:
    """The transformation group of the third term (`transforms.TransformationGroup`)."""

    mode: str = "sampled"  # "sampled": random ones per image; "full": the release's ten of each image
    count: int = 1  # sampled: transformations per image
    shifts: int = 3  # full: how many; sampled: 0 leaves the kind out, and so below
    rotations: int = 3  # full: from 10° on, evenly; sampled: any angle
    reflections: int = 3  # the first n of horizontal, vertical, both
    right_angles: bool = False  # rotations by multiples of 90° only: no interpolation, no border


@dataclass(frozen=True)
class OptimRecipe:
    """How the weights are stepped."""

    steps: int = 10_000
    batch: int = 4
    learning_rate: float = 1e-3  # Adam's, after a linear warm-up
    warmup: int = 200  # steps
    schedule: str = "cosine"  # then: "cosine" to a hundredth at the last step, or "halving" (paper, release)
    halve_every: int = 0  # steps, counted from the first one; for "halving"
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are the ones kept
    precision: str = "fp32"  # or "bf16": mixed precision, for devices with bfloat16 arithmetic


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    model: str
    seed: int
    validate_every: int
    network: dict[str, object]  # options of the model, as its class takes them (`models.create`)
    data: DataRecipe
    loss: LossRecipe
    sensing: SensingRecipe | None  # None where the recipe has no such section: it is of another paradigm
    emma: EmmaRecipe | None
    daefuse: DaeFuseRecipe | None
    fnet: FNetRecipe | None
    distill: DistillRecipe | None
    transforms: TransformRecipe
    optim: OptimRecipe
    text: str  # the TOML as read; stored in the checkpoint


SECTIONS: dict[str, type] = {
    "data": DataRecipe,
    "loss": LossRecipe,
    "sensing": SensingRecipe,
    "emma": EmmaRecipe,
    "daefuse": DaeFuseRecipe,
    "fnet": FNetRecipe,
    "distill": DistillRecipe,
    "transforms": TransformRecipe,
    "optim": OptimRecipe,
}
PARADIGMS = (
    "sensing",
    "emma",
    "daefuse",
    "fnet",
    "distill",
)  # sections that make a recipe one of a paradigm; without one it is direct
Section = TypeVar("Section")

# The allowed range of what a number alone can get wrong: lowest, highest. All numbers are finite anyway.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "": {"seed": (0, 2**63 - 1), "validate_every": (1, math.inf)},
    "data": {
        "validate_on": (0, math.inf),
        "crop": (16, math.inf),
        "cache_mib": (0, math.inf),
        "scale": (1e-3, 4),
        "gamma": (1e-3, 1e3),
        "gain": (1e-3, 1e3),
        "noise": (0, math.inf),
        "invert": (0, 1),
        "dark": (0, 1),
        "blur": (0, 16),
        "margin": (0, 64),
    },
    "loss": dict.fromkeys(
        ("intensity", "gradient", "ssim", "infrared_exponent", "warm", "cold"), (0, math.inf)
    ),
    "emma": dict.fromkeys(("alpha0", "alpha1", "alpha2", "gradient", "equivariant_batch"), (0, math.inf)),
    "fnet": {"stage": (1, 2), **dict.fromkeys(("intensity", "gradient", "ssim"), (0, math.inf))},
    "daefuse": {
        "phase": (1, 2),
        "adversarial": (0, math.inf),
        "correlation": (0, 1),
        "texture": (0, math.inf),
        "intensity": (0, math.inf),
        "discriminator_rate": (1e-12, math.inf),
        "discriminator_width": (1, 1024),
    },
    "distill": {
        "variants": (1, 1000),
        "level": (0, math.inf),
        "gradient": (0, math.inf),
        "steady": (0, math.inf),
        "sensing": (0, math.inf),
        "shake": (1e-4, 1),
    },
    "transforms": {"count": (1, 64), "shifts": (0, 64), "rotations": (0, 64), "reflections": (0, 3)},
    "optim": {
        "steps": (1, math.inf),
        "batch": (1, math.inf),
        "learning_rate": (1e-12, math.inf),
        "warmup": (0, math.inf),
        "halve_every": (0, math.inf),
        "clip": (1e-12, math.inf),
        "ema": (0, 1),
    },
}

CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("loss", "target"): ("lift", "contrast"),
    ("sensing", "target"): ("ir", "vi"),
    ("sensing", "loss"): ("mse", "l1"),
    ("transforms", "mode"): ("sampled", "full"),
    ("optim", "schedule"): ("cosine", "halving"),
    ("optim", "precision"): ("fp32", "bf16"),
}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_ranges(table: dict[str, Any], section: str, where: str) -> None:
    for key, (low, high) in RANGES.get(section, {}).items():
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
        elif isinstance(value, bool) is not isinstance(default, bool) or not isinstance(
            value, (int, float) if isinstance(default, float) else type(default)
        ):
            raise InputError(f"{where}: '{key}' must be a {type(default).__name__}, got {value!r}")
        choices = CHOICES.get((section, key))
        if choices and value not in choices:
            raise InputError(f"{where}: '{key}' must be one of {', '.join(choices)}, got {value!r}")
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
    scalars: dict[str, type] = {"name": str, "model": str, "seed": int, "validate_every": int}
    for key in table:
        if key not in SECTIONS and key not in scalars and key != "network":
            expected = ", ".join([*scalars, "network", *SECTIONS])
            raise InputError(f"{path}: unknown key '{key}'; expected {expected}")
    for key, kind in scalars.items():
        if not isinstance(table.get(key), kind) or isinstance(table.get(key), bool):
            raise InputError(f"{path}: '{key}' must be given as {kind.__name__}, got {table.get(key)!r}")
    _check_ranges(table, "", str(path))
    network = table.get("network", {})
    if not isinstance(network, dict):
        raise InputError(f"{path} [network]: expected a table, got {network!r}")
    parts: dict[str, Any] = {
        name: None
        if name in PARADIGMS and name not in table
        else _section(kind, table.get(name, {}), name, f"{path} [{name}]")
        for name, kind in SECTIONS.items()
    }
    recipe = Recipe(**{k: table[k] for k in scalars}, network=network, **parts, text=text)
    _check_together(recipe, path)
    return recipe


def paradigm_of(recipe: Recipe) -> str:
    """The section that makes it one of a paradigm, or "" for direct training."""
    return next((name for name in PARADIGMS if getattr(recipe, name) is not None), "")


def _check_together(recipe: Recipe, path: Path) -> None:
    """What no key gets wrong on its own."""
    if recipe.data.crop % 8:
        raise InputError(f"{path} [data]: 'crop' must be a multiple of 8, got {recipe.data.crop}")
    if not recipe.data.validation:
        raise InputError(f"{path} [data]: 'validation' must name a file with one pair's stem a line")
    if (recipe.optim.schedule == "halving") != bool(recipe.optim.halve_every):
        raise InputError(
            f"{path} [optim]: 'halve_every' must be given with schedule = \"halving\", and only with it; "
            f"got {recipe.optim.schedule!r} and {recipe.optim.halve_every}"
        )
    given = [name for name in PARADIGMS if getattr(recipe, name) is not None]
    if len(given) > 1:
        raise InputError(
            f"{path} has both [{given[0]}] and [{given[1]}]: these are two trainings, with a recipe each"
        )
    if recipe.sensing and recipe.data.invert:
        raise InputError(f"{path} [data]: 'invert' would part a fused image from its source; expected 0")
    if recipe.distill and not (recipe.distill.level or recipe.distill.gradient):
        raise InputError(
            f"{path} [distill]: 'level' and 'gradient' are both 0: nothing of the teacher is learnt"
        )
    if recipe.fnet:
        _check_fnet(recipe, recipe.fnet, path)
    if recipe.daefuse:
        _check_daefuse(recipe, recipe.daefuse, path)
    group = recipe.transforms
    if not (group.shifts or group.rotations or group.reflections):
        raise InputError(f"{path} [transforms]: 'shifts', 'rotations' and 'reflections' are all 0")
    if recipe.emma:
        weights = recipe.emma.alpha0, recipe.emma.alpha1, recipe.emma.alpha2
        if not any((*weights, recipe.loss.intensity, recipe.loss.gradient, recipe.loss.ssim)):
            raise InputError(f"{path}: every term of the loss has the weight 0")


def _check_daefuse(recipe: Recipe, own: DaeFuseRecipe, path: Path) -> None:
    where = f"{path} [daefuse]"
    if recipe.model != "daefuse":
        raise InputError(f"{where} trains the model 'daefuse', got '{recipe.model}'")
    if recipe.optim.precision != "fp32":
        raise InputError(f"{where}: [optim] 'precision' must be fp32, got {recipe.optim.precision!r}")
    if own.phase == 1 and (own.texture or own.intensity):
        raise InputError(f"{where}: 'texture' and 'intensity' belong to phase 2")
    if own.phase == 2 and own.correlation:
        raise InputError(f"{where}: 'correlation' belongs to phase 1")
    if own.phase == 2 and not (own.texture or own.intensity):
        raise InputError(f"{where}: phase 2 has neither 'texture' nor 'intensity'")


def _check_fnet(recipe: Recipe, own: FNetRecipe, path: Path) -> None:
    where = f"{path} [fnet]"
    expected = "fnet_pair" if own.stage == 1 else "fnet"
    if recipe.model != expected:
        raise InputError(f"{where} of stage {own.stage} trains the model '{expected}', got '{recipe.model}'")
    if own.stage == 1 and own.ssim:
        raise InputError(f"{where}: 'ssim' is a term of stage 2 alone, got {own.ssim} in stage 1")
    if not (own.intensity or own.gradient or own.ssim):
        raise InputError(f"{where}: every term of the loss has the weight 0")
