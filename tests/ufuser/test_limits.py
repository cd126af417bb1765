"""What is too large, never ends or breaks off: one line and a defined exit code, before memory is gone."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")


def ufuser(*words: object, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ufuser", *map(str, words)]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    cv2.imwrite(str(path), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    return path


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.png", png(100_000, 100_000, b""), "100000x100000, 10000 megapixels: expected at most 67"),
        ("a.jpg", b"\xff\xd8\xff\xc0\0\x11\x08\xea\x60\xea\x60" + b"\0" * 20 + b"\xff\xd9", "60000x60000"),
        ("a.bmp", b"BM" + b"\0" * 16 + struct.pack("<ii", 50_000, -50_000) + b"\0" * 30, "50000x50000"),
        ("a.pgm", b"P5\n90000 90000\n255\n", "90000x90000"),
        ("a.tif", b"II*\0\x08\0\0\0\x02\0\0\1\4\0\1\0\0\0\0\0\1\0\1\1\4\0\1\0\0\0\0\0\1\0", "65536x65536"),
    ],
)  # fmt: skip
def test_the_header_of_a_bomb_is_read_first(
    tmp_path: Path, good: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    done = ufuser("fuse", "--ir", tmp_path / name, "--vi", good, "--out", tmp_path / "out.png")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


@POSIX
def test_pictures_that_never_end(tmp_path: Path, good: Path) -> None:
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.png")
    for name in ("zero.png", "fifo.png"):
        done = ufuser("fuse", "--ir", tmp_path / name, "--vi", good, "--out", tmp_path / "out.png")
        assert done.returncode == 2
        assert "is a device, pipe or socket: expected a picture file" in done.stderr


def test_threads_that_cannot_be_started(tmp_path: Path, good: Path) -> None:
    for count in ("99999999999", "100000"):
        done = ufuser("fuse", "--ir", good, "--vi", good, "--out", tmp_path / "out.png", "--threads", count)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"--threads {count}: expected a whole number <= 1024" in done.stderr


def test_the_noise_of_a_decoder_is_shown_with_verbose_only(tmp_path: Path, good: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(png(64, 64, b"garbage"))
    words = ("fuse", "--ir", bad, "--vi", good, "--out", tmp_path / "out.png")
    quiet, verbose = ufuser(*words), ufuser(*words, "--verbose")
    assert len(quiet.stderr.splitlines()) == 1
    assert quiet.stderr.startswith("error: ")
    assert "libpng error" in verbose.stderr
    assert verbose.returncode == 2


@POSIX
@pytest.mark.parametrize(
    ("words", "shell", "code", "said"),
    [
        (["doctor"], ">/dev/full", 1, "error: cannot write to standard output: No space left on device\n"),
        (["fuse", "--help"], ">/dev/full", 1, "error: cannot write to standard output: No space left on device\n"),
        (["doctor"], ">/dev/full 2>/dev/full", 1, ""),
        (["--version"], ">&-", 0, ""),
        (["fuse", "--ir", "a"], "2>&-", 2, ""),
        (["fuse", "--ir", "a"], "2>/dev/full", 2, ""),
        (["fuse", "--ir", "a"], ">&- 2>&-", 2, ""),
    ],
)  # fmt: skip
def test_closed_and_full_streams(words: list[str], shell: str, code: int, said: str) -> None:
    done = ufuser(*words, shell=shell)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_a_truncated_video_is_told(tmp_path: Path, max_model: Path, suffix: str) -> None:
    from ufuser.runtime.frame import FusedFrame
    from ufuser.runtime.sinks import VideoSink

    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    sink = VideoSink(whole, 25.0)
    rng = np.random.default_rng(0)
    for i in range(50):
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        sink.write(FusedFrame(image, i / 25, i, "test"))
    sink.close()
    data = whole.read_bytes()
    (tmp_path / f"second.{suffix}").write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    done = ufuser("stream", "--ir", cut, "--vi", whole, "--model", max_model, "--out", "null:")
    assert done.returncode == 1, done.stderr
    assert "of 50 frames: the file is truncated or damaged" in done.stderr
    done = ufuser(
        "stream", "--ir", whole, "--vi", tmp_path / f"second.{suffix}", "--model", max_model, "--out", "null:"
    )
    assert done.returncode == 0, done.stderr


WORKER = "from ufuser.runtime.processes import become_worker; import time; become_worker(); time.sleep(60)"


@POSIX
def test_a_worker_ends_with_its_parent() -> None:
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WORKER!r}])\n"
        "time.sleep(2); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
