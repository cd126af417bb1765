"""`ufuser demo`: the runtime with simulated cameras, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ufuser import Fuser
from ufuser.runtime.images import read_image
from ufuser.runtime.sources import VideoSource
from ufuser.simulation import Scene

Command = Callable[..., Any]


def test_demo(tmp_path: Path, command: Command, max_model: Path) -> None:
    done = command(
        "demo", "--out", "d", "--frames", 5, "--size", "160x96", "--model", max_model, "--threads", 1
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "d")) == ["contact-sheet.png", "fused.mp4", "report.json"]
    for part in ("5 frames of 160x96", "fps", "p50", "d/fused.mp4", "d/contact-sheet.png", "d/report.json"):
        assert part in done.stdout
    with VideoSource(tmp_path / "d" / "fused.mp4") as video:
        assert (video.fps, {f.image.shape for f in video}, video.length) == (12, {(96, 160, 3)}, 5)
    assert read_image(tmp_path / "d" / "contact-sheet.png").shape[2] == 3
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    assert (report["frames"], report["size"], report["threads"]) == (5, [160, 96], 1)
    assert set(report["stages"]) == {"render", "fuse", "encode"}
    for stage in report["stages"].values():
        assert stage["frames"] == 5
        assert 0 < stage["p50_ms"] <= stage["p95_ms"] <= stage["max_ms"]
    assert report["seconds"] > 0
    assert report["machine"]["cpu"]
    assert report["machine"]["cores"] >= 1
    assert {"python", "numpy", "onnxruntime"} <= set(report["versions"])
    assert report["paths"] == {
        "video": "d/fused.mp4",
        "contact_sheet": "d/contact-sheet.png",
        "report": "d/report.json",
    }


def test_the_default_model_is_the_fast_one(tmp_path: Path, command: Command) -> None:
    done = command("demo", "--out", "d", "--frames", 1, "--size", "64x64", "--engine", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert "lite (--model ufuser: the full network) on ONNX Runtime" in done.stdout
    assert json.loads((tmp_path / "d" / "report.json").read_text())["model"] == "lite"


def test_a_single_frame_as_json_into_an_existing_folder(
    tmp_path: Path, command: Command, max_model: Path
) -> None:
    done = command("demo", "--out", ".", "--frames", 1, "--size", "64x64", "--model", max_model, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames 0"),
        (["--size", "large"], "WIDTHxHEIGHT"),
        (["--size", "8x8"], "64"),
        (["--seed", "-1"], "--seed -1: expected"),
        (["--out", "file"], "a file is in its place"),
        (["--out", "file/below"], "a file is in its place"),
        (["--out", "busy"], "it is a folder"),
        (["--model", "gone.onnx"], "gone.onnx"),
    ],
)
def test_bad_input_leaves_nothing(
    tmp_path: Path, quick_command: Command, max_model: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "busy" / "fused.mp4").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    common = ["--size", "64x64", "--frames", "1", "--model", str(max_model)]
    done = quick_command("demo", *common, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_without_pyav_one_line_before_anything_is_rendered(
    tmp_path: Path, quick_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(Scene, "__init__", lambda *_: pytest.fail("rendered"))
    monkeypatch.setattr(Fuser, "open", lambda *_: pytest.fail("loaded a model"))
    done = quick_command("demo", "--out", "d")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'pip install "ufuser[cpu]"' in line
    assert os.listdir(tmp_path) == []


def test_without_the_simulation_one_line(
    tmp_path: Path, quick_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ufuser.simulation.source", None)
    done = quick_command("demo", "--out", "d")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot load ufuser.simulation.source" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_nothing(tmp_path: Path, max_model: Path, number: int, code: int) -> None:
    arguments = ["demo", "--out", "d", "--frames", "100000", "--size", "64x64", "--model", str(max_model)]
    # Processes in a shell's background ignore Ctrl-C, and so do their children.
    restored = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{restored}; from ufuser.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        # The video's temporary file grows once the encoder has frames to write.
        while not any(p.stat().st_size for p in tmp_path.glob("d/.fused.*.mp4")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == []
