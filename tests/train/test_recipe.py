"""Recipes: what is wrong is named, and what ships is right."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from train.errors import InputError
from train.models import FUSION_MODELS
from train.recipe import load_recipe

SHIPPED = sorted((Path(train.__file__).parent / "recipes").glob("*.toml"))
HEAD = 'name = "x"\nmodel = "ufuser"\nseed = 1\nvalidate_every = 2\n'
DATA = '[data]\nvalidation = "v.txt"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    names = (path.parent / recipe.data.validation).read_text(encoding="utf-8").split()
    assert recipe.model in FUSION_MODELS
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
        (HEAD + DATA + "cropp = 64\n", r"\[data\]: unknown key 'cropp'; expected one of validation, crop"),
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
