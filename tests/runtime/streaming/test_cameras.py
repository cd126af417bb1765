"""Each kind of camera: stamps, formats, ends and failures."""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import cv2
import numpy as np
import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.sinks import VideoSink
from ufuser.runtime.sources import v4l2, v4l2_formats
from ufuser.runtime.sources.gstreamer import GStreamerCamera, complete, csi_pipeline
from ufuser.runtime.sources.opening import Cameras
from ufuser.runtime.sources.source import Source, Status
from ufuser.runtime.sources.stamps import StampMap
from ufuser.runtime.sources.v4l2 import V4l2Camera, counts
from ufuser.runtime.uri import Uri, split

# Stamps


def test_stamps_are_mapped_by_the_quickest_arrival() -> None:
    stamps, rng = StampMap(), np.random.default_rng(0)
    mapped = []
    for index in range(400):
        stamp, delay = index / 25, 0.02 + float(rng.exponential(0.01))
        mapped.append((stamps.map(1e6 + stamp, 50 + stamp + delay), 50 + stamp))
    errors = [found - true for found, true in mapped[100:]]
    assert max(errors) < 0.0215, "late by the smallest delay alone"
    assert min(errors) >= 0.0199


def test_mapped_stamps_never_fall_nor_lie_ahead() -> None:
    stamps, latest = StampMap(), -1.0
    for arrival, stamp in (
        (10, 0),
        (10.2, 0.04),
        (10.21, 0.2),
        (10.4, 0.4),
        (10.5, 7.0),
        (10.6, 7.1),
        (10.7, 0.0),
    ):
        mapped = stamps.map(stamp, arrival)
        assert latest <= mapped <= arrival
        latest = mapped
    assert latest == pytest.approx(10.7, abs=0.2), "after the camera's clock was set anew"


def test_a_drifting_clock_is_followed() -> None:
    stamps = StampMap()
    for index in range(5000):
        true = index / 25
        mapped = stamps.map(true * (1 - 2e-4), 100 + true + 0.01)
    assert 100 + true - mapped == pytest.approx(0, abs=0.02), "it lost 40 ms in all"


# Played cameras


def drain(camera: Source, seconds: float) -> list[Frame]:
    deadline, frames = time.monotonic() + seconds, []
    while time.monotonic() < deadline:
        reading = camera.read(0.1)
        if reading.frame is not None:
            frames.append(reading.frame)
        if reading.status is Status.END:
            break
    return frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Thirty frames at 25 frames per second, each with its own grey level."""
    with VideoSink(tmp_path / "clip.mkv", 25) as sink:
        for index in range(30):
            sink.write(Frame(np.full((48, 64), 8 * index, np.uint8), index / 25, index, "x"))
    return tmp_path / "clip.mkv"


def test_a_file_is_read_as_fast_as_possible_with_its_own_stamps(clip: Path) -> None:
    camera = Cameras("other.mp4", str(clip), Clock()).open("vi")
    assert not camera.live
    began = time.monotonic()
    frames = drain(camera, 5)
    assert time.monotonic() - began < 1
    assert [f.timestamp for f in frames] == pytest.approx(np.arange(30) / 25, abs=2e-3)
    assert all(f.arrival >= began for f in frames)


def test_a_file_played_live_keeps_its_pace(clip: Path) -> None:
    began = time.monotonic()
    cameras = Cameras(f"{clip}?live=1&fps=60", "other.mp4", Clock())
    cameras.start()
    frames = drain(cameras.open("ir"), 3)
    assert time.monotonic() - began == pytest.approx(29 / 60, abs=0.25)
    stamps = np.asarray([f.timestamp for f in frames])
    assert stamps - began == pytest.approx(np.asarray([f.sequence for f in frames]) / 60, abs=0.05)
    assert all(f.arrival - f.timestamp >= -0.001 for f in frames)
    assert [int(f.image[20, 20, 0]) for f in frames] == [8 * f.sequence for f in frames]


def test_a_looped_file_continues_where_it_would_be_after_reopening(clip: Path) -> None:
    cameras = Cameras(f"{clip}?live=1&fps=200&loop=1", "other.mp4", Clock())
    cameras.start()
    frames = drain(cameras.open("ir"), 0.5)
    assert frames[-1].sequence > 40
    again = drain(cameras.open("ir"), 0.3)
    assert again[0].sequence >= frames[-1].sequence
    for f in (*frames, *again):
        assert int(f.image[20, 20, 0]) == 8 * (f.sequence % 30)


def test_a_folder_beside_a_camera_is_played(tmp_path: Path) -> None:
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 20), index, np.uint8))
    cameras = Cameras(f"folder:{tmp_path}?fps=50", "sim://visible?size=64x64", Clock())
    assert cameras.live
    cameras.start()
    frames = drain(cameras.open("ir"), 2)
    assert [int(f.image[0, 0]) for f in frames] == [f.sequence for f in frames]
    assert frames[-1].timestamp - frames[0].timestamp == pytest.approx(
        (frames[-1].sequence - frames[0].sequence) / 50
    )


def test_drops_jitter_and_offset_of_a_played_file(clip: Path) -> None:
    uri = f"{clip}?live=1&fps=100&loop=1&drop=0.3&jitter=4ms&offset=500ms"
    cameras = Cameras(uri, "other.mp4", Clock())
    began = time.monotonic()
    cameras.start()
    frames = drain(cameras.open("ir"), 1)
    off = np.asarray([f.timestamp - began - f.sequence / 100 for f in frames])
    assert off == pytest.approx(0.5, abs=0.006)
    assert off.std() > 0.001
    assert 40 < len(frames) < 85


def test_simulated_cameras_share_their_street_over_reopenings() -> None:
    cameras = Cameras("sim://thermal?size=64x64&fps=50", "sim://visible?size=64x64&fps=50", Clock())
    cameras.check()
    cameras.start()
    first, second, third = cameras.open("ir"), cameras.open("vi"), cameras.open("ir")
    scenes = {id(camera._feed._camera.scene) for camera in (first, second, third)}  # type: ignore[attr-defined]
    assert len(scenes) == 1
    ir, vi = drain(first, 0.3), drain(second, 0.3)
    assert ir[0].image.ndim == 2
    assert vi[0].image.shape == (64, 64, 3)


def test_a_camera_that_is_read_too_late_skips_frames() -> None:
    cameras = Cameras("sim://thermal?size=64x64&fps=20", "sim://visible?size=64x64", Clock())
    cameras.check()
    cameras.start()
    camera = cameras.open("ir")
    assert camera.read(1).frame is not None
    time.sleep(0.5)
    reading = camera.read(1)
    assert reading.frame is not None
    assert reading.late >= 8
    assert reading.frame.arrival - reading.frame.timestamp < 0.2, "the newest, not the oldest"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("?drop=0.5", "drop only with live=1"),
        ("?live=1&jitter=1s", "at most half a frame"),
        ("?live=yes", "expected 0 or 1"),
        ("?lve=1", "did you mean live"),
    ],
)
def test_bad_options_of_a_file(clip: Path, uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cameras(f"{clip}{uri}", "other.mp4", Clock()).open("ir")


# V4L2


class Device:
    """OpenCV's capture of a camera that offers two formats."""

    def __init__(self, path: str, backend: int) -> None:
        assert backend == cv2.CAP_V4L2
        self.values: dict[int, float] = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV"),
            cv2.CAP_PROP_FRAME_WIDTH: 320,
            cv2.CAP_PROP_FRAME_HEIGHT: 240,
            cv2.CAP_PROP_FPS: 9,
        }
        self.sizes = {(640, 512), (320, 240)}
        self.released = False
        self.flat = True
        self.fail = False
        self.driver: Callable[[], float] = time.monotonic

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, key: int, value: float) -> bool:
        if key == cv2.CAP_PROP_FOURCC and value not in {cv2.VideoWriter.fourcc(*f) for f in ("Y16 ", "YUYV")}:
            return False
        self.values[key] = value
        return True

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return self.driver() * 1000
        return self.values.get(key, 0)

    def grab(self) -> bool:
        return not self.fail

    def retrieve(self) -> tuple[bool, Any]:
        w, h = int(self.values[cv2.CAP_PROP_FRAME_WIDTH]), int(self.values[cv2.CAP_PROP_FRAME_HEIGHT])
        raw = (np.arange(w * h) % 16384).astype("<u2")
        if self.values.get(cv2.CAP_PROP_CONVERT_RGB, 1) == 0:
            return True, raw.view(np.uint8).reshape(1, -1) if self.flat else raw.reshape(h, w)
        return True, np.zeros((h, w, 3), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """A fake /dev/video0; returns the captures opened on it."""
    made: list[Device] = []
    monkeypatch.setattr(v4l2, "require_device", lambda path: None)
    monkeypatch.setattr(v4l2, "offered", lambda path: ["YUYV 320x240", "Y16 640x512, 320x240"])
    monkeypatch.setattr(v4l2.Path, "exists", lambda self: True)
    return made


def v4l2_camera(made: list[Device], query: str) -> V4l2Camera:
    def capture(path: str, backend: int) -> Device:
        made.append(Device(path, backend))
        return made[-1]

    text = f"v4l2:///dev/video0{query}"
    return V4l2Camera(Uri(text, "v4l2", "/dev/video0", dict(parse_qsl(query.lstrip("?")))), Clock(), capture)


@pytest.mark.parametrize("flat", [True, False])
def test_y16_gives_counts(device: list[Device], flat: bool) -> None:
    camera = v4l2_camera(device, "?format=Y16&size=640x512")
    device[0].flat = flat
    frame = camera.read(1).frame
    assert frame is not None
    assert (frame.image.dtype, frame.image.shape) == (np.uint16, (512, 640))
    np.testing.assert_array_equal(frame.image.ravel(), np.arange(640 * 512) % 16384)
    camera.close()
    assert device[0].released


def test_rows_of_telemetry_are_cut_off(device: list[Device]) -> None:
    frame = v4l2_camera(device, "?format=Y16&size=640x512&rows=510").read(1).frame
    assert frame is not None
    assert frame.image.shape == (510, 640)


def test_stamps_of_the_driver_and_of_arrival(device: list[Device]) -> None:
    camera = v4l2_camera(device, "")
    taken = time.monotonic() - 0.03
    device[0].driver = lambda: taken
    frame = camera.read(1).frame
    assert frame is not None
    assert frame.timestamp == pytest.approx(taken, abs=1e-6)
    device[0].driver = lambda: 0.0
    before = time.monotonic()
    frame = camera.read(1).frame
    assert frame is not None
    assert frame.timestamp >= before
    assert [frame.sequence, frame.image.shape] == [1, (240, 320, 3)]


def test_the_error_of_a_refused_format_lists_the_formats(device: list[Device]) -> None:
    with pytest.raises(
        InputError, match=r"refused MJPG.*would give YUYV 320x240.*offers: YUYV 320x240; Y16 640x512"
    ):
        v4l2_camera(device, "?format=MJPG")
    assert device[0].released


def test_an_unplugged_device_is_an_error_and_a_silent_one_a_timeout(
    device: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = v4l2_camera(device, "")
    device[0].fail = True
    statuses = [camera.read(0.1).status for _ in range(5)]
    assert statuses == [Status.TIMEOUT] * 4 + [Status.ERROR], "failing at once, again and again"
    monkeypatch.setattr(v4l2.Path, "exists", lambda self: False)
    reading = camera.read(0.1)
    assert (reading.status, reading.detail) == (Status.ERROR, "v4l2:///dev/video0: the device has gone")


def test_counts_refuse_eight_bits() -> None:
    with pytest.raises(InputError, match="expected 16 bits a pixel"):
        counts(np.zeros((512, 640, 3), np.uint8), (640, 512))


@pytest.mark.skipif(not hasattr(v4l2_formats.os, "O_NONBLOCK"), reason="POSIX")
def test_the_formats_come_from_the_kernel() -> None:
    def kernel(descriptor: int, request: int, buffer: bytearray) -> None:
        if request == v4l2_formats.ENUM_FMT:
            (index,) = struct.unpack_from("=I", buffer)
            if index > 1:
                raise OSError(errno.EINVAL, "Invalid argument")
            buffer[44:48] = (b"YUYV", b"Y16 ")[index]
        else:
            index, fourcc = struct.unpack_from("=I4s", buffer)
            if fourcc == b"Y16 ":
                struct.pack_into("=6I", buffer, 12, 80, 640, 2, 60, 512, 2)
                struct.pack_into("=I", buffer, 8, 3)
            elif index < 2:
                struct.pack_into("=III", buffer, 8, 1, *((640, 480), (320, 240))[index])
            else:
                raise OSError(errno.EINVAL, "Invalid argument")

    assert v4l2_formats.offered(Path("/dev/null"), kernel) == [
        "YUYV 640x480, 320x240",
        "Y16 80x60 to 640x512",
    ]
    assert (v4l2_formats.ENUM_FMT, v4l2_formats.ENUM_FRAMESIZES, v4l2_formats.REQBUFS) == (
        0xC0405602,
        0xC02C564A,
        0xC0145608,
    )


def test_busy_and_broken_devices_differ() -> None:
    def busy(descriptor: int, request: int, buffer: bytearray) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    assert v4l2_formats.is_busy(Path("/dev/null"), busy)
    assert not v4l2_formats.is_busy(Path("/dev/null"), lambda *_: None)
    assert not v4l2_formats.is_busy(Path("/dev/gone"), busy), "it disappeared meanwhile"


def test_a_device_that_disappears_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Device):
        def isOpened(self) -> bool:  # noqa: N802
            return False

    assert not v4l2_formats.is_busy(Path("/dev/video99"))
    monkeypatch.setattr(v4l2, "require_device", lambda path: None)
    with pytest.raises(InputError, match="cannot open /dev/video99: OpenCV cannot open it"):
        V4l2Camera(split("v4l2:///dev/video99"), Clock(), Gone)


def test_an_exception_while_opening_is_one_line_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such device", "rtsp://user:secret@host")

    monkeypatch.setattr(v4l2, "require_device", vanish)
    with pytest.raises(InputError, match=r"^v4l2:///dev/video0: .*No such device: 'rtsp://\*\*\*@host'$"):
        Cameras("v4l2:///dev/video0", "sim://visible", Clock()).open("ir")


@pytest.mark.parametrize(
    ("format", "repeats"), [("", True), ("?format=Y16&size=640x512", True), ("?format=MJPG", False)]
)
def test_repetition_means_something_for_raw_formats_only(
    device: list[Device], monkeypatch: pytest.MonkeyPatch, format: str, repeats: bool
) -> None:
    known = Device.set

    def takes_mjpg(self: Device, key: int, value: float) -> bool:
        if value == cv2.VideoWriter.fourcc(*"MJPG"):
            self.values[key] = value
            return True
        return known(self, key, value)

    monkeypatch.setattr(Device, "set", takes_mjpg)
    assert v4l2_camera(device, format).repeats is repeats


def test_repetition_of_files(clip: Path, tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        (tmp_path / suffix).mkdir()
        cv2.imwrite(str(tmp_path / suffix / f"0.{suffix}"), np.zeros((20, 20), np.uint8))
    with VideoSink(tmp_path / "lossy.mp4", 25) as sink:
        sink.write(Frame(np.zeros((48, 64), np.uint8), 0.0, 0, "x"))
    for live in ("", "?live=1&fps=25"):
        for name, repeats in (("png", True), ("jpg", False), ("clip.mkv", True), ("lossy.mp4", False)):
            assert Cameras(f"{tmp_path / name}{live}", "other.mp4", Clock()).open("ir").repeats is repeats


def test_files_that_are_no_devices() -> None:
    with pytest.raises(InputError, match="no device /dev/video99"):
        v4l2_formats.require_device(Path("/dev/video99"))
    with pytest.raises(InputError, match="is no video device"):
        v4l2_formats.require_device(Path(__file__))


# GStreamer


def test_pipelines() -> None:
    assert csi_pipeline(split("csi://1?size=1280x720&fps=30&flip=2&mode=4")).startswith(
        "nvarguscamerasrc sensor-id=1 sensor-mode=4 ! "
        "video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! nvvidconv flip-method=2 ! "
    )
    assert complete("videotestsrc").endswith("format=BGR ! appsink drop=true max-buffers=2 sync=false")
    mine = "videotestsrc ! video/x-raw,format=GRAY16_LE ! appsink"
    assert complete(mine) == mine


@pytest.mark.skipif(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")
def test_opencv_without_gstreamer_is_an_error() -> None:
    with pytest.raises(InputError, match="this OpenCV has no GStreamer"):
        GStreamerCamera("gst:videotestsrc", "videotestsrc", Clock())


@pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has no GStreamer"
)
def test_gstreamer_gives_frames() -> None:
    camera = GStreamerCamera("gst:", "videotestsrc is-live=true ! video/x-raw,width=64,height=48", Clock())
    frames = drain(camera, 1)
    camera.close()
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[-1].timestamp > frames[0].timestamp
