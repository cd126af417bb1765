"""Recipes: what is wrong is named, and what ships is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser import train
from ufuser.runtime.errors import InputError
from ufuser.train.models import create, kinds_for
from ufuser.train.recipe import load_recipe, paradigm_of

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
    names = (path.parent / recipe.data.validation).read_text(encoding="utf-8").split()
    assert recipe.model in kinds_for(paradigm_of(recipe))
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
    ("text", "said"),
    [
        (HEAD + "sed = 1\n" + DATA, r"unknown key 'sed'; expected name, model"),
        (HEAD.replace("seed = 1", "seed = 1.5") + DATA, r"'seed' must be given as int, got 1\.5"),
        (HEAD.replace("seed = 1", "seed = true") + DATA, r"'seed' must be given as int, got True"),
        (HEAD.replace("seed = 1", "seed = -1") + DATA, r"'seed' must be from 0"),
        (HEAD.replace("seed = 1\n", "") + DATA, r"'seed' must be given as int, got None"),
        (HEAD.replace('"ufuser"', "3") + DATA, r"'model' must be given as str, got 3"),
        (
            HEAD.replace("validate_every = 2", "validate_every = 0") + DATA,
            r"'validate_every' must be at least 1",
        ),
        (HEAD + "data = 3\n", r"\[data\]: expected a table, got 3"),
        (HEAD, r"\[data\]: 'validation' must name a file"),
        (
            HEAD + DATA + "cropp = 64\n",
            r"\[data\]: unknown key 'cropp'; expected one of validation, validate_on, crop",
        ),
        (HEAD + DATA + "crop = 64.0\n", r"\[data\]: 'crop' must be a int, got 64\.0"),
        (HEAD + DATA + "crop = 8\n", r"\[data\]: 'crop' must be at least 16, got 8"),
        (HEAD + DATA + "crop = 20\n", r"\[data\]: 'crop' must be a multiple of 8, got 20"),
        (HEAD + DATA + "noise = true\n", r"\[data\]: 'noise' must be a float, got True"),
        (HEAD + DATA + 'noise = "little"\n', r"\[data\]: 'noise' must be a float, got 'little'"),
        (HEAD + DATA + "noise = nan\n", r"\[data\]: 'noise' must be at least 0, got nan"),
        (HEAD + DATA + "invert = 1.5\n", r"\[data\]: 'invert' must be from 0 to 1, got 1\.5"),
        (HEAD + DATA + "gamma = 1.0\n", r"\[data\]: 'gamma' must be a list of two numbers, got 1\.0"),
        (HEAD + DATA + "gamma = [1.0]\n", r"\[data\]: 'gamma' must be a list of two numbers"),
        (HEAD + DATA + "gamma = [1.0, true]\n", r"\[data\]: 'gamma' must be a list of two numbers"),
        (HEAD + DATA + "gamma = [0.0, 1.0]\n", r"\[data\]: 'gamma' must be from 0\.001"),
        (HEAD + DATA + "scale = [1.0, 0.5]\n", r"\[data\]: 'scale' must be given as \[lowest, highest\]"),
        (HEAD + DATA + "[loss]\nssim = -1\n", r"\[loss\]: 'ssim' must be at least 0, got -1"),
        (HEAD + DATA + "[optim]\nsteps = 0\n", r"\[optim\]: 'steps' must be at least 1, got 0"),
        (HEAD + DATA + "[optim]\nlearning_rate = inf\n", r"\[optim\]: 'learning_rate' must be at least"),
        (HEAD + DATA + "[optim\n", r"is not valid TOML"),
        (HEAD + "network = 3\n" + DATA, r"\[network\]: expected a table, got 3"),
        (HEAD + DATA + "shared_jitter = 1\n", r"\[data\]: 'shared_jitter' must be a bool, got 1"),
        (HEAD + DATA + "margin = 65\n", r"\[data\]: 'margin' must be from 0 to 64, got 65"),
        (
            HEAD + DATA + '[sensing]\ntarget = "uv"\n',
            r"\[sensing\]: 'target' must be one of ir, vi, got 'uv'",
        ),
        (HEAD + DATA + '[sensing]\nloss = "l2"\n', r"\[sensing\]: 'loss' must be one of mse, l1, got 'l2'"),
        (HEAD + DATA + "[sensing]\n[emma]\n", r"has both \[sensing\] and \[emma\]"),
        (HEAD + DATA + "invert = 0.1\n[sensing]\n", r"'invert' would part a fused image from its source"),
        (HEAD + DATA + "[emma]\nalpha2 = -1\n", r"\[emma\]: 'alpha2' must be at least 0, got -1"),
        (HEAD + DATA + "[emma]\nequivariant_batch = 0.5\n", r"'equivariant_batch' must be a int, got 0\.5"),
        (
            HEAD + DATA + "[emma]\nalpha0 = 0\nalpha1 = 0\nalpha2 = 0\n"
            "[loss]\nintensity = 0\ngradient = 0\nssim = 0\n",
            r"every term of the loss has the weight 0",
        ),
        (HEAD + DATA + '[transforms]\nmode = "half"\n', r"'mode' must be one of sampled, full, got 'half'"),
        (HEAD + DATA + "[transforms]\ncount = 0\n", r"\[transforms\]: 'count' must be from 1 to 64, got 0"),
        (
            HEAD + DATA + "[transforms]\nshifts = 0\nrotations = 0\nreflections = 0\n",
            r"'shifts', 'rotations' and 'reflections' are all 0",
        ),
        (HEAD + DATA + '[optim]\nprecision = "fp16"\n', r"'precision' must be one of fp32, bf16, got 'fp16'"),
        (HEAD + DATA + '[optim]\nschedule = "step"\n', r"'schedule' must be one of cosine, halving, got"),
        (HEAD + DATA + '[optim]\nschedule = "halving"\n', r"'halve_every' must be given with schedule"),
        (
            HEAD + DATA + "[optim]\nhalve_every = 500\n",
            r"'halve_every' must be given with .*got 'cosine' and 500",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        load_recipe(write(tmp_path, text))
    assert "r.toml" in str(error.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read recipe .*r\.toml: No such file"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"r\.toml is not valid TOML"):
        load_recipe(tmp_path / "r.toml")
