"""Several processes train like one: the same loss with the same batch; rank 0 writes; any number resumes."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

from ufuser.runtime.errors import InputError
from ufuser.train.processes import (
    SINGLE,
    Processes,
    first_alone,
    has_own_statistics,
    joined,
    mean_over,
    wait,
)

NUMBERS = ("train", "validation", "train_equivariance", "validation_sensing_vi")


def torchrun(words: list[str], processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "ufuser.train",
    ]
    command = [sys.executable, *launcher, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)


def log(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(newline="") as f:
        return [{k: float(row[k]) for k in NUMBERS} for row in csv.DictReader(f)]


def test_two_processes_resume_and_train_as_one_does(
    emma_runs: Path, emma_words: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Real processes over gloo, EMMA's loss: an image for each, with random transformations."""
    one, out = emma_runs / "one", tmp_path / "resumed"
    shutil.copytree(emma_runs / "half", out)
    done = torchrun(emma_words(emma_runs, out, "--resume", "--init", emma_runs / "start.safetensors"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best validation loss") == 1  # one of them speaks
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in one.iterdir())
    curve = cv2.imread(str(out / "curve.png"))
    assert curve is not None
    assert curve.std() > 10  # drawn: in pytest's own process runs don't
    for row, expected in zip(log(out), log(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    weights, found = (torch.load(k / "last.pt", weights_only=True)["average"] for k in (one, out))
    # Adam's first steps go by the signs of gradients, so that rounding can turn single weights around.
    far = torch.cat([(found[k] - weights[k]).abs().flatten() for k in weights])
    assert (far > 1e-5).float().mean() < 0.01


def test_an_indivisible_batch_and_one_gpu_for_all_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Processes(1, 2).divide(6, "batch") == 3
    with pytest.raises(InputError, match=r"'batch' is 6: expected a multiple of the 4 processes"):
        Processes(1, 4).divide(6, "batch")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match="device=cuda:1 for 2 processes: expected cuda, a GPU for each"),
        joined("cuda:1"),
    ):
        pass


def test_without_torchrun_there_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "7")  # as a cluster's scheduler may set it
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device.type) == (SINGLE, "cpu")
        assert processes.is_first
        assert mean_over([1.0, 2.0], processes, device) == [1.0, 2.0]
        wait(processes)
        with first_alone(processes):
            pass
        norm = nn.Sequential(nn.BatchNorm2d(1))
        assert not has_own_statistics(norm, processes)
        assert has_own_statistics(norm, Processes(0, 2))
        assert not has_own_statistics(nn.Sequential(nn.Conv2d(1, 1, 1)), Processes(0, 2))


def test_the_parts_of_all_ranks_are_the_batch() -> None:
    for size in (1, 2, 3):
        taken = [k for rank in range(size) for k in range(12)[Processes(rank, size).part]]
        assert sorted(taken) == list(range(12))
