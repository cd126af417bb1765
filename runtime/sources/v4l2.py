"""V4L2 cameras, by OpenCV: USB cameras, and thermal cores with raw 16-bit counts (Y16)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.sources.source import TIMEOUT, Reading, SourceContext, Status, failed
from ufuser.runtime.sources.stamps import StampMap, on_monotonic
from ufuser.runtime.sources.v4l2_formats import is_busy, offered, require_device
from ufuser.runtime.uri import Uri

_SELECT_TIMEOUT = "1"
"""Seconds OpenCV waits for a frame; whole seconds only."""
_COMPRESSED = ("MJPG", "JPEG", "H264", "HEVC", "MPEG", "VP80", "VP90")
_AT_ONCE, _FAILURES = 0.05, 5
"""A grab that fails faster than this (seconds) has not waited; after this many such grabs the device is broken."""


def _fourcc(text: str) -> str:
    if not (1 <= len(text) <= 4 and text.isascii() and text.isprintable()):
        raise ValueError("expected a FOURCC of up to four letters, such as Y16, YUYV or MJPG")
    return text.ljust(4)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "format": _fourcc,
    "size": uris.size,
    "fps": uris.number,
    "rows": uris.whole,
}


class V4l2Camera:
    """`v4l2:///dev/video0?format=Y16&size=640x512&fps=30&rows=512`.

    `rows` keeps only the first rows: Lepton cores append rows of telemetry.

    Args:
        uri: options that are not given are left to the driver.
        clock: of the stream.
        capture: OpenCV's class, for tests.

    Raises:
        InputError: the device is missing, busy or not permitted, or refuses the format, size or rate; the message
            lists its formats.
    """

    live, length = True, None

    def __init__(self, uri: Uri, clock: Clock, capture: Callable[[str, int], Any] = cv2.VideoCapture) -> None:
        options = uri.read(_OPTIONS)
        self.name, self._clock = uri.name, clock
        self._path = Path(uri.address)
        require_device(self._path)
        # OpenCV reads this when it first opens a camera; its default is ten seconds.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", _SELECT_TIMEOUT)
        self._capture = capture(str(self._path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self._capture.release()
            reason = (
                "it is busy: another program is using it" if is_busy(self._path) else "OpenCV cannot open it"
            )
            raise InputError(f"cannot open {self._path}: {reason}")
        try:
            self._configure(options)
        except BaseException:
            self._capture.release()
            raise
        self._rows: int | None = options.get("rows")
        self._stamps, self._sequence, self._failures = StampMap(), 0, 0

    def _configure(self, options: dict[str, Any]) -> None:
        capture, fourcc, size = self._capture, options.get("format"), options.get("size")
        # In this order: a new format may reset the size, a new size the rate.
        if fourcc is not None:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        if size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if "fps" in options:
            capture.set(cv2.CAP_PROP_FPS, options["fps"])
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        given = code.to_bytes(4, "little").decode("ascii", "replace")
        width, height = (
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        self._size, self._raw = (width, height), given.startswith("Y16")
        self.repeats = given.strip() not in _COMPRESSED
        if (fourcc not in (None, given)) or (size not in (None, (width, height))):
            wanted = " ".join(
                [fourcc.strip() if fourcc else "", f"{size[0]}x{size[1]}" if size else ""]
            ).strip()
            offers = "; ".join(offered(self._path)) or "its driver does not list its formats"
            raise InputError(
                f"{self._path} refused {wanted} and would give {given.strip()} {width}x{height}; it offers: {offers}"
            )
        if self._raw:
            # Otherwise OpenCV converts the counts to 8-bit BGR.
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def read(self, timeout: float) -> Reading:
        began = time.monotonic()
        if not self._capture.grab():
            return self._nothing(time.monotonic() - began)
        arrival = self._clock.now()
        driver = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        done, image = self._capture.retrieve()
        if not done or image is None:
            return failed(f"{self.name}: a frame could not be decoded")
        self._failures = 0
        if self._raw:
            image = counts(image, self._size)
        if self._rows is not None:
            image = image[: self._rows]
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Reading(
            Status.FRAME, Frame(image, self._stamp(driver, arrival), sequence, self.name, arrival=arrival)
        )

    def _stamp(self, driver: float, arrival: float) -> float:
        if on_monotonic(driver, arrival):
            return driver
        return self._stamps.map(driver, arrival) if driver > 0 else arrival

    def _nothing(self, waited: float) -> Reading:
        if not self._path.exists():
            return failed(f"{self.name}: the device has gone")
        self._failures = self._failures + 1 if waited < _AT_ONCE else 0
        if self._failures >= _FAILURES:
            return failed(f"{self.name}: the device gives no frames any more")
        if self._failures:
            time.sleep(_AT_ONCE)
        return TIMEOUT

    def close(self) -> None:
        self._capture.release()


def open_v4l2(uri: Uri, context: SourceContext) -> V4l2Camera:
    """Open `v4l2://`. Raises InputError."""
    return V4l2Camera(uri, context.clock)


def counts(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint16]:
    """OpenCV's picture of a Y16 frame as H×W uint16.

    Some versions of OpenCV give the bytes as one row of uint8, little-endian.

    Raises InputError for any other layout.
    """
    width, height = size
    if image.dtype == np.uint16:
        return np.asarray(image.reshape(image.shape[:2]))
    if image.dtype == np.uint8 and image.size == 2 * width * height:
        flat = np.ascontiguousarray(image).reshape(-1)
        return flat.view("<u2").reshape(height, width).astype(np.uint16, copy=False)
    raise InputError(
        f"Y16 of {width}x{height} came as {image.dtype} {image.shape}: expected 16 bits a pixel; "
        f"this OpenCV cannot read the camera's raw counts"
    )
