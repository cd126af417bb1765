"""Training runs: their files, exact resumption after a kill, and refusal to mix two runs."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import nn

from ufuser.runtime.errors import InputError
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import load_model, read_checkpoint
from ufuser.train.data import find_pairs
from ufuser.train.losses import DirectLoss
from ufuser.train.networks import pad_to_multiple
from ufuser.train.objectives.direct import DirectObjective, Loss
from ufuser.train.objectives.objective import Task
from ufuser.train.recipe import load_recipe
from ufuser.train.sections import OptimRecipe
from ufuser.train.split import by_list
from ufuser.train.trainer import Run, Trainer, learning_rate


def arguments(project: Path, *more: str, out: str = "out") -> list[str]:
    words = ["direct", "--recipe", "tiny.toml", "--data", "data", "--out", out]
    paths = {"tiny.toml", "data", out}
    return [str(project / w) if w in paths else w for w in words] + ["--threads", "1", *more]


def start(project: Path, *more: str, code: str = "") -> subprocess.Popen[str]:
    """Train in another process, by `python -m ufuser.train` or by a line of Python."""
    command = [
        sys.executable,
        *(["-c", code] if code else ["-m", "ufuser.train"]),
        *arguments(project, *more),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"no {path.name} within two minutes"
        time.sleep(0.002)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def change(project: Path, old: str, new: str) -> None:
    text = (project / "tiny.toml").read_text(encoding="utf-8")
    assert old in text
    (project / "tiny.toml").write_text(text.replace(old, new), encoding="utf-8")


def test_a_run_killed_and_resumed_is_the_unbroken_run_bit_for_bit(
    project: Path, losses: Callable[[Path], list[dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(project, out="unbroken")) == 0
    unbroken, out = project / "unbroken", project / "out"
    said, bar = capsys.readouterr()
    assert re.search(r"6/6 \[[\d:]+<[\d:]+, .*loss \d\.\d+, \d+\.\d samples/s", bar)  # time gone and left
    assert "tiny: ufuser, 3 examples to train on, 1 to validate" in said
    assert str(unbroken / "best.safetensors") in said

    # What a run leaves.
    rows = table(unbroken)
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    for row in rows:
        for side in ("train", "validation"):
            parts = [float(v) for k, v in row.items() if k.startswith(f"{side}_")]
            assert len(parts) == 3
            assert sum(parts) == pytest.approx(float(row[side]))
        assert float(row["seconds_per_step"]) > 0
        if sys.platform == "linux":
            assert 20 < float(row["peak_mib"]) < 20_000
    model, metadata = load_model(unbroken / "best.safetensors", "ufuser")
    assert metadata.recipe == (project / "tiny.toml").read_text(encoding="utf-8")
    best = min(rows, key=lambda row: float(row["validation"]))
    notes = metadata.notes
    assert notes["step"] == int(best["step"])
    assert notes["validation_loss"] == pytest.approx(float(best["validation"]), abs=1e-6)
    shown = cv2.imread(str(unbroken / "panel.png"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert shown.shape == (400 * 43 // 50, 3 * 400)
    assert sorted(p.name for p in unbroken.iterdir()) == [
        "best.safetensors",
        "curve.png",
        "last.pt",
        "log.csv",
        "panel.png",
        "panel_000002.png",
        "panel_000004.png",
        "panel_000006.png",
    ]
    assert (unbroken / "panel.png").read_bytes() == (unbroken / "panel_000006.png").read_bytes()
    assert (unbroken / "panel.png").read_bytes() != (unbroken / "panel_000002.png").read_bytes()
    assert not model.training

    # A real process, killed after its first checkpoint.
    process = start(project)
    wait_for(out / "last.pt", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert torch.load(out / "last.pt", weights_only=True)["step"] < 6

    assert main(arguments(project, "--resume")) == 0
    assert losses(out) == losses(unbroken)
    weights, kept = (read_checkpoint(folder / "best.safetensors")[0] for folder in (out, unbroken))
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[k], kept[k]) for k in weights)

    # A finished run resumed has nothing left to do.
    before = (out / "log.csv").read_bytes()
    assert main(arguments(project, "--resume")) == 0
    assert (out / "log.csv").read_bytes() == before


def test_ctrl_c_ends_with_one_line_and_130_and_runs_do_not_mix(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = project / "out"
    change(project, "steps = 6", "steps = 60000")
    # A test run in a shell's background ignores Ctrl-C, and its children would, too.
    heeding = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heeding}; from ufuser.train.__main__ import main; sys.exit(main())"
    process = start(project, code=code)
    wait_for(out / "last.pt", process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == f"interrupted: --resume continues from the last checkpoint in {out}"
    assert "Traceback" not in said
    assert not list(out.glob(".*.partial*"))

    state = (out / "last.pt").read_bytes()
    assert main(arguments(project)) == 2
    assert f"{out} already holds a run: give --resume" in capsys.readouterr().err

    change(project, "warmup = 2", "warmup = 3")
    assert main(arguments(project, "--resume")) == 2
    assert "was trained by another recipe" in capsys.readouterr().err
    change(project, "warmup = 3", "warmup = 2")

    for broken in (b"", state[: len(state) // 2], b"not a checkpoint"):
        (out / "last.pt").write_bytes(broken)
        assert main(arguments(project, "--resume")) == 2
        assert f"cannot read {out / 'last.pt'}" in capsys.readouterr().err
    torch.save({"epoch": 3}, out / "last.pt")
    assert main(arguments(project, "--resume")) == 2
    assert "is not the state of a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_before_the_first_validation_keeps_the_run(
    project: Path,
    losses: Callable[[Path], list[dict[str, str]]],
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    """The step is finished, and what is resumed is the unbroken run bit for bit, with the means in the log."""
    change(project, "validate_every = 2", "validate_every = 6")
    assert main(arguments(project, out="unbroken")) == 0
    out, unbroken = project / "out", project / "unbroken"
    with signalled_at(3, number):
        assert ended(project) == code
    said = capsys.readouterr().err
    assert f"saved at step 4 in {out / 'last.pt'}" in said
    assert "Traceback" not in said
    assert not (out / "log.csv").exists()
    assert main(arguments(project, "--resume")) == 0
    same_run(out, unbroken, losses)


def test_a_signal_in_validation_repeats_that_validation(
    project: Path, losses: Callable[[Path], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments(project, "--validation", "0.5", out="unbroken")) == 0
    validate, seen = DirectObjective.validate, []

    def signalled(*args: Any) -> Any:
        if len(args[2][0]) == 1:  # a whole picture; a batch has two
            seen.append(1)
            if len(seen) == 3:  # the first picture of the second validation
                os.kill(os.getpid(), signal.SIGTERM)
        return validate(*args)

    monkeypatch.setattr(DirectObjective, "validate", signalled)
    assert ended(project, "--validation", "0.5") == 143
    assert torch.load(project / "out" / "last.pt", weights_only=True)["step"] == 4
    assert [row["step"] for row in table(project / "out")] == ["2"]
    assert main(arguments(project, "--validation", "0.5", "--resume")) == 0
    same_run(project / "out", project / "unbroken", losses)


def test_a_kill_keeps_what_was_saved_by_time(
    project: Path, losses: Callable[[Path], list[dict[str, str]]], ctrl_c_before: Callable[[int], Any]
) -> None:
    change(project, "validate_every = 2", "validate_every = 6")
    assert main(arguments(project, out="unbroken")) == 0
    with ctrl_c_before(3):  # an exception, not a signal: as a kill
        assert main(arguments(project, "--save-minutes", "1e-9")) == 130
    assert torch.load(project / "out" / "last.pt", weights_only=True)["step"] == 3
    assert main(arguments(project, "--resume")) == 0
    same_run(project / "out", project / "unbroken", losses)


def test_resume_starts_where_there_is_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command for a cluster that requeues its jobs."""
    assert main(arguments(project, "--resume")) == 0
    assert f"nothing to resume in {project / 'out'}: training starts" in capsys.readouterr().err
    assert [row["step"] for row in table(project / "out")] == ["2", "4", "6"]


def test_a_finished_run_is_made_longer(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(project)) == 0
    capsys.readouterr()
    assert main(arguments(project, "--resume")) == 0
    assert (
        "the run is at step 6 of 6: --steps with a larger number makes it longer" in capsys.readouterr().err
    )
    assert main(arguments(project, "--resume", "--steps", "9")) == 0
    assert "the run was for 6 steps and is now for 9" in capsys.readouterr().err
    assert [row["step"] for row in table(project / "out")] == ["2", "4", "6", "8", "9"]


def test_the_number_of_steps_is_kept_with_the_weights(project: Path) -> None:
    assert main(arguments(project, "--steps", "3")) == 0
    assert read_checkpoint(project / "out" / "best.safetensors")[1].notes["steps"] == 3


def test_a_log_file_gets_a_line_for_each_validation(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(project)) == 0
    said = capsys.readouterr().err
    assert "\r" not in said
    assert [line.split(" [")[0] for line in said.splitlines()] == ["2/6", "4/6", "6/6"]


@contextmanager
def signalled_at(step: int, number: signal.Signals) -> Iterator[None]:
    """A signal to this process within a step of training."""
    train_step = Trainer._train_step

    def signalled(trainer: Trainer) -> dict[str, float]:
        if trainer._step == step:
            os.kill(os.getpid(), number)
        return train_step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", signalled)
        yield


def ended(project: Path, *more: str) -> int:
    """The exit code of a run that a signal ends."""
    handlers = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGHUP)}
    try:
        return main(arguments(project, *more))
    except SystemExit as e:
        return int(str(e.code))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def same_run(out: Path, unbroken: Path, losses: Callable[[Path], list[dict[str, str]]]) -> None:
    assert losses(out) == losses(unbroken)
    weights, kept = (read_checkpoint(folder / "best.safetensors")[0] for folder in (out, unbroken))
    assert all(torch.equal(weights[k], kept[k]) for k in kept)
    states = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (out, unbroken)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[1])


def test_ctrl_c_before_the_first_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Trainer) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    assert main(arguments(project)) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--save-minutes", "0"], "--save-minutes 0: expected more than 0"),
        (
            ["--validation", "1.5"],
            "--validation 1.5: expected a file of names, or a share above 0 and below 1",
        ),
        (["--validation", "none.txt"], "cannot read none.txt"),
        (
            ["--recipe", "ufuser_dirct"],
            "--recipe ufuser_dirct: expected a .toml file or one of daefuse_phase1",
        ),
        (["--threads", "0"], "--threads 0: expected 1 to"),
        (["--device", "abacus"], "--device abacus is not usable"),
        (["--device", "cuda:99"], "--device cuda:99 is not usable"),
        (["--data", "nowhere"], "no folder nowhere"),
        (["--recipe", "none.toml"], "cannot read none.toml"),
        (["--out", __file__], f"cannot make the folder {__file__}"),
        (["--out", f"{__file__}/below"], f"cannot make the folder {__file__}/below: {__file__} is a file"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_bad_arguments_end_in_one_line_and_leave_nothing(
    project: Path, refused: Callable[[list[str]], str], more: list[str], message: str
) -> None:
    before = sorted(project.iterdir())
    assert message in refused(arguments(project, *more))
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize("below", ["", "new/run"])
def test_a_place_that_cannot_be_written_is_found_before_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    locked = project / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):  # to root nothing is locked, but where processes are shown nothing can lie
        locked = Path("/proc/self")
        if not locked.is_dir():
            pytest.skip("root may write anywhere here")
    monkeypatch.setattr(Trainer, "_train_step", lambda _: pytest.fail("training began"))
    assert main(arguments(project, "--out", str(locked / below))) == 2
    assert f"cannot write to {locked} (--out {locked / below}): " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["best.safetensors", "log.csv", "curve.png"])
def test_a_folder_in_a_files_place_is_found_before_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (project / "out" / name).mkdir(parents=True)
    monkeypatch.setattr(Trainer, "_train_step", lambda _: pytest.fail("training began"))
    assert main(arguments(project)) == 2
    assert f"cannot write {project / 'out' / name}: it is a folder" in capsys.readouterr().err


def test_an_unknown_model_in_the_recipe(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, '"ufuser"', '"unet"')
    assert main(arguments(project)) == 2
    assert "unknown model 'unet': expected one of" in capsys.readouterr().err


class Blend(nn.Module):
    """The smallest fusion network with everything a trainer must carry: weights and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, ir: torch.Tensor, vi: torch.Tensor) -> torch.Tensor:
        return self.norm(self.mix(torch.cat((ir, vi), 1))).sigmoid()  # type: ignore[no-any-return]


def small_run(project: Path, loss: Loss | None = None) -> Run:
    recipe = load_recipe(project / "tiny.toml")
    objective = DirectObjective(loss or DirectLoss(recipe.loss))
    split = by_list(find_pairs(project / "data"), project / "validation.txt")
    task = Task(objective, split.training, split.validation, recipe.data)
    return Run(recipe, task, project / "out", torch.device("cpu"), resume=False)


def test_running_statistics_are_kept_with_the_averaged_weights(project: Path) -> None:
    run, model = small_run(project), Blend()
    Trainer(run, model).run()
    state = torch.load(project / "out" / "last.pt", weights_only=True)
    assert torch.equal(state["average"]["norm.running_mean"], state["model"]["norm.running_mean"])
    assert state["average"]["norm.num_batches_tracked"] == 6
    assert not torch.equal(state["average"]["mix.weight"], state["model"]["mix.weight"])


def test_the_average_soon_forgets_the_random_start(project: Path) -> None:
    change(project, "steps = 6", "steps = 1")
    run, model = small_run(project), Blend()
    before = model.mix.weight.detach().clone()
    Trainer(run, model).run()
    average = torch.load(project / "out" / "last.pt", weights_only=True)["average"]["mix.weight"]
    assert not torch.equal(before, model.mix.weight)
    torch.testing.assert_close(average, 0.1 * before + 0.9 * model.mix.weight.detach())  # not ema = 0.999


def test_training_lowers_the_loss(project: Path) -> None:
    change(project, "steps = 6", "steps = 60")
    change(project, "validate_every = 2", "validate_every = 20")
    change(project, "warmup = 2", "warmup = 2\nlearning_rate = 0.05")
    torch.manual_seed(0)
    run = small_run(project)
    best = Trainer(run, Blend()).run()
    rows = table(project / "out")
    assert best == min(float(row["validation"]) for row in rows)
    assert best < 0.95 * float(rows[0]["validation"])


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_are_lost(project: Path) -> None:
    def poisoned(*images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"nan": images[0].mean() * float("nan")}

    run, model = small_run(project, poisoned), Blend()
    before = model.mix.weight.detach().clone()
    with pytest.raises(InputError, match="gradient is not finite at step 0: lower the learning rate"):
        Trainer(run, model).run()
    assert torch.equal(model.mix.weight, before)


def test_the_learning_rate_warms_up_and_decays_to_a_hundredth() -> None:
    optim = OptimRecipe(steps=1000, warmup=10, learning_rate=2.0)
    rates = [learning_rate(step, optim) for step in range(1001)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[505] == pytest.approx(1.01)
    assert rates[1000] == pytest.approx(0.02)
    assert learning_rate(0, OptimRecipe(steps=5, warmup=0, learning_rate=1.0)) == 1.0


def test_the_learning_rate_halves_at_fixed_intervals() -> None:
    optim = OptimRecipe(steps=100, warmup=10, learning_rate=8.0, schedule="halving", halve_every=20)
    rates = [learning_rate(step, optim) for step in range(100)]
    assert rates[:10] == pytest.approx([0.8 * k for k in range(1, 11)])
    assert rates[10:] == [8.0] * 10 + [4.0] * 20 + [2.0] * 20 + [1.0] * 20 + [0.5] * 20


def test_the_optimizer_steps_by_the_schedule(project: Path) -> None:
    """Adam's first steps are as long as its rate: without one, nothing may move."""
    change(project, "warmup = 2", 'warmup = 0\nlearning_rate = 1e-3\nschedule = "halving"\nhalve_every = 1')
    run, model = small_run(project), Blend()
    trainer = Trainer(run, model)
    trainer.run()
    assert trainer._optimizer.param_groups[0]["lr"] == 1e-3 * 0.5**5


@pytest.mark.parametrize("size", [(16, 16), (17, 24), (23, 31)])
def test_padding_reflects_at_the_far_borders_only(size: tuple[int, int]) -> None:
    x = torch.rand(1, 1, *size)
    padded = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert all(0 <= p - s < 8 for p, s in zip(padded.shape[-2:], size, strict=True))
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if size[0] % 8:
        assert torch.equal(padded[..., size[0], : size[1]], x[..., size[0] - 2, :])
