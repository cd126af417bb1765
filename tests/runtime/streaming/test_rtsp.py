"""Network cameras and media servers, over sockets of this machine."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.push import RtspPush
from ufuser.runtime.sinks.sink import SinkDown
from ufuser.runtime.sources.rtsp import RtspCamera
from ufuser.runtime.sources.source import Status
from ufuser.runtime.uri import split

av = pytest.importorskip("av")


def _server_module() -> Any:
    """Import the helper beside this file; the tests are no package."""
    path = Path(__file__).with_name("rtsp_server.py")
    spec = importlib.util.spec_from_file_location("rtsp_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rtsp_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[Any]:
    """Starts network cameras."""
    module, running = _server_module(), []

    def start(**options: Any) -> Any:
        running.append(module.RtspServer(**options))
        return running[-1]

    yield start
    for one in running:
        one.close()


def camera(uri: str) -> RtspCamera:
    return RtspCamera(split(uri, with_options=False), Clock())


def test_frames_come_with_stamps_of_their_capture(server: Any) -> None:
    served = server(password="hunter2")
    began = time.monotonic()
    source = camera(f"rtsp://admin:hunter2@{served.address}")
    assert source.name == f"rtsp://***@{served.address}"
    frames = [source.read(0.1).frame for _ in range(25)]
    source.close()
    assert all(f is not None and f.image.shape == (64, 96, 3) for f in frames)
    levels = np.asarray([int(f.image[30, 40, 0]) for f in frames if f is not None])
    rises = np.diff(levels)
    assert ((rises > 4) | (rises < -100)).all(), "each frame is another, in order"
    stamps = np.asarray([f.timestamp for f in frames if f is not None])
    arrivals = np.asarray([f.arrival for f in frames if f is not None])
    assert (stamps <= arrivals).all()
    assert (np.diff(stamps) >= 0).all()
    assert stamps[0] > began
    # Arrivals may be late on a busy machine; the mapped stamps keep the camera's pace.
    assert np.median(np.diff(stamps)) == pytest.approx(1 / 25, abs=0.01)


def test_wrong_password(server: Any) -> None:
    served = server(password="hunter2")
    with pytest.raises(InputError, match="the camera refused user name or password") as raised:
        camera(f"rtsp://admin:guess1@{served.address}")
    assert "guess1" not in str(raised.value)


def test_nobody_there() -> None:
    with pytest.raises(InputError, match=r"rtsp://\*\*\*@127.0.0.1:9/: Connection refused"):
        camera("rtsp://admin:hunter2@127.0.0.1:9/")


def test_a_camera_that_hangs_up_is_an_error_and_can_be_opened_again(server: Any) -> None:
    served = server(hang_up_after=40)
    for _ in range(2):
        source = camera(f"rtsp://{served.address}")
        statuses = [source.read(0.1).status]
        while statuses[-1] is Status.FRAME:
            statuses.append(source.read(0.1).status)
        source.close()
        # FFmpeg uses the first frames to detect the format.
        assert 5 < len(statuses) <= 41
        assert statuses[-1] is Status.ERROR
    assert served.connections == 2


# Push


class Receiver:
    """A media server that receives a stream."""

    def __init__(self, port: int = 0) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
            self.port = free.getsockname()[1]
        self.images: list[np.ndarray] = []
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def _receive(self) -> None:
        try:
            options = {"rtsp_flags": "listen", "listen_timeout": "15"}
            with av.open(f"rtsp://127.0.0.1:{self.port}/x", options=options) as container:
                for frame in container.decode(video=0):
                    self.images.append(frame.to_ndarray(format="bgr24"))
        except Exception as e:  # any end of the connection
            self.error = e


def picture(index: int, size: tuple[int, int] = (64, 96)) -> FusedFrame:
    image = np.full((*size, 3), 40 + index * 3, np.uint8)
    return FusedFrame(image, 100 + index / 25, index, "fused")


def push_until(sink: RtspPush, done: Any, size: tuple[int, int] = (64, 96)) -> None:
    deadline, index = time.monotonic() + 15, 0
    while not done():
        assert time.monotonic() < deadline
        with suppress(SinkDown):  # until the receiver listens
            sink.write(picture(index % 60, size))
        index += 1
        time.sleep(0.02)


def test_pushed_frames_arrive() -> None:
    receiver = Receiver()
    sink = RtspPush(split(f"rtsp://127.0.0.1:{receiver.port}/x", with_options=False))
    push_until(sink, lambda: len(receiver.images) > 10)
    sink.close()
    receiver.thread.join(5)
    assert receiver.images[0].shape == (64, 96, 3)
    levels = [int(image[30, 40, 0]) for image in receiver.images[:10]]
    assert np.all(np.diff(levels) > 0)


def test_connecting_again_to_a_server_that_was_away() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sink = RtspPush(split(f"rtsp://admin:hunter2@127.0.0.1:{port}/x", with_options=False))
    with pytest.raises(SinkDown, match="Connection refused"):
        sink.write(picture(0))
    receiver = Receiver(port)
    push_until(sink, lambda: len(receiver.images) > 3)
    sink.close()
