"""Recordings that can be played at any moment, and the other sinks of a stream."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.sinks.recording import Recording
from ufuser.runtime.sinks.simple import Window
from ufuser.runtime.sinks.sink import SinkContext
from ufuser.runtime.uri import split

pytest.importorskip("av")
FORMATS = ["x.mp4", "x.mkv", "x.mkv?codec=h264", "x.mkv?codec=mjpeg", "x.avi"]


def picture(index: int, shape: tuple[int, ...] = (48, 64, 3)) -> np.ndarray:
    return np.full(shape, 30 + 5 * index, np.uint8)


def frame(image: np.ndarray, index: int, moment: float) -> FusedFrame:
    return FusedFrame(image, moment, index, "fused")


def played(path: Path) -> tuple[list[np.ndarray], list[float]]:
    capture, images, moments = cv2.VideoCapture(str(path)), [], []
    while True:
        done, image = capture.read()
        if not done:
            return images, moments
        images.append(image)
        moments.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)


def record(where: Path, name: str, moments: list[float], **options: tuple[int, ...]) -> Path:
    sink = Recording(split(str(where / name)))
    for index, moment in enumerate(moments):
        sink.write(frame(picture(index, **options), index, 5000 + moment))
    sink.close()
    sink.close()
    return where / name.split("?")[0]


@pytest.mark.parametrize("name", FORMATS)
def test_frames_keep_their_moments(tmp_path: Path, name: str) -> None:
    moments = [0, 0.1, 0.2, 0.35, 1.0, 1.05, 1.1, 3.0]
    images, at = played(record(tmp_path, name, [float(m) for m in moments]))
    assert len(images) == len(moments)
    assert [int(np.median(i)) for i in images] == pytest.approx([30 + 5 * n for n in range(8)], abs=3)
    if not name.endswith(".avi"):  # OpenCV counts an AVI's frames instead
        assert at == pytest.approx(moments, abs=0.002)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(48, 64), (47, 63, 3)])
def test_grey_and_odd_sizes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    images, _ = played(record(tmp_path, name, [0.1 * n for n in range(4)], shape=shape))
    assert len(images) == 4
    assert abs(images[0].shape[0] - shape[0]) <= 1
    assert np.abs(np.diff(images[2].astype(int), axis=2)).max() <= 2


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_can_be_played_before_the_end(tmp_path: Path, name: str) -> None:
    sink, path = Recording(split(str(tmp_path / name))), tmp_path / name.split("?")[0]
    rng = np.random.default_rng(0)
    for index in range(40):
        sink.write(frame(rng.integers(0, 256, (48, 64, 3), np.uint8), index, index / 10))
    shutil.copy(path, tmp_path / f"killed{path.suffix}")
    sink.close()
    images, _ = played(tmp_path / f"killed{path.suffix}")
    assert len(images) >= 40 - 6, "half a second of ten frames a second"
    assert len(played(path)[0]) == 40


@pytest.mark.parametrize("name", FORMATS)
def test_another_size_or_layout_is_scaled_to_the_first(tmp_path: Path, name: str) -> None:
    sink = Recording(split(str(tmp_path / name)))
    for index, shape in enumerate([(48, 64, 3), (96, 128, 3), (48, 64), (30, 30, 3)]):
        sink.write(frame(picture(10, shape), index, index / 10))
    sink.close()
    images, _ = played(tmp_path / name.split("?")[0])
    assert [i.shape for i in images] == [(48, 64, 3)] * 4
    assert all(int(np.median(i)) == pytest.approx(80, abs=3) for i in images)


def test_stamps_that_fall_do_not_break_a_file(tmp_path: Path) -> None:
    images, at = played(record(tmp_path, "x.mp4", [0.0, 0.5, 0.4, 0.45, 0.6]))
    assert len(images) == 5
    assert at == sorted(at)


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_an_error_and_the_beginning_can_be_played(tmp_path: Path, name: str) -> None:
    resource = pytest.importorskip("resource")
    sink, rng = Recording(split(str(tmp_path / name))), np.random.default_rng(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # Python ignores the signal

    def fill() -> None:
        for index in range(200):
            image = rng.integers(0, 256, (48, 64, 3), np.uint8)
            sink.write(frame(image, index, index / 10))
        sink.close()

    try:
        with pytest.raises(InputError, match="File too large"):
            fill()
        sink.close()  # the worker closes a sink that has failed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(played(tmp_path / name.split("?")[0])[0]) > 3


def test_the_time_in_a_name_keeps_older_recordings(tmp_path: Path) -> None:
    record(tmp_path, "r-%Y%m%d-%H%M%S.mkv", [0.0, 0.1])
    (only,) = os.listdir(tmp_path)
    assert re.fullmatch(r"r-\d{8}-\d{6}\.mkv", only)


def test_an_older_file_stays_until_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"older")
    sink = Recording(split(str(tmp_path / "x.mp4")))
    sink.close()
    assert (tmp_path / "x.mp4").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["x.mp4"]


def test_paths_and_folders(tmp_path: Path) -> None:
    for text in (f"folder:{tmp_path}/a", f"{tmp_path}/b/", str(tmp_path)):
        sink = open_sink(text, SinkContext())
        sink.write(frame(picture(1), 7, 0.0))
        sink.close()
    assert [(tmp_path / part / "000007.png").is_file() for part in ("a", "b", "")] == [True] * 3


def test_no_screen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="there is no screen"):
        Window(split("window:"))
