"""Files, folders and simulated cameras played as cameras: at their own pace, with faults on request."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import read_image
from ufuser.runtime.quiet import NATIVE
from ufuser.runtime.sources.source import END, TIMEOUT, Reading, SourceContext, Status, failed
from ufuser.runtime.sources.timing import Timing

Spans = tuple[tuple[float, float], ...]


class Feed(Protocol):
    """Numbered pictures."""

    @property
    def repeats(self) -> bool:
        """As `Source.repeats`."""

    def picture(self, index: int) -> NDArray[Any] | None:
        """Picture `index`; indices rise from call to call. None behind the last. Raises InputError."""

    def close(self) -> None:
        """Release the file."""


class FolderFeed:
    """A folder's pictures. Raises InputError if the first cannot be read."""

    def __init__(self, paths: Sequence[Path], loop: bool) -> None:
        self._paths, self._loop = paths, loop
        self.repeats = are_lossless(paths)
        read_image(paths[0])

    def picture(self, index: int) -> NDArray[Any] | None:
        if index >= len(self._paths) and not self._loop:
            return None
        return read_image(self._paths[index % len(self._paths)])

    def close(self) -> None:
        pass


def are_lossless(paths: Sequence[Path]) -> bool:
    """Whether picture files are of formats that store every bit."""
    return not any(path.suffix.lower() in (".jpg", ".jpeg", ".webp") for path in paths)


def is_lossless(capture: cv2.VideoCapture) -> bool:
    """Whether an open video is known to be lossless. OpenCV names few such codecs, of those FFV1."""
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC))
    return fourcc.to_bytes(4, "little", signed=True).lower() == b"ffv1"


class VideoFeed:
    """A video's frames; those between two indices are decoded but not converted.

    Args:
        path: a video that can be decoded.
        loop: begin again at its end.
        fps: its frames per second, if known.
        length: its number of frames, if known.
    """

    def __init__(self, path: Path, loop: bool, fps: float | None, length: int | None) -> None:
        self.fps, self._length = fps, length
        self._path, self._loop = path, loop
        self._capture = cv2.VideoCapture(str(path))
        self.repeats = is_lossless(self._capture)
        self._next = 0

    def picture(self, index: int) -> NDArray[Any] | None:
        if self._next == 0 and self._loop and self._length:
            # Opened again in the middle of a long run: complete rounds need no decoding.
            self._next = index // self._length * self._length
        with NATIVE.muted():
            while self._next <= index:
                if not self._capture.grab() and not (self._loop and self._rewind()):
                    return None
                self._next += 1
            done, image = self._capture.retrieve()
        return image if done else None

    def _rewind(self) -> bool:
        self._capture.release()
        self._capture = cv2.VideoCapture(str(self._path))
        return self._capture.grab()

    def close(self) -> None:
        self._capture.release()


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a played camera at given times, in seconds from the start of the stream."""

    silent: Spans = ()
    """It is connected, but no frame comes."""
    gone: Spans = ()
    """It fails, and cannot be opened until the span ends."""

    @staticmethod
    def within(spans: Sequence[tuple[float, float]], moment: float) -> bool:
        """Whether the moment lies in one of the spans."""
        return any(begin <= moment < end for begin, end in spans)


def _spans(text: str) -> Spans:
    """`10-15,70-75.5`: from and to, seconds."""
    spans = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+\.?\d*)-(\d+\.?\d*)", part)
        if match is None or float(match[1]) >= float(match[2]):
            raise ValueError("expected spans of seconds, such as 10-15 or 10-15,70-75")
        spans.append((float(match[1]), float(match[2])))
    return tuple(spans)


FAULT_OPTIONS: dict[str, Callable[[str], Any]] = {"silent": _spans, "gone": _spans}
"""Parsers of the faults' URI options; for `Uri.read`."""


class Player:
    """A live source over numbered pictures.

    Args:
        name: URI with credentials masked.
        feed: the pictures.
        timing: when each is taken, which are lost and how their stamps err.
        context: picture 0 is taken at `context.origin`. A camera that is opened later starts in the middle.
        faults: further faults.

    Raises:
        InputError: the camera is gone at this moment.
    """

    live, length = True, None

    def __init__(
        self, name: str, feed: Feed, timing: Timing, context: SourceContext, faults: Faults | None = None
    ) -> None:
        self.name, self.repeats = name, feed.repeats
        self._feed, self._timing, self._faults = feed, timing, faults or Faults()
        self._clock, self._origin = context.clock, context.origin
        self._period = 1.0 / timing.fps
        self._next = max(0, int(self._moment() / self._period))
        self._pause = threading.Event()
        if self._faults.within(self._faults.gone, self._moment()):
            feed.close()
            raise InputError(f"{name}: no such device (simulated: gone)")

    def _moment(self) -> float:
        """Seconds since picture 0."""
        return self._clock.now() - self._origin

    def read(self, timeout: float) -> Reading:
        deadline = self._moment() + timeout
        late = 0
        while True:
            exposed = self._timing.exposed(self._next)
            if self._faults.within(self._faults.gone, self._moment()):
                return failed(f"{self.name}: the device has gone (simulated)")
            if exposed > deadline:
                self._clock.wait(self._pause, deadline - self._moment())
                return TIMEOUT
            silent = self._faults.within(self._faults.silent, exposed)
            lost = silent or not self._timing.delivered(self._next)
            overdue = self._moment() - exposed >= self._period
            if not lost and not overdue:
                return self._take(late)
            # The next tick is due already: a camera does not wait for its reader.
            late += overdue and not lost
            self._next += 1

    def _take(self, late: int) -> Reading:
        index, self._next = self._next, self._next + 1
        # Fetched before it is due, if there is time: a sensor's read-out costs the host nothing.
        image = self._feed.picture(index)
        if image is None:
            return END
        self._clock.wait(self._pause, self._timing.exposed(index) - self._moment())
        flags = frozenset({"frozen"}) if self._timing.frozen(index) else frozenset[str]()
        stamp = self._origin + self._timing.stamp(index)
        frame = Frame(image, stamp, index, self.name, flags, self._clock.now())
        return Reading(Status.FRAME, frame, "", late)

    def close(self) -> None:
        self._feed.close()
