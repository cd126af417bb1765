"""The recipes of the paper's Table 2, and every shipped recipe for a step."""

from __future__ import annotations

import argparse
import importlib
import math
from pathlib import Path

import msgspec
import pytest
import torch

from ufuser import train
from ufuser.export.rewrite import rewrite
from ufuser.runtime.errors import InputError
from ufuser.train.checkpoint import load_model, save_checkpoint
from ufuser.train.data import Pair, PatchSampler
from ufuser.train.models import all_options, create, names
from ufuser.train.models.fnet import FNet, FNetPair
from ufuser.train.models.ufuser import UFuser
from ufuser.train.processes import SINGLE
from ufuser.train.recipe import Recipe, load_recipe
from ufuser.train.sections import EmmaRecipe
from ufuser.train.setup import Setup
from ufuser.train.split import Split
from ufuser.train.trainer import Run, Trainer

RECIPES = Path(train.__file__).parent / "recipes"
EVERY = sorted(RECIPES.rglob("*.toml"))
NO_RESTORMER = {"global_blocks": [0, 0, 0, 0], "local_blocks": [7, 7, 7, 8]}
NO_RESIDUAL = {"global_blocks": [1, 2, 1, 2], "local_blocks": [0, 0, 0, 0]}


def ablation(name: str) -> Recipe:
    return load_recipe(RECIPES / "ablations" / f"{name}.toml")


def differences(recipe: Recipe) -> dict[str, object]:
    """The values of a recipe that differ from those of ours.toml, as "section.key"."""
    ours, other = (msgspec.to_builtins(r) for r in (ablation("ours"), recipe))
    found = {}
    for section, value in other.items():
        if section in ("name", "text"):
            continue
        if isinstance(value, dict) and section != "network":
            found |= {f"{section}.{k}": v for k, v in value.items() if v != ours[section][k]}
        elif value != ours[section]:
            found[section] = value
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp1", {"objective.alpha2": 0.0}),
        ("exp2", {"objective.sensing": False}),
        ("exp3", {"objective.alpha2": 0.0, "objective.sensing": False}),
        ("exp4", {"network": NO_RESTORMER}),
        ("exp5", {"network": NO_RESIDUAL}),
    ],
)
def test_an_ablation_differs_only_in_what_the_paper_removes(name: str, expected: dict[str, object]) -> None:
    recipe = ablation(name)
    assert differences(recipe) == expected
    assert isinstance(recipe.objective, EmmaRecipe)
    assert recipe.objective.needs_sensing == (name != "exp3")


def test_the_networks_of_exp_4_and_5_are_as_large_as_the_full_one() -> None:
    """ "Ensuring consistent number of parameter by increasing the remaining blocks number" (section 4.1.2)."""
    counts = {}
    for name in ("ours", "exp4", "exp5"):
        with torch.device("meta"):
            model = create("ufuser", ablation(name).network)
        counts[name] = sum(p.numel() for p in model.parameters())
        kinds = {type(m).__name__ for m in model.modules()}
        assert ("GlobalFeature" in kinds) == (name != "exp4")
        assert ("ResidualBlock" in kinds) == (name != "exp5")
    assert counts == {"ours": 1_517_657, "exp4": 1_514_649, "exp5": 1_548_313}  # as the recipes say


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random A_i and A_v."""
    torch.manual_seed(1)
    paths = {f"sensing_{side}": tmp_path_factory.mktemp("A") / f"{side}.safetensors" for side in ("ir", "vi")}
    for path in paths.values():
        state = create("pseudo_sensing", {"width": 2}).state_dict()
        save_checkpoint(path, state, "pseudo_sensing", "", {}, {"width": 2})
    return paths


@pytest.mark.parametrize("path", EVERY, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_recipe_trains_a_step(path: Path, project: Path, modules: dict[str, Path]) -> None:
    """With all its numbers but the sizes of patch and batch, which cost time."""
    recipe = load_recipe(path)
    replace = msgspec.structs.replace
    sensing = recipe.command == "sensing"
    # A pseudo-sensing module halves four times, and its norms need more than one place.
    data = replace(recipe.data, crop=32 if sensing else 16, margin=0)
    recipe = replace(recipe, data=data, optim=replace(recipe.optim, batch=1))
    if sensing:
        recipe = replace(recipe, network={"width": 2})
    if isinstance(recipe.objective, EmmaRecipe):
        recipe = replace(recipe, objective=replace(recipe.objective, equivariant_batch=0))
    torch.manual_seed(0)
    pairs = [Pair("b", project / "data/ir/b.png", project / "data/vi/b.png")]
    model = create(recipe.model, recipe.network)
    if isinstance(model, (FNet, FNetPair)):
        model.join_convolutions()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    given = modules if recipe.command == "emma" else dict.fromkeys(modules)
    args = argparse.Namespace(
        out=project / "out", pseudo=["mean"], teacher="lite", teacher_pictures=project / "teacher", **given
    )
    setup = Setup(recipe, model, torch.device("cpu"), SINGLE, Split(pairs, pairs), {})
    objective = importlib.import_module(f"ufuser.train.objectives.{recipe.command}")
    task = objective.prepare(setup, recipe.objective, args)
    trainer = Trainer(Run(recipe, task, args.out, setup.device, resume=False), model)
    terms = trainer._train_step()
    if (
        recipe.command == "fnet"
    ):  # the decoder of common features begins with zero: they move in the second step
        terms = trainer._train_step()
    assert terms
    assert all(math.isfinite(value) and value for value in terms.values())
    moved = [k for k, p in model.named_parameters() if not torch.equal(before[k], p)]
    # Queries and keys at full resolution have one channel a head: a softmax over one element has no gradient.
    assert len(moved) > 0.8 * len(list(model.parameters()))


@pytest.mark.parametrize("options", [NO_RESTORMER, NO_RESIDUAL, {"global_blocks": [2, 1, 0, 1]}])
def test_a_checkpoint_stores_the_options_of_its_network(tmp_path: Path, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model, path = create("ufuser", options).eval(), tmp_path / "x.safetensors"
    save_checkpoint(path, model.state_dict(), "ufuser", "", {}, all_options("ufuser", options))
    loaded, _ = load_model(path)
    ir, vi = torch.rand(1, 1, 16, 24), torch.rand(1, 1, 16, 24)
    with torch.no_grad():
        expected = model(ir, vi)
        assert torch.equal(loaded(ir, vi), expected)
        # What export makes of it is the same network, too.
        torch.testing.assert_close(rewrite(loaded)(ir, vi), expected, atol=1e-5, rtol=0)
    save_checkpoint(path, model.state_dict(), "ufuser", "", {})  # a checkpoint that doesn't say them
    with pytest.raises(InputError, match="does not fit UFuser: "):
        load_model(path)


def test_the_default_options_give_the_released_network() -> None:
    with torch.device("meta"):
        plain = UFuser().state_dict()
        message = create("ufuser", {"global_blocks": [1, 1, 1, 1], "local_blocks": [2, 2, 2, 2]}).state_dict()
    assert {k: v.shape for k, v in message.items()} == {k: v.shape for k, v in plain.items()}
    assert all_options("ufuser", {}) == {"global_blocks": (1, 1, 1, 1), "local_blocks": (2, 2, 2, 2)}


def test_the_ablations_see_the_same_patches(project: Path) -> None:
    """Same seed, same data, another method."""
    pair = Pair("a", project / "data/ir/b.png", project / "data/vi/b.png")
    first = None
    for path in sorted((RECIPES / "ablations").glob("*.toml")):
        recipe = load_recipe(path)
        assert recipe.model in names("fusion")
        batch = PatchSampler([pair], msgspec.structs.replace(recipe.data, crop=32), recipe.seed).batch(0, 1)[
            0
        ]
        first = batch if first is None else first
        assert (batch == first).all()
