"""`ufuser stream` ends in time after a signal, whatever hangs; a closed generator does not hang."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import ufuser

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")

LIMIT = 3.0
"""Two seconds from the signal to the end of the process, and one more for a busy machine."""
IR, VI = "sim://thermal?size=64x64&bits=14&fps=60", "sim://visible?size=64x64&fps=60"
HANGING = """
import ctypes, sys, threading
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.sources.playback import Player
from ufuser.runtime.streaming import session

where, library = sys.argv[1], ctypes.CDLL(None)

def hang(*given, **more):
    print("hangs", file=sys.stderr, flush=True)
    mutex = ctypes.create_string_buffer(64)  # native code that no signal interrupts
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def ready(*given, **more):
    print("ready", file=sys.stderr, flush=True)

class Sink:
    name, every_frame, in_main_thread = "plugin:", True, where == "main-thread"
    write = hang if where in ("write", "main-thread") else ready
    close = hang if where in ("close", "close-with-lock") else ready
    abort = close

if where == "close-with-lock":
    library = ctypes.PyDLL(None)
if where == "open":
    session.Cameras.check = hang
if where == "read":
    Player.read = hang
if where == "fuse":
    Fuser.fuse = hang
session.open_sink = lambda *given: Sink()

from ufuser.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def start(tmp_path: Path, max_model: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `ufuser stream`, as it is or with a part that hangs."""
    running: list[subprocess.Popen[str]] = []

    def begin(*args: str, hanging: str = "") -> subprocess.Popen[str]:
        words = ["stream", "--ir", IR, "--vi", VI, "--model", str(max_model), *args]
        program = ["-c", HANGING, hanging] if hanging else ["-m", "ufuser"]
        process = subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"no {text!r} on stderr")


def ended(process: subprocess.Popen[str], *numbers: signal.Signals) -> tuple[str, str]:
    """Send the signals; stdout and stderr of the process, which must end in time with code 1."""
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < LIMIT
    assert process.returncode == 1, err
    return out, err


@pytest.fixture
def stalled_disk(tmp_path: Path) -> Iterator[Path]:
    """A pipe named as a video file, whose reader does not read."""
    path = tmp_path / "x.mkv"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path
    os.close(reader)


def wait_until_full(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until nothing more fits into a pipe."""
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        full, deadline = 0, time.monotonic() + 60
        while full < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
            # Room for less than a page: the encoder writes more than that at a time.
            full = full + 1 if not _has_room(writer) else 0
    finally:
        os.close(writer)


def _has_room(writer: int) -> bool:
    return bool(select.select([], [writer], [], 0)[1])


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGINT,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_a_stalled_disk(start: Any, stalled_disk: Path, numbers: tuple[signal.Signals, ...]) -> None:
    process = start("--out", stalled_disk.name, "--report", "r.json")
    wait_until_full(stalled_disk, process)
    out, err = ended(process, *numbers)
    assert "x.mkv" in err
    assert "left unfinished" in err
    report = stalled_disk.parent / "r.json"
    # A second SIGINT, or a machine that is too busy, leaves no time for the report.
    if report.exists():
        assert json.loads(report.read_text())["unfinished"] == ["x.mkv"]
        assert "LEFT UNFINISHED x.mkv" in out


@pytest.mark.parametrize("where", ["write", "read", "fuse", "open", "main-thread"])
def test_a_part_that_hangs(start: Any, where: str) -> None:
    process = start("--out", "plugin:", hanging=where)
    wait_for_line(process, "hangs")
    time.sleep(0.3)  # printed just before the hang
    _, err = ended(process, signal.SIGTERM)
    part = {"write": "plugin:", "read": "infrared camera", "fuse": "fusion"}.get(where, "the main thread")
    assert "left unfinished" in err
    assert part in err or where == "main-thread"


@pytest.mark.parametrize("where", ["close", "close-with-lock"])
def test_a_sink_whose_close_hangs(start: Any, where: str) -> None:
    process = start("--out", "plugin:", hanging=where)
    wait_for_line(process, "ready")
    _, err = ended(process, signal.SIGINT)
    if where == "close":
        assert "plugin:: left unfinished" in err


def test_nothing_unfinished_exits_with_zero(start: Any) -> None:
    process = start("--out", "null:", "--report", "r.json", "--metrics", "0")
    wait_for_line(process, "metrics")
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err


# In a program


def test_closing_the_generator_does_not_wait_for_a_stalled_disk(stalled_disk: Path, max_model: Path) -> None:
    events: list[Any] = []
    frames = ufuser.stream(IR, VI, out=[str(stalled_disk)], model=str(max_model), on_event=events.append)
    writer = os.open(stalled_disk, os.O_WRONLY | os.O_NONBLOCK)
    for _ in frames:
        if not _has_room(writer):
            break
    for _ in range(5):
        next(frames)
    began = time.monotonic()
    frames.close()
    assert time.monotonic() - began < LIMIT
    assert [str(event) for event in events if event.severity == "error"] == [
        f"{stalled_disk}: left unfinished: it does not answer"
    ]
    # Its thread goes on alone once the disk does, and closes the file itself.
    reader = os.open(stalled_disk, os.O_RDONLY)
    os.close(writer)
    while os.read(reader, 1 << 16):
        pass
    os.close(reader)
    deadline = time.monotonic() + 10
    while any(t.name.startswith("ufuser sink") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_is_not_closed_while_it_is_written(tmp_path: Path, max_model: Path) -> None:
    """Large frames take FFV1 so long that closing the stream finds its thread at work."""
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        for index in range(2):
            image = rng.integers(0, 255, (2160, 3840), np.uint8)
            cv2.imwrite(str(tmp_path / side / f"{index}.bmp"), image)
    program = (
        "import sys, time, ufuser\n"
        "ir, vi, model = sys.argv[1:]\n"
        "frames = ufuser.stream(ir, vi, out=['x.mkv'], model=model)\n"
        "for _ in range(3):\n"
        "    next(frames)\n"
        "began = time.monotonic()\n"
        "frames.close()\n"
        "print(time.monotonic() - began)\n"
    )
    uris = [f"folder:{tmp_path}/{side}?live=1&fps=20&loop=1" for side in ("ir", "vi")]
    done = subprocess.run(  # noqa: PLW1510 - asserted below
        [sys.executable, "-c", program, *uris, str(max_model)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < LIMIT
