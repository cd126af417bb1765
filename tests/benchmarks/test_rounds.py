"""`ufuser bench rounds`: networks timed alternately."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.rounds import time_rounds


def test_networks_are_run_alternately() -> None:
    calls: list[str] = []
    first, second = (lambda ir, vi, name=name: calls.append(name) or ir for name in "ab")
    timings = time_rounds([first, second], (2, 16, 24), rounds=3)
    assert "".join(calls) == "ab" * 5, "two rounds warm up"
    assert timings[0].times_first == 1.0
    assert all(0 <= t.p50_ms <= t.p95_ms for t in timings)


def test_by_command(max_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rounds", str(max_model), f"onnxruntime:{max_model}", "--shape", "1x16x24", "--rounds", "2"]
    assert main([*words, "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["precision"] for f in found] == ["fp32", "fp32"]
    assert main(words) == 0
    assert "times as fast as the first" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"], ["--shape", "1x17x24"]])
def test_bad_input(max_model: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["rounds", str(max_model), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert " ".join(words) in line
