"""Comparing two runs: a slowdown counts only beyond the noise that both show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.compare import changes, noise
from ufuser.benchmarks.results import Latency, Results, write

SIZE = (480, 640)


def run_of(median_ms: float, wavers: float = 0.01, engine: str = "onnxruntime", **more: object) -> Latency:
    """40 repetitions that wander around a median, slowly, by this part of it."""
    wave = np.sin(2 * np.pi * (np.arange(40) + 0.5) / 20)
    samples = median_ms * (1 + wavers * wave) / 1000
    return Latency.of(engine, "ufuser", SIZE, 2, samples.tolist(), **more)


def verdict(before: Latency, after: Latency) -> str:
    (change,) = changes(Results.here(latency=(before,)), Results.here(latency=(after,)))
    return change.verdict


def test_beyond_the_noise_only() -> None:
    assert verdict(run_of(100), run_of(110)) == "slower"
    assert verdict(run_of(110), run_of(100)) == "faster"
    assert verdict(run_of(100), run_of(100.2)) == "same"
    # The same tenth is nothing where one of the two runs wavers by a third.
    assert verdict(run_of(100), run_of(110, wavers=0.35)) == "same"
    assert verdict(run_of(100, wavers=0.35), run_of(110)) == "same"


def test_drift_is_noise_though_its_samples_are_many() -> None:
    drifting = np.linspace(90, 130, 400)
    assert noise(drifting.tolist()) > 15
    assert noise(np.random.default_rng(0).normal(110, 1, 400).tolist()) < 1
    assert noise([100.0, 104.0]) == 2
    assert noise([100.0]) == 0


def test_only_equal_settings_are_compared() -> None:
    before = Results.here(latency=(run_of(100), run_of(50, precision="bf16")))
    after = Results.here(latency=(run_of(200, batch=4), run_of(50, precision="bf16")))
    assert [c.after.precision for c in changes(before, after)] == ["bf16"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    gone, new = run_of(10, engine="gone"), run_of(10, engine="new")
    write(a, Results.here({"torch": "1"}, latency=(run_of(100), run_of(50, precision="int8"), gone)))
    write(b, Results.here({"torch": "2"}, latency=(run_of(120), run_of(50, precision="int8"), new)))
    assert main(["compare", str(a), str(b)]) == 1
    said = capsys.readouterr().out
    assert "torch 1 before, 2 after" in said
    assert "slower ufuser in onnxruntime fp32 at 480x640, 2 threads: p50 " in said
    assert "same   ufuser in onnxruntime int8" in said
    assert "only before: ufuser in gone" in said
    assert "only after: ufuser in new" in said
    assert main(["compare", str(b), str(a)]) == 0
    assert "faster ufuser" in capsys.readouterr().out


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = tmp_path / "a.json"
    write(a, Results.here())
    assert main(["compare", str(a), str(tmp_path / "gone.json")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert main(["compare", str(a), str(a)]) == 0
    assert "the files have no contender in common" in capsys.readouterr().out
