"""Recipes: error messages, and the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser import train
from ufuser.runtime.errors import InputError
from ufuser.train.models import MODELS, create
from ufuser.train.objectives import OBJECTIVES
from ufuser.train.recipe import load_recipe

SHIPPED = sorted((Path(train.__file__).parent / "recipes").rglob("*.toml"))
HEAD = 'name = "x"\nmodel = "ufuser"\nseed = 1\nvalidate_every = 2\n'
DATA = '[data]\nvalidation = "v.txt"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.data.validation is not None
    names = (path.parent / recipe.data.validation).read_text(encoding="utf-8").split()
    assert MODELS[recipe.model].kind in recipe.objective.kinds
    assert type(recipe.objective) is OBJECTIVES[recipe.command].recipe
    create(recipe.model, recipe.network)
    assert names
    assert len(names) == len(set(names))


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED  # or the test above tests nothing


def test_absent_sections_and_keys_take_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, HEAD + DATA + "scale = [1, 1]\n[optim]\nlearning_rate = 1\n"))
    assert (recipe.data.crop, recipe.data.scale) == (128, (1, 1))
    assert (recipe.optim.batch, recipe.optim.learning_rate, recipe.loss.ssim) == (4, 1, 1.0)
    assert recipe.text.startswith("name")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "sed = 1\n" + DATA, "unknown key 'sed' (did you mean 'seed'?)"),
        (HEAD + DATA + "[ema]\n", "unknown key 'ema' (did you mean 'emma'?)"),
        (HEAD + DATA + "[direct]\n", "unknown key 'direct', expected name, model, seed"),
        (HEAD.replace("seed = 1", "seed = 1.5") + DATA, "seed is 1.5: expected a whole number"),
        (HEAD.replace("seed = 1", "seed = true") + DATA, "seed is True: expected a whole number"),
        (HEAD.replace("seed = 1", "seed = -1") + DATA, "seed is -1: expected a whole number >= 0"),
        (HEAD.replace("seed = 1\n", "") + DATA, "the key 'seed' is missing"),
        (HEAD.replace('"ufuser"', "3") + DATA, "model is 3: expected text"),
        (HEAD.replace("every = 2", "every = 0") + DATA, "validate_every is 0: expected a whole number >= 1"),
        (HEAD + "data = 3\n", "data is 3: expected a table"),
        (HEAD, "the key 'data' is missing"),
        (HEAD + "[data]\nvalidation = 3\n", "data.validation is 3: expected text"),
        (HEAD + DATA + "cropp = 64\n", "unknown key 'data.cropp' (did you mean 'crop'?)"),
        (HEAD + DATA + "crop = 64.0\n", "data.crop is 64.0: expected a whole number"),
        (HEAD + DATA + "crop = 8\n", "data.crop is 8: expected a whole number >= 16"),
        (HEAD + DATA + "crop = 20\n", "data.crop is 20: expected a whole number that's a multiple of 8"),
        (HEAD + DATA + "noise = true\n", "data.noise is True: expected a number"),
        (HEAD + DATA + "noise = nan\n", "data.noise is nan: expected a number >= 0"),
        (HEAD + DATA + "noise = inf\n", "data.noise is inf: expected a number <= "),
        (HEAD + DATA + "invert = 1.5\n", "data.invert is 1.5: expected a number <= 1"),
        (HEAD + DATA + "gamma = 1.0\n", "data.gamma is 1.0: expected a list"),
        (HEAD + DATA + "gamma = [1.0]\n", "data.gamma is [1.0]: expected a list of length 2"),
        (HEAD + DATA + "gamma = [1.0, true]\n", "data.gamma[1] is True: expected a number"),
        (HEAD + DATA + "gamma = [0.0, 1.0]\n", "data.gamma[0] is 0.0: expected a number >= 0.001"),
        (HEAD + DATA + "scale = [1.0, 0.5]\n", "'scale' must be given as [lowest, highest], got [1, 0.5]"),
        (HEAD + DATA + "shared_jitter = 1\n", "data.shared_jitter is 1: expected true or false"),
        (HEAD + DATA + "margin = 65\n", "data.margin is 65: expected a whole number <= 64"),
        (HEAD + DATA + "[loss]\nssim = -1\n", "loss.ssim is -1: expected a number >= 0"),
        (HEAD + DATA + "[optim]\nsteps = 0\n", "optim.steps is 0: expected a whole number >= 1"),
        (HEAD + DATA + "[optim]\nlearning_rate = 0\n", "optim.learning_rate is 0: expected a number > 0"),
        (
            HEAD + DATA + '[optim]\nschedule = "step"\n',
            "optim.schedule is 'step': expected one of cosine, hal",
        ),
        (HEAD + DATA + '[optim]\nschedule = "halving"\n', "'halve_every' must be given with schedule"),
        (HEAD + DATA + "[optim]\nhalve_every = 500\n", "and only with it; got 'cosine' and 500"),
        (HEAD + DATA + "[optim\n", "is not TOML"),
        (HEAD + "network = 3\n" + DATA, "network is 3: expected a table"),
        (HEAD + DATA + '[sensing]\ntarget = "uv"\n', "sensing.target is 'uv': expected one of ir, vi"),
        (
            HEAD + DATA + "invert = 0.1\n[sensing]\n",
            "[sensing]: [data] 'invert' would separate a fused image",
        ),
        (
            HEAD + DATA + "[sensing]\n[emma]\n",
            "has [sensing] and [emma]: expected the section of one objective",
        ),
        (HEAD + DATA + "[emma]\nalpha2 = -1\n", "emma.alpha2 is -1: expected a number >= 0"),
        (
            HEAD + DATA + "[emma]\nalpha0 = 0\nalpha1 = 0\nalpha2 = 0\n"
            "[loss]\nintensity = 0\ngradient = 0\nssim = 0\n",
            "every term of the loss has the weight 0",
        ),
        (HEAD + DATA + "[distill]\nlevel = 0\ngradient = 0\n", "'level' and 'gradient' are both 0"),
        (HEAD + DATA + "[transforms]\ncount = 0\n", "transforms.count is 0: expected a whole number >= 1"),
        (
            HEAD + DATA + "[transforms]\nshifts = 0\nrotations = 0\nreflections = 0\n",
            "'shifts', 'rotations' and 'reflections' are all 0",
        ),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(write(tmp_path, text))
    assert "r.toml" in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*r\.toml: no such file"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"r\.toml is not TOML"):
        load_recipe(tmp_path / "r.toml")
