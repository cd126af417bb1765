"""The latency command on a pair of small pictures: what it reports, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import results
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


def test_reports_every_contender_beside_eager(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    options = ["--sizes", "64x96", "--rounds", "2", "--threads", "1", "--profile"]
    peers = ["--peers", "eager,laplacian", "--checkpoint", str(CHECKPOINT)]
    assert main(["latency", *folders, *options, *peers, "--json", str(out)]) == 0
    found = {row.engine: row for row in results.read(out).latency}
    assert set(found) == {"onnxruntime", "PyTorch eager", "Laplacian pyramid"}
    for row in found.values():
        assert row.size == (64, 96)
        assert len(row.samples_ms) == 4
        assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
        assert row.cold_start_s is not None
        assert row.cold_start_s > row.p50_ms / 1000
    ours, eager = found["onnxruntime"], found["PyTorch eager"]
    assert ours.error is not None
    assert 0 < ours.error.largest < 1e-4
    assert ours.error.psnr_db is not None
    assert ours.error.psnr_db > 90
    # A process each: the runtime's holds no PyTorch.
    assert ours.peak_memory_mib is not None
    assert eager.peak_memory_mib is not None
    assert 30 < ours.peak_memory_mib < min(300, eager.peak_memory_mib)
    (profile,) = results.read(out).operators
    assert profile.milliseconds["Conv"] > 0
    assert "eager/this" in capsys.readouterr().out


def test_sizes_and_threads_make_a_row_each(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    options = ["--engines", "", "--peers", "mean,maximum", "--sizes", "16x16,32x48", "--threads", "1,2"]
    assert main(["latency", *options, "--json", str(out)]) == 0
    keys = {(row.engine, row.size, row.threads) for row in results.read(out).latency}
    assert len(keys) == len(results.read(out).latency) == 8


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--sizes", "50x96"], "size '50x96'"),
        (["--sizes", "big"], "size 'big'"),
        (["--engines", "abacus"], "unknown engine 'abacus'"),
        (["--models", "gone.onnx"], "gone.onnx"),
        (["--threads", "0"], "--threads 0"),
        (["--peers", "abacus"], "unknown peer 'abacus'"),
        (["--peers", "eager"], "needs --checkpoint"),
        (["--peers", "eager", "--checkpoint", "gone.safetensors"], "no checkpoint gone.safetensors"),
        (["--json", "gone/results.json"], "gone/results.json"),
    ],
)
def test_bad_input(
    folders: list[str], capsys: pytest.CaptureFixture[str], extra: list[str], said: str
) -> None:
    assert main(["latency", *folders, *extra]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_one_folder_alone_is_refused(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", *folders[:2]]) == 2
    assert "both --ir and --vi" in capsys.readouterr().err
