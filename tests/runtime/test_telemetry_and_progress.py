"""Figures of a run, and the progress line."""

from __future__ import annotations

import io
import os

import pytest

from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.progress import Progress
from ufuser.runtime.telemetry import Durations


def test_percentiles_are_not_averages() -> None:
    seconds = [0.010] * 94 + [0.110] * 6
    summary = Durations.of(seconds)
    assert summary.frames == 100
    assert summary.p50_ms == pytest.approx(10)
    assert summary.p95_ms == pytest.approx(110)
    assert summary.max_ms == pytest.approx(110)
    assert summary.fps == pytest.approx(100 / 1.6)


def test_no_frames() -> None:
    assert Durations.of([]) == Durations(0, 0.0, 0.0, 0.0, 0.0)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _run(stream: io.StringIO, frames: int, each: float, total: int | None) -> str:
    clock = _Clock()
    with Progress("fused", total, stream, clock) as progress:
        for _ in range(frames):
            clock.now += each
            progress.step()
    return stream.getvalue()


def test_terminal_is_redrawn_in_place_and_ends_complete() -> None:
    text = _run(_Terminal(), 10, 0.5, 10)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "fused 5/10, 2.0 fps, 0:02 left" in text
    assert "10/10" in text.rsplit("\r", 1)[1]


def test_log_gets_a_line_now_and_then() -> None:
    lines = _run(io.StringIO(), 40, 0.5, None).splitlines()
    assert lines == [f"fused {n}, 2.0 fps" for n in (10, 20, 30, 40)]


def test_short_run_leaves_no_trace_in_a_log() -> None:
    assert _run(io.StringIO(), 10, 0.1, 10) == ""


def test_note_stands_on_a_line_of_its_own() -> None:
    stream, clock = _Terminal(), _Clock()
    with Progress("fused", 10, stream, clock) as progress:
        clock.now = 1
        progress.step()
        progress.note("note: one ended early")
    assert stream.getvalue().endswith("\r\x1b[Knote: one ended early\n")


def test_machine_is_named() -> None:
    machine = Machine.here()
    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert "numpy" in versions()
