"""Distillation: the teacher's pictures, the student's loss, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_float, read_grey
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import read_checkpoint, save_checkpoint
from ufuser.train.data import PatchSampler, find_pairs
from ufuser.train.losses import DirectLoss
from ufuser.train.models import create
from ufuser.train.networks import Network
from ufuser.train.objectives.distill import DistillObjective, TeacherPictures, find_teacher, student_data
from ufuser.train.processes import SINGLE, Processes
from ufuser.train.recipe import load_recipe
from ufuser.train.sections import DistillRecipe, LossRecipe

RECIPE = """
name = "tiny-lite"
model = "lite"
seed = 3
validate_every = 2

[network]
width = 4
depth = 1

[data]
validation = "validation.txt"
crop = 16
gamma = [0.5, 2.0]
gain = [0.5, 1.5]
invert = 0.5
dark = 0.5
blur = 1.0
noise = 0.1

[distill]
variants = 3
steady = 0.1

[optim]
steps = 4
batch = 2
warmup = 1
"""
CPU = torch.device("cpu")


class Mean(torch.nn.Module):
    """A teacher with a known output."""

    def forward(self, ir: torch.Tensor, vi: torch.Tensor) -> torch.Tensor:
        return (ir + vi) / 2


@pytest.fixture
def student(project: Path) -> Path:
    """`project` with lite.toml and a small random teacher, teacher.safetensors."""
    (project / "lite.toml").write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(2)
    options = {"width": 6, "depth": 1}
    state = create("lite", options).state_dict()
    save_checkpoint(project / "teacher.safetensors", state, "lite", "", {}, options)
    return project


def pictures(project: Path, folder: str = "teacher", digest: str = "0", **data: object) -> TeacherPictures:
    recipe = load_recipe(project / "lite.toml")
    recipe = replace(recipe, data=replace(recipe.data, **data))  # type: ignore[arg-type]
    return TeacherPictures(project / folder, recipe, Mean(), digest, CPU)


def words(project: Path, *more: object) -> list[str]:
    given = ["distill", "--recipe", project / "lite.toml", "--data", project / "data", "--threads", 1]
    return [*map(str, [*given, "--teacher", project / "teacher.safetensors", *more])]


def test_the_teacher_runs_on_each_pair_and_its_variants(student: Path) -> None:
    pairs = find_pairs(student / "data")
    made = pictures(student).write(pairs, 3, print)
    assert len(made) == 12
    levels = []
    for example in made:
        ir, vi, target = (as_float(read_grey(p)) for p in example.images)
        assert ir.shape == vi.shape == target.shape
        assert np.abs(target - (ir + vi) / 2).max() <= 0.5 / 255 + 1e-6  # of what the files hold
        levels.append(float(vi.mean()))
    plain = made[0]
    assert np.array_equal(read_grey(plain.ir), read_grey(pairs[0].ir))
    assert np.array_equal(read_grey(plain.vi), read_grey(pairs[0].vi))
    assert len({round(level, 3) for level in levels[:3]}) == 3  # variants of one pair differ


def test_existing_pictures_are_kept(student: Path) -> None:
    pairs = find_pairs(student / "data")
    made = pictures(student).write(pairs[:1], 2, print)
    before = [p.stat().st_mtime_ns for e in made for p in e.images]
    made[1].target.unlink()  # as an interruption leaves it: the teacher's picture comes last
    again = pictures(student).write(pairs[:1], 2, print)
    assert [p.stat().st_mtime_ns for e in again for p in e.images][:3] == before[:3]
    assert again[1].target.is_file()


def test_pictures_of_another_teacher_or_recipe_are_refused(student: Path) -> None:
    pairs = find_pairs(student / "data")[:1]
    pictures(student).write(pairs, 1, print)
    pictures(student, crop=32).write(pairs, 1, print)  # of patches alone: the same pictures
    for other in (pictures(student, digest="1"), pictures(student, invert=0.1)):
        with pytest.raises(InputError, match="of another teacher or recipe: give another --teacher-pictures"):
            other.write(pairs, 1, print)
    (student / "taken").mkdir()
    (student / "taken" / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds other files"):
        pictures(student, "taken").write(pairs, 1, print)


def test_patches_come_from_one_place_and_only_the_sources_are_noisy(student: Path) -> None:
    made = pictures(student).write(find_pairs(student / "data"), 3, print)
    recipe = load_recipe(student / "lite.toml")
    data = student_data(recipe.data)
    ir, vi, target = PatchSampler(made, replace(data, noise=0.0), 1).batch(0, 4)
    assert ir.shape == vi.shape == target.shape == (4, 1, 16, 16)
    # Images smaller than a patch are enlarged, of which rounding to levels is a part.
    assert np.abs(target - (ir + vi) / 2).max() <= 1 / 255
    noisy = PatchSampler(made, data, 1).batch(0, 4)
    assert np.abs(noisy[1] - vi).max() > 0.01
    assert np.allclose(noisy[2].mean((1, 2, 3)), target.mean((1, 2, 3)), atol=0.1)


def test_the_loss_is_the_distance_to_the_teacher_and_the_direct_terms() -> None:
    torch.manual_seed(0)
    ir, vi, target = torch.rand(3, 2, 1, 24, 24)
    direct = LossRecipe(intensity=0.5, gradient=0.0, ssim=0.25)
    objective = DistillObjective(DistillRecipe(level=2.0, gradient=0.0), direct)
    rng = np.random.default_rng(0)
    terms = objective.train(Mean(), (ir, vi, target), rng)
    fused = (ir + vi) / 2
    assert torch.isclose(terms["level"], 2 * (fused - target).abs().mean())
    expected = DirectLoss(direct)(fused, ir, vi)
    assert torch.isclose(terms["ssim"], expected["ssim"])
    assert "gradient" not in terms
    learnt, shown = objective.validate(Mean(), (ir, vi, fused), rng)
    assert learnt["level"] == 0
    assert learnt["detail"] == 0
    assert [x.shape[1] for x in shown] == [1, 1, 1, 1]


def test_the_steady_term_measures_the_noise_passed_on() -> None:
    ir, vi, target = torch.rand(3, 4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    images, direct = (ir, vi, target), LossRecipe(intensity=0, gradient=0, ssim=0)

    def term(network: Network, recipe: DistillRecipe, processes: Processes = SINGLE) -> float:
        objective = DistillObjective(recipe, direct, processes)
        part = [x[processes.part] for x in images]
        terms = objective.train(network, part, np.random.default_rng(1))
        return float(terms["steady"])

    whole = DistillRecipe(steady=1.0, shake=0.05)
    assert term(Mean(), whole) == pytest.approx(0.5**0.5, rel=0.03)
    assert term(lambda ir, vi: vi, whole) == pytest.approx(1, rel=0.03)
    assert term(lambda ir, vi: ir + vi, replace(whole, steady=0.1)) == pytest.approx(
        0.2**0.5 / 10**0.5, rel=0.03
    )
    assert term(lambda ir, vi: torch.zeros_like(ir), whole) == 0
    # Two processes that share the batch see together what one does.
    parts = [term(Mean(), whole, Processes(rank, 2)) for rank in range(2)]
    assert np.mean(parts) == pytest.approx(term(Mean(), whole), rel=1e-5)
    assert parts[0] != parts[1]


def test_the_sensing_terms_compare_with_the_sources() -> None:
    """EMMA's L1 between each source and its module's picture, none of the terms of weight 0 computed."""
    ir, vi, target = torch.rand(3, 2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    images, direct = (ir, vi, target), LossRecipe(intensity=0, gradient=0, ssim=0)
    modules = (lambda f: 2 * f - vi, torch.zeros_like)
    objective = DistillObjective(DistillRecipe(sensing=0.5), direct, SINGLE, modules)
    terms = objective.train(Mean(), images, np.random.default_rng(0))
    assert terms["sensing_ir"] < 1e-6
    assert torch.isclose(terms["sensing_vi"], vi.mean() / 2)
    for weight, given in ((0.5, ()), (0.0, modules)):
        with pytest.raises(InputError, match="expected --sensing-ir and --sensing-vi where it is above 0"):
            DistillObjective(DistillRecipe(sensing=weight), direct, SINGLE, given)


def test_a_run_from_the_command_line_and_its_resumption(
    student: Path,
    ctrl_c_before: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(student, "--out", student / "whole", "--teacher-pictures", student / "teacher")) == 0
    assert "to make in" in capsys.readouterr().out
    weights, notes = read_checkpoint(student / "whole" / "best.safetensors")
    assert notes.model == "lite"
    assert len(notes.notes["teacher"]) == 64
    half = words(student, "--out", student / "half", "--teacher-pictures", student / "teacher")
    with ctrl_c_before(3):
        assert main(half) == 130
    assert main([*half, "--resume"]) == 0
    resumed = read_checkpoint(student / "half" / "best.safetensors")[0]
    assert all(torch.equal(v, resumed[k]) for k, v in weights.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher", "nobody"], "--teacher nobody: expected one of fnet, lite, ufuser, or a checkpoint"),
        (["--teacher", "missing.safetensors"], "no checkpoint missing.safetensors"),
        (["--sensing-ir", "A_i.safetensors"], "expected both --sensing-ir and --sensing-vi"),
        (
            ["--sensing-ir", "A_i.safetensors", "--sensing-vi", "A_v.safetensors"],
            "no checkpoint A_i.safetensors",
        ),
    ],
)
def test_bad_teachers_and_modules_are_refused_before_anything_is_written(
    student: Path, more: list[str], message: str, refused: Callable[[list[str]], str]
) -> None:
    assert message in refused(words(student, "--out", student / "run", *more))
    assert not (student / "run").exists()


def test_shipped_weights_are_found_by_name() -> None:
    model, digest = find_teacher("ufuser")
    assert type(model).__name__ == "UFuser"
    assert len(digest) == 64
