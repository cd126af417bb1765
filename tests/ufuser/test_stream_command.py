"""`ufuser stream` as a process: its end, its files, bad input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Start = Callable[..., "subprocess.Popen[str]"]
IR, VI = "sim://thermal?size=64x64&bits=14&fps=10", "sim://visible?size=64x64&fps=10"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def start(tmp_path: Path, max_model: Path) -> Iterator[Start]:
    """Starts `ufuser stream` with two simulated cameras; ends it at the end of the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*args: object, shell: str = "") -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "ufuser", "stream", "--ir", IR, "--vi", VI, "--model", str(max_model)]
        words += list(map(str, args))
        if shell:
            words = ["bash", "-c", f'{shell}; exec "$@"', "bash", *words]
        process = subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def frames_in(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def grown(path: Path, size: int) -> Callable[[], bool]:
    return lambda: path.is_file() and path.stat().st_size > size


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_two_seconds_with_file_and_report(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("--out", "x.mp4", "--out", "y.mkv", "--out", "folder:pngs", "--report", "r.json")
    wait_for(grown(tmp_path / "x.mp4", 9000), process)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - began < 2
    assert process.returncode == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ended"] == "stopped"
    assert report["fused"]["frames"] > 5
    pictures = len(list((tmp_path / "pngs").iterdir()))
    # What waited for a sink when it was stopped may be missing.
    assert frames_in(tmp_path / "x.mp4") == pytest.approx(report["fused"]["frames"], abs=9)
    assert frames_in(tmp_path / "y.mkv") == pytest.approx(pictures, abs=9)
    assert out.startswith(f"Fused {report['fused']['frames']} frames")


@POSIX
def test_a_kill_leaves_playable_files(start: Start, tmp_path: Path) -> None:
    process = start("--out", "x.mp4", "--out", "x.mkv", "--metrics", 0)
    err = process.stderr
    assert err is not None
    url = err.readline().split()[-1]

    def fused() -> int:
        report: dict[str, Any] = json.load(urllib.request.urlopen(f"{url}report.json", timeout=5))
        return int(report["fused"]["frames"])

    wait_for(lambda: fused() > 25, process)
    written = fused()
    process.kill()
    process.wait()
    # Half a second of ten frames a second, and what waited for the encoder.
    for name in ("x.mp4", "x.mkv"):
        assert frames_in(tmp_path / name) >= written - 10


@POSIX
def test_a_full_disk_ends_that_file_only(start: Start, tmp_path: Path) -> None:
    process = start("--out", "x.mkv", "--out", "folder:pngs", "--report", "r.json", shell="ulimit -f 50")
    wait_for(grown(tmp_path / "x.mkv", 50 * 1024 - 1), process)
    pictures = len(list((tmp_path / "pngs").iterdir()))
    wait_for(lambda: len(list((tmp_path / "pngs").iterdir())) > pictures + 5, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "x.mkv: failed: cannot write x.mkv: File too large" in err
    assert "FAILED x.mkv" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert list(report["failed_outputs"]) == ["x.mkv"]
    assert frames_in(tmp_path / "x.mkv") >= 3


def test_config_file_and_flags_over_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'out = ["null:", "folder:pngs"]\nsync = "hold"\nduration = 60\nagc = "plateau"\nir-offset = "12ms"\n'
        'report = "r.json"\ngrey = true\n'
    )
    process = start("--config", "s.toml", "--duration", "1.5", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["seconds"] < 20
    options = report["options"]
    assert (options["sync"], options["agc"], options["ir_offset"], options["duration"]) == (
        "hold",
        "plateau",
        0.012,
        1.5,
    )
    assert json.loads((tmp_path / "r.json").read_text())["fused"] == report["fused"]
    picture = cv2.imread(str(next((tmp_path / "pngs").iterdir())), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (64, 64)
    for part in (
        "cameras",
        "skew_ms",
        "capture_to_output_ms",
        "stages_ms",
        "drops",
        "memory_bytes",
        "machine",
    ):
        assert part in report
    assert {"thermal", "pair", "align", "fuse", "write null:"} <= set(report["stages_ms"])


def test_files_are_fused_to_their_end(start: Start, tmp_path: Path) -> None:
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        for index in range(12):
            image = np.full((48, 64), 10 * index, np.uint8)
            cv2.imwrite(str(tmp_path / side / f"{index:03d}.png"), image)
    process = start("--ir", "folder:ir?fps=25", "--vi", "folder:vi?fps=25", "--out", "folder:out")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == 12
    assert [int(cv2.imread(str(p), 0)[20, 20]) for p in written] == [10 * i for i in range(12)]


# Bad input: one line, exit code 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--vi", VI, "--out", "null:"], "--ir missing"),
        (["--ir", IR, "--vi", VI], "--out missing"),
        (["--ir", "rstp://x/1", "--vi", VI, "--out", "null:"], "unknown scheme 'rstp'.*did you mean rtsp"),
        (["--ir", "gone.mp4", "--vi", VI, "--out", "null:"], "no file or folder gone.mp4"),
        (["--ir", "folder:gone", "--vi", VI, "--out", "null:"], "no folder gone"),
        (
            ["--ir", "v4l2:///dev/video77", "--vi", VI, "--out", "null:"],
            "no device /dev/video77: this machine has",
        ),
        (
            ["--ir", "v4l2:///dev/null?size=big", "--vi", VI, "--out", "null:"],
            "size=big: expected WIDTHxHEIGHT",
        ),
        (
            ["--ir", "v4l2:///dev/video7", "--vi", "v4l2:///dev/video7?fps=9", "--out", "null:"],
            "are the same device",
        ),
        (["--ir", VI, "--vi", VI, "--out", "null:"], "are the same device"),
        (["--ir", "csi://left", "--vi", VI, "--out", "null:"], "expected a sensor's number"),
        (["--ir", f"{IR}&fpz=9", "--vi", VI, "--out", "null:"], "did you mean fps"),
        (["--ir", f"{IR}&gone=9", "--vi", VI, "--out", "null:"], "gone=9: expected spans of seconds"),
        (["--ir", f"{IR}&gone=0-9", "--vi", VI, "--out", "null:"], "no such device"),
        (["--ir", IR, "--vi", VI, "--out", "x.gif"], "cannot write x.gif: expected a video"),
        (["--ir", IR, "--vi", VI, "--out", "x.mp4?codec=ffv1"], "expected h264"),
        (["--ir", IR, "--vi", VI, "--out", "gone/x.mp4"], "there is no folder gone"),
        (["--ir", IR, "--vi", VI, "--out", "mjpg://127.0.0.1:1"], "did you mean mjpeg"),
        (["--ir", IR, "--vi", VI, "--out", "mjpeg://127.0.0.1"], "expected host and port"),
        (["--ir", IR, "--vi", VI, "--out", "mjpeg://0.0.0.0:0"], "expected --token"),
        (["--ir", IR, "--vi", VI, "--out", "mjpeg://:0", "--bind", "0.0.0.0"], "expected --token"),
        (["--ir", IR, "--vi", VI, "--metrics", 0, "--bind", "0.0.0.0"], "expected --token"),
        (
            ["--ir", IR, "--vi", VI, "--metrics", 0, "--bind", "0.0.0.0", "--token", "abc"],
            "--token .*: expected text of length >= 8",
        ),
        (
            ["--ir", IR, "--vi", VI, "--metrics", 0, "--bind", "192.0.2.1", "--token", "abcdefgh"],
            "cannot listen on",
        ),
        (
            ["--ir", IR, "--vi", VI, "--out", "null:", "--sync", "newest"],
            "--sync newest: expected one of hold",
        ),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--agc", "loud"], "--agc loud: expected"),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--calibration", "gone.json"], "gone.json"),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--calibration", "text.txt"], "text.txt is not JSON"),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--model", "gone"], "unknown model 'gone'"),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--engine", "gone"], "unknown engine 'gone'"),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--report", "gone/r.json"], "there is no folder gone"),
        (
            ["--ir", IR, "--vi", VI, "--out", "null:", "--duration", "-1"],
            "--duration -1: expected a number > 0",
        ),
        (["--ir", IR, "--vi", VI, "--out", "null:", "--max-age", "soon"], "--max-age soon: expected a time"),
        (
            ["--ir", "v4l2:///dev/video7", "--vi", VI, "--out", "null:", "--speed", "2"],
            "--speed 2: .* cannot run faster",
        ),
        (["--config", "gone.toml"], "cannot read gone.toml"),
        (["--config", "text.txt"], "text.txt is not TOML"),
        (["--config", "odd.toml"], "unknown key 'sinc'.*did you mean 'sync'"),
        (["--config", "kind.toml"], "duration is True: expected a number"),
    ],
)
def test_bad_input(quick_command: Any, tmp_path: Path, args: list[object], message: str) -> None:
    (tmp_path / "text.txt").write_text("just text")
    (tmp_path / "odd.toml").write_text('sinc = "hold"')
    (tmp_path / "kind.toml").write_text("duration = true")
    done = quick_command("stream", *args)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    import re

    assert re.search(message, done.stderr), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["kind.toml", "odd.toml", "text.txt"]


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.mark.parametrize("name", ["nested", "bigint", "bigint2", "nul", "nul2", "nul3"])
def test_settings_files_that_were_a_traceback(quick_command: Any, tmp_path: Path, name: str) -> None:
    path = CASES / f"{name}.toml"
    if not path.is_file():
        pytest.skip(f"no shared test data: {path.name}")
    done = quick_command("stream", "--config", path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert os.listdir(tmp_path) == []


def test_port_in_use(quick_command: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = quick_command("stream", "--ir", IR, "--vi", VI, "--out", f"mjpeg://127.0.0.1:{port}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr


@pytest.mark.parametrize("side", ["--ir", "--vi", "--out"])
def test_no_password_is_ever_shown(quick_command: Any, side: str, max_model: Path) -> None:
    uris = {"--ir": IR, "--vi": VI, "--out": "null:"} | {side: "rtsp://admin:hunter2@127.0.0.1:9/live"}
    words = [word for pair in uris.items() for word in pair]
    done = quick_command("stream", *words, "--model", max_model, "--duration", "1", "--report", "r.json")
    shown = done.stdout + done.stderr + (Path("r.json").read_text() if Path("r.json").exists() else "")
    assert "127.0.0.1:9/live" in shown
    assert "hunter2" not in shown
    assert "admin" not in shown
