"""The writer of files: special files, links, names, locks between processes, full disks."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, require_folder, require_writable, write_bytes
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import write_image
from ufuser.runtime.locks import FileLock, require_unlocked
from ufuser.runtime.outputs import check_outputs, of_sink, timed_name
from ufuser.runtime.sinks import SinkContext, VideoSink
from ufuser.runtime.sinks.opening import open_sink

pytestmark = pytest.mark.skipif(os.name == "nt", reason="FIFOs, devices and locks of POSIX")


def kind(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


@pytest.fixture
def null(tmp_path: Path) -> Path:
    """A null device of our own: the real one must not be at risk."""
    path = tmp_path / "null.json"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.write_bytes(b"")
    except OSError:
        pytest.skip("a device needs the superuser and a file system that allows it")
    return path


def test_a_device_is_written_into_and_stays(null: Path) -> None:
    require_writable(null)
    write_bytes(null, b"{}")
    write_bytes(null, b"{}", executable=True)
    assert kind(null) == stat.S_IFCHR
    assert stat.S_IMODE(null.stat().st_mode) & 0o111 == 0
    assert os.listdir(null.parent) == [null.name]


def test_a_full_device_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        pytest.skip("a device needs the superuser and a file system that allows it")
    with pytest.raises(InputError, match=r"cannot write .*full.json: No space left on device"):
        write_bytes(path, b"{}")
    assert kind(path) == stat.S_IFCHR


def test_a_fifo_is_written_into_and_stays(tmp_path: Path) -> None:
    path, found = tmp_path / "report.json", []
    os.mkfifo(path)
    require_writable(path)  # does not wait for a reader
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_bytes(path, b"x" * 200_000)
    reader.join()
    assert found == [b"x" * 200_000]
    assert kind(path) == stat.S_IFIFO


def test_a_socket_and_a_block_device_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))
        for call in (lambda: require_writable(path), lambda: write_bytes(path, b"{}")):
            with pytest.raises(InputError, match="it is a socket, expected a file, a device or a FIFO"):
                call()
        assert kind(path) == stat.S_IFSOCK
    disk = tmp_path / "disk.json"
    try:
        os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(240, 0))
    except OSError:
        return
    with pytest.raises(InputError, match="it is a block device"):
        write_bytes(disk, b"{}")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_needs_a_regular_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    os.mkfifo(path)
    with pytest.raises(InputError, match="it is a FIFO, expected a regular file"):
        VideoSink(path, 25)
    assert kind(path) == stat.S_IFIFO


def test_standard_output_in_a_file_keeps_what_is_in_it(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from ufuser.runtime.files import write_bytes\n"
        "print('before', flush=True); write_bytes(Path('/dev/stdout'), b'{}\\n'); print('after')"
    )
    log = tmp_path / "log"
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert log.read_text() == "before\n{}\nafter\n"
    assert os.listdir(tmp_path) == ["log"]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (("a.json", "there/a.json"), ("b.json", "there/new.json")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "there/a.json").write_bytes(b"old")
    write_bytes(tmp_path / "a.json", b"new")
    write_bytes(tmp_path / "b.json", b"new")  # a link to nothing yet
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "b.json").is_symlink()
    assert (tmp_path / "there/a.json").read_bytes() == b"new" == (tmp_path / "there/new.json").read_bytes()
    (tmp_path / "loop.json").symlink_to("loop.json")
    with pytest.raises(InputError, match=r"cannot write .*loop.json: Too many levels of symbolic links"):
        write_bytes(tmp_path / "loop.json", b"new")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "loop.json", "there"]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    longest = Path("é" * 125 + ".json")  # 255 bytes
    write_bytes(longest, b"{}")
    assert longest.read_bytes() == b"{}"
    longest.unlink()
    for name, message in (
        ("x" * 251 + ".json", "File name too long"),
        ("a\0b", "without a NUL"),
        ("caf\udce9.json", r"caf\\xe9.json': expected a name in UTF-8"),
    ):
        for call in (write_bytes, lambda path, _: make_folder(path), lambda path, _: require_folder(path)):
            with pytest.raises(InputError, match=message):
                call(Path(name), b"")
    assert os.listdir(tmp_path) == []


def test_a_script_may_be_run(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x.sh", b"#!/bin/sh\n", executable=True)
    assert os.access(tmp_path / "x.sh", os.X_OK)
    write_bytes(tmp_path / "x.txt", b"")
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) & 0o111 == 0


@pytest.mark.parametrize("pattern", ["%D.mkv", "%", "%D", "a%Db.mp4"])
def test_patterns_that_give_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    if pattern == "%":
        assert timed_name(Path(pattern)) == Path("%")
        return
    with pytest.raises(InputError, match="the time does not give the name of a file"):
        timed_name(Path(pattern))
    with pytest.raises(InputError):
        open_sink(pattern, SinkContext())
    with pytest.raises(InputError, match="the time does not give"):
        timed_name(Path("%A" * 100))


def test_outputs_and_inputs_are_compared_by_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "in.png").write_bytes(b"x")
    os.link("in.png", "hard.png")
    os.symlink("in.png", "soft.png")
    os.symlink("../in.png", "d/linked.png")
    for name in ("in.png", "./in.png", "d/../in.png", "hard.png", "soft.png", str(tmp_path / "in.png"), "d"):
        with pytest.raises(
            InputError, match=rf"^out={Path(name)}: it is the same file or folder as the input in.png"
        ):
            check_outputs({"out": name}, ("in.png",))
    with pytest.raises(InputError, match="the same file or folder as the input d"):
        check_outputs({"out": "in.png"}, ("d",))  # the folder's picture is this file
    check_outputs({"out": "new.png"}, ("in.png", None, "lite"))
    os.symlink("new.mkv", "to-new.mkv")
    for one, two in (
        ("new.mkv", "./new.mkv"),
        ("new.mkv", "to-new.mkv"),
        ("new.mkv", "new.mkv?codec=h264"),
        ("file:new.mkv", "new.mkv"),
        ("folder:d", "d/"),
        ("%Y.mkv", "%Y.mkv"),
    ):
        with pytest.raises(InputError, match="as the output"):
            check_outputs({"out": [of_sink(one), of_sink(two)]})
    check_outputs({"out": [of_sink("a.mkv"), of_sink("b.mkv"), of_sink("null:"), of_sink("null:")]})


def test_a_device_may_be_given_twice(null: Path) -> None:
    check_outputs({"json": null, "csv": null}, (null,))


def frame(number: int = 0) -> Frame:
    return Frame(np.full((32, 48, 3), number, np.uint8), number / 25, number, "test")


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Path]:
    """A file that another process records to; it takes a frame whenever it gets a line."""
    path = tmp_path / "rec.mkv"
    code = (
        "import sys; import numpy as np; from ufuser.runtime.frame import Frame\n"
        "from ufuser.runtime.sinks import SinkContext; from ufuser.runtime.sinks.opening import open_sink\n"
        f"sink = open_sink({str(path)!r}, SinkContext())\n"
        "for n, _ in enumerate(sys.stdin):\n"
        "    sink.write(Frame(np.full((32, 48, 3), n, np.uint8), n / 25, n, 'test')); print('written', flush=True)\n"
        "sink.close()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"
    yield path
    process.stdin.write("\n\n")
    process.stdin.close()
    assert process.wait(60) == 0
    import av

    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3, "what the other process recorded is whole"


def test_a_second_process_does_not_write_what_one_records(recording: Path) -> None:
    message = "another output is being written there"
    with pytest.raises(InputError, match=message):
        open_sink(str(recording), SinkContext())
    with pytest.raises(InputError, match=message):
        VideoSink(recording, 25)
    for call in (lambda: write_bytes(recording, b"x"), lambda: FileLock(recording)):
        with pytest.raises(InputError, match=message):
            call()
    link = recording.with_name("link.mkv")
    link.symlink_to(recording.name)
    with pytest.raises(InputError, match=message):
        write_bytes(link, b"x")
    assert sorted(os.listdir(recording.parent)) == ["link.mkv", recording.name]


def test_a_recording_that_began_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    video = VideoSink(path, 25)
    video.write(frame())
    recording = open_sink(str(path), SinkContext())
    recording.write(frame())
    with pytest.raises(InputError, match="another output is being written there"):
        video.close()
    recording.close()
    require_unlocked(path)
    assert os.listdir(tmp_path) == ["x.mkv"]


def test_two_processes_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    code = (
        "import sys; from pathlib import Path; from ufuser.runtime.files import write_bytes\n"
        f"for _ in range(30): write_bytes(Path({str(path)!r}), sys.argv[1].encode() * 300_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, letter]) for letter in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    content = path.read_bytes()
    assert content in (b"a" * 300_000, b"b" * 300_000)
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 30 kB: a write behind it fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # Python ignores the signal
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_full_disk_keeps_the_older_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"older")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    with pytest.raises(InputError, match=rf"cannot write .*x\{suffix}: File too large"):
        write_image(path, noise)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"older"
