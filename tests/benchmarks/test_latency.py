"""The latency command on a pair of small pictures: what it reports, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ufuser.benchmarks import results
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.latency import TITLES
from ufuser.benchmarks.worker import COMPILED, EAGER, PLAIN
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models import create

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
    options = ["--models", "lite", "--sizes", "64x96", "--rounds", "2", "--threads", "1", "--profile"]
    peers = ["--peers", "eager,laplacian", "--checkpoint", str(CHECKPOINT.with_name("lite.safetensors"))]
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


def test_batches_make_a_row_each_and_answer_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    options = ["--models", "lite", "--sizes", "64x96", "--threads", "1", "--batches", "1,3", "--pairs", "2"]
    peers = ["--peers", "eager,mean", "--checkpoint", str(CHECKPOINT.with_name("lite.safetensors"))]
    assert main(["latency", *options, *peers, "--json", str(out)]) == 0
    rows = results.read(out).latency
    assert len({row.key for row in rows}) == len(rows) == 6
    for row in rows:
        assert len(row.samples_ms) == 2
        assert row.fps == pytest.approx(row.batch * 2000 / sum(row.samples_ms), rel=0.01)
        if row.engine == "onnxruntime":  # beside PyTorch with the same batch
            assert row.error is not None
            assert 0 < row.error.largest < 1e-4
    printed = capsys.readouterr().out
    assert printed.count("ms a picture") == 6
    assert printed.count("eager/this") == 4


def test_the_plain_export_and_a_compiled_network_are_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network of few layers, with PyTorch's compiler switched off, which takes longer than all else here."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    checkpoint, out = tmp_path / "tiny.safetensors", tmp_path / "results.json"
    options = {"width": 4, "depth": 1, "head": "mix", "separable": False, "statistic": False}
    save_checkpoint(checkpoint, create("lite", options).state_dict(), "lite", "", {}, options)
    words = ["--engines", "", "--peers", "eager,plain,compile", "--checkpoint", str(checkpoint)]
    words += ["--sizes", "32x48", "--threads", "1", "--pairs", "1"]
    assert main(["latency", *words, "--json", str(out)]) == 0
    found = {row.engine: row for row in results.read(out).latency}
    assert set(found) == {TITLES[EAGER], TITLES[PLAIN], TITLES[COMPILED]}
    for title in (TITLES[COMPILED], TITLES[PLAIN]):
        error = found[title].error
        assert error is not None
        assert error.largest < 1e-5


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--sizes", "50x96"], "size '50x96'"),
        (["--sizes", "big"], "size 'big'"),
        (["--engines", "abacus"], "unknown engine 'abacus'"),
        (["--models", "gone.onnx"], "gone.onnx"),
        (["--models", "a/m.onnx,b/m.onnx"], "the name m; expected NAME=b/m.onnx with a unique name"),
        (["--threads", "0"], "--threads 0"),
        (["--batches", "1,x"], "--batches 1,x"),
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
