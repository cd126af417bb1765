"""The latency command on a pair of small pictures: what it reports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.__main__ import main

CHECKPOINT = Path(__file__).resolve().parents[2] / "train" / "weights" / "ufuser.safetensors"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        for name in ("a", "b"):
            cv2.imwrite(str(tmp_path / side / f"{name}.png"), rng.integers(0, 256, (40, 60), np.uint8))
    return ["--ir", str(tmp_path / "ir"), "--vi", str(tmp_path / "vi")]


def test_reports_every_contender_the_ratio_and_the_operators(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ["--size", "64x96", "--memory", "64x96", "--rounds", "2", "--threads", "1", "--profile"]
    assert main(["latency", *folders, *options, "--checkpoint", str(CHECKPOINT), "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["frames"] == 4
    assert set(figures["times"]) == {"onnxruntime", "PyTorch eager"}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in figures["times"].values())
    ratio = figures["times_faster_than_eager"]["onnxruntime"]
    assert 0 < ratio["p5"] <= ratio["p50"] <= ratio["p95"]
    assert figures["milliseconds_by_operator"]["Conv"] > 0
    # A process of its own, not the size of this one, which holds PyTorch.
    assert 30 < figures["peak_memory_mib"]["onnxruntime at 64x96"] < 250


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--size", "50x96"], "size '50x96'"),
        (["--size", "big"], "size 'big'"),
        (["--engines", "abacus"], "unknown engine 'abacus'"),
        (["--checkpoint", "gone.safetensors"], "no checkpoint gone.safetensors"),
    ],
)
def test_bad_input(
    folders: list[str], capsys: pytest.CaptureFixture[str], extra: list[str], said: str
) -> None:
    assert main(["latency", *folders, *extra]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
