"""What comes in and what goes out: pictures, folders, videos, simulated cameras."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import as_float, depth_kept, read_grey, read_image, write_image
from ufuser.runtime.sinks import FolderSink, ImageSink, VideoSink
from ufuser.runtime.sources import Cameras, ImagesSource, VideoSource, frames, open_source, pictures_in
from ufuser.runtime.video import Encoder, yuv420
from ufuser.simulation.source import SimSource


def picture(shape: tuple[int, ...], seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A picture a lossy codec can keep."""
    return cv2.GaussianBlur(picture(shape, seed), (0, 0), 5)


def frame(image: np.ndarray, sequence: int = 0, source: str = "test") -> Frame:
    return Frame(image, float(sequence), sequence, source)


# Pictures


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_and_colour_survive(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: type) -> None:
    image, path = picture(shape, dtype=dtype), tmp_path / f"ü{suffix}"
    write_image(path, image)
    again = read_image(path)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, image)
    assert os.listdir(tmp_path) == [path.name]


def test_float_tiff_survives(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((20, 30), np.float32)
    write_image(tmp_path / "x.tif", image)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), image)


def test_depth_a_format_has_not_is_scaled(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16 * 256).astype(np.uint16).reshape(16, 256)
    write_image(tmp_path / "x.bmp", deep)
    np.testing.assert_array_equal(read_image(tmp_path / "x.bmp"), np.rint(deep / 257).astype(np.uint8))
    write_image(tmp_path / "x.png", np.array([[0, 0.5, 1]], np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), [[0, 32768, 65535]])
    assert depth_kept(Path("x.PNG"), np.dtype(np.uint16))
    assert not depth_kept(Path("x.jpg"), np.dtype(np.uint16))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_reading_gives_the_luma_but_for_rounding(tmp_path: Path, dtype: type) -> None:
    colour, path = picture((20, 30, 3), dtype=dtype), tmp_path / "x.png"
    write_image(path, colour)
    grey = read_grey(path)
    assert grey.dtype == dtype
    np.testing.assert_allclose(
        grey, luma(colour), atol=np.iinfo(dtype).max / 255
    )  # decoders round differently
    scaled = as_float(grey)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, grey / np.iinfo(dtype).max, atol=1e-7)


def test_grey_reading_refuses_floats(tmp_path: Path) -> None:
    write_image(tmp_path / "x.tif", np.zeros((20, 30), np.float32))
    with pytest.raises(InputError, match="8 or 16 bits"):
        read_grey(tmp_path / "x.tif")


def test_alpha_is_dropped(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), picture((20, 30, 4)))
    assert read_image(tmp_path / "x.png").shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp", ".ppm"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.97])
def test_truncated_picture(tmp_path: Path, suffix: str, part: float) -> None:
    data = cv2.imencode(suffix, picture((64, 80, 3)))[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"cut\."):
        read_image(path)


def test_cut_jpeg_with_a_thumbnail_is_noticed(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", picture((64, 80, 3)))[1].tobytes()
    thumbnail = cv2.imencode(".jpg", picture((8, 8, 3)))[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path = tmp_path / "x.jpg"
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_image(path).shape == (64, 80, 3)
    path.write_bytes((data[:2] + segment + data[2:])[:-300])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("flags", [[cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_other_jpegs_with_data_behind_the_end(tmp_path: Path, flags: list[int]) -> None:
    data = cv2.imencode(".jpg", picture((64, 80, 3)), flags)[1].tobytes()
    (tmp_path / "x.jpg").write_bytes(data + b"appended by a camera" * 9)
    assert read_image(tmp_path / "x.jpg").shape == (64, 80, 3)


def test_png_with_a_flipped_bit(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".png", picture((64, 80, 3)))[1].tobytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_image(tmp_path / "x.png")


def test_png_that_claims_to_be_huge(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(InputError, match="megapixels: expected at most"):
        read_image(tmp_path / "x.png")


# Sources


def test_folder_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.PNG"):
        (tmp_path / name).write_bytes(cv2.imencode(name[-4:].lower(), picture((20, 30)))[1].tobytes())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = ImagesSource(pictures_in(tmp_path), "x")
    found = list(source)
    assert (source.length, source.fps, source.live) == (3, None, False)
    assert [Path(f.source).name for f in found] == ["a.jpg", "b.png", "c.PNG"]
    assert [f.sequence for f in found] == [0, 1, 2]


def test_single_picture(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", picture((20, 30, 3)))
    (only,) = frames(open_source(str(tmp_path / "x.png")))
    assert only.image.shape == (20, 30, 3)


def test_video(tmp_path: Path) -> None:
    images = [smooth((32, 48, 3), seed) for seed in range(7)]
    _write(tmp_path / "x.mkv", images, 30000 / 1001)
    with VideoSource(tmp_path / "x.mkv") as source:
        assert source.length == 7
        assert source.fps == pytest.approx(29.97, abs=0.01)
        found = list(source)
    assert [f.sequence for f in found] == list(range(7))
    np.testing.assert_allclose([f.timestamp for f in found], np.arange(7) * 1001 / 30000, atol=2e-3)
    for got, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(got.image, image)


def test_rest_of_a_video_is_counted(tmp_path: Path) -> None:
    _write(tmp_path / "x.avi", [smooth((32, 48, 3))] * 9)
    with VideoSource(tmp_path / "x.avi") as source:
        assert len(list(itertools.islice(source, 4))) == 4
        assert source.count_rest() == 5
    with VideoSource(tmp_path / "x.avi") as source:
        assert source.count_rest() == 9


def simulated(ir: str, vi: str) -> tuple[SimSource, SimSource]:
    cameras = Cameras(ir, vi, Clock(), paced=False)
    first, second = cameras.open("ir"), cameras.open("vi")
    assert isinstance(first, SimSource)
    assert isinstance(second, SimSource)
    return first, second


def test_simulated_pair_shares_its_street() -> None:
    ir, vi = simulated("sim://thermal?size=96x64&ffc=1&fps=10", "sim://visible?size=96x64&fps=10")
    assert ir._camera.scene is vi._camera.scene
    assert (ir.length, ir.live) == (None, False)
    found = list(itertools.islice(frames(ir), 13))
    assert [f.timestamp for f in found] == pytest.approx(np.arange(13) / 10)
    assert found[9].flags == frozenset()
    assert found[11].flags == {"frozen"}


def test_simulated_pair_of_two_streets() -> None:
    ir, vi = simulated("sim://thermal?size=96x64&seed=1", "sim://visible?size=96x64")
    assert ir._camera.scene is not vi._camera.scene


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("rstp://camera/1", r"unknown scheme 'rstp', expected .*sim.*did you mean rtsp"),
        ("sim://infrared", "expected sim://visible or sim://thermal"),
        ("gone.png", "no file or folder"),
        ("empty", "no pictures in"),
        ("text.txt", "neither a picture"),
        ("text.mp4", "cannot be read as a video"),
        ("text.png", "cannot be read as a picture"),
    ],
)
def test_what_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("text.txt", "text.mp4", "text.png"):
        (tmp_path / name).write_text("just text")
    with pytest.raises(InputError, match=message):
        open_source(uri)


# Sinks


def _write(path: Path, images: list[np.ndarray], fps: float = 25.0) -> None:
    with VideoSink(path, fps) as sink:
        for number, image in enumerate(images):
            sink.write(frame(image, number))


@pytest.mark.parametrize("shape", [(32, 48, 3), (33, 49, 3), (33, 49)])
def test_mkv_is_lossless(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = [picture(shape, seed) for seed in range(3)]
    _write(tmp_path / "x.mkv", images)
    for got, image in zip(VideoSource(tmp_path / "x.mkv"), images, strict=True):
        expected = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        np.testing.assert_array_equal(got.image, expected)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("shape", [(64, 48, 3), (65, 49, 3), (65, 49)])
def test_lossy_video_resembles_and_grows_to_even_sides(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    image = smooth(shape)
    _write(tmp_path / f"x{suffix}", [image] * 4)
    frames = list(VideoSource(tmp_path / f"x{suffix}"))
    assert len(frames) == 4
    height, width = shape[:2]
    assert frames[0].image.shape == (height + height % 2, width + width % 2, 3)
    expected = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    error = np.abs(frames[-1].image[:height, :width].astype(float) - expected)
    assert error.mean() < 6


@pytest.mark.parametrize("level", [0, 10, 100, 200, 255])
def test_grey_stays_grey_in_mp4(tmp_path: Path, level: int) -> None:
    _write(tmp_path / "x.mp4", [np.full((32, 32), level, np.uint8)] * 2)
    (got, _) = VideoSource(tmp_path / "x.mp4")
    assert np.abs(got.image.astype(int) - level).max() <= 1


def test_planes_of_mp4_are_bt601() -> None:
    red = np.zeros((2, 4, 3), np.uint8)
    red[..., 2] = 255
    planes = yuv420(red)
    assert planes.shape == (3, 4)
    assert (planes[:2] == 81).all()
    np.testing.assert_array_equal(planes[2], [90, 90, 240, 240])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"an older video")

    def fail() -> None:
        with VideoSink(path, 25) as sink:
            sink.write(frame(smooth((32, 48, 3))))
            assert len(os.listdir(tmp_path)) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"an older video"


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 30 kB: a write behind it fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # Python ignores the signal
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_an_error_and_the_older_video_stays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"an older video")
    with pytest.raises(InputError, match=rf"cannot write .*x\{suffix}: File too large"):
        _write(path, [picture((48, 64, 3), seed) for seed in range(60)])
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"an older video"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_that_lost_its_frames_is_not_published(tmp_path: Path, suffix: str) -> None:
    """A file system that loses data without an error."""
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"an older video")
    sink = VideoSink(path, 25)
    for number in range(20):
        sink.write(frame(picture((48, 64, 3), number), number))
    (unfinished,) = set(tmp_path.iterdir()) - {path}
    finish = Encoder.close

    def finish_and_lose(encoder: Encoder) -> None:
        finish(encoder)
        os.truncate(unfinished, unfinished.stat().st_size * 2 // 3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "close", finish_and_lose)
        with pytest.raises(InputError, match=r"frames are in the file|cannot be read again"):
            sink.close()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"an older video"


def test_a_published_file_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut there is the old file or the new one, but no empty one."""
    done: list[str] = []

    def recorded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(first: Any, *rest: Any) -> Any:
            if isinstance(first, int):
                kind = "folder" if stat.S_ISDIR(os.fstat(first).st_mode) else "file"
                size = os.fstat(first).st_size if kind == "file" else 0
                done.append(f"{name} {kind}" + (" (empty)" if kind == "file" and not size else ""))
            else:
                done.append(name)
            return call(first, *rest)

        return run

    monkeypatch.setattr(os, "fsync", recorded("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", recorded("replace", os.replace))
    whole = ["fsync file", "replace", "fsync folder"]
    write_bytes(tmp_path / "calibration.json", b"{}")
    assert done == whole
    done.clear()
    _write(tmp_path / "x.mkv", [picture((32, 48, 3))])
    assert done == whole
    done.clear()
    with FolderSink(tmp_path / "pictures") as sink:
        for number in range(3):
            sink.write(frame(picture((20, 30)), number))
    assert done == ["fsync file", "replace"] * 3 + ["fsync folder"], "the folder once, at the end"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Network shares that cannot do it are no error, a failing disk is."""
    flush = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if code == errno.EINVAL:
        write_bytes(tmp_path / "x", b"data")
    else:
        with pytest.raises(InputError, match="cannot write into"):
            write_bytes(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


def test_video_without_frames_is_none(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "x.mp4", 25):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("image", [picture((32, 50, 3)), picture((32, 48), dtype=np.uint16)])
def test_video_refuses_other_frames(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="the video takes 48x32 uint8"):
        _write(tmp_path / "x.mkv", [picture((32, 48, 3)), image])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".gif", ".webm", ""])
def test_unknown_video_suffix_names_the_known(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=r"\.mp4.*\.mkv.*\.avi"):
        VideoSink(tmp_path / f"x{suffix}", 25)


def test_pyav_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix in (".mp4", ".mkv", ".avi"):
        with pytest.raises(InputError, match=r"PyAV is not installed.*ufuser\[cpu\]"):
            VideoSink(tmp_path / f"x{suffix}", 25)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="it is a folder"):
        ImageSink(tmp_path / "folder.png")
    with pytest.raises(InputError, match="it is a folder"):
        VideoSink(tmp_path / "folder.mp4", 25)
    with pytest.raises(InputError, match="there is no folder"):
        ImageSink(tmp_path / "gone" / "x.png")
    with pytest.raises(InputError, match="there is no folder"):
        VideoSink(tmp_path / "gone" / "x.mp4", 25)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="a file is in its place"):
            FolderSink(folder)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4", "folder.png"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            ImageSink(tmp_path / "x.png")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write_bytes(tmp_path / "x", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write_bytes(tmp_path / ("x" * 300), b"")


def test_refusal_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_bytes(tmp_path / "x.png", b"data")
    assert os.listdir(tmp_path) == []


def test_folder_sink_names(tmp_path: Path) -> None:
    image = picture((20, 30))
    with FolderSink(tmp_path / "a" / "b", named_by_source=True) as sink:
        sink.write(frame(image, 4, "somewhere/FLIR_00211.v2.jpg"))
    with FolderSink(tmp_path / "c", ".jpg") as sink:
        sink.write(frame(image, 4))
    assert os.listdir(tmp_path / "a" / "b") == ["FLIR_00211.v2.png"]
    assert os.listdir(tmp_path / "c") == ["000004.jpg"]


def test_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    def fail() -> None:
        with FolderSink(tmp_path / "made"):
            raise InputError("no model")

    with pytest.raises(InputError):
        fail()
    assert os.listdir(tmp_path) == []
