"""The newest pictures of a stream as JPEG: encoded once per frame, and only for views that are watched."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
from numpy.typing import NDArray

from ufuser.runtime.frame import FusedFrame

_QUALITY = 80


class Pictures:
    """The newest picture of each view. Writing never waits for a viewer."""

    VIEWS = ("fused", "ir", "vi")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: FusedFrame | None = None
        self._number = 0
        self._watchers: Counter[str] = Counter()
        self._jpegs: dict[str, tuple[int, bytes]] = {}

    def show(self, frame: FusedFrame) -> None:
        """Replace the pictures by those of a new frame."""
        with self._changed:
            self._number, self._frame = self._number + 1, frame
            number, watched = self._number, [view for view, n in self._watchers.items() if n]
        for view in watched:
            jpeg = _encoded(_of(frame, view))
            with self._changed:
                self._jpegs[view] = (number, jpeg)
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def watched(self, view: str) -> Iterator[None]:
        """Encode a view inside this context; its current picture at once."""
        with self._changed:
            self._watchers[view] += 1
            frame, number = self._frame, self._number
        try:
            if frame is not None:
                jpeg = _encoded(_of(frame, view))
                with self._changed:
                    if self._jpegs.get(view, (0, b""))[0] < number:
                        self._jpegs[view] = (number, jpeg)
            yield
        finally:
            with self._changed:
                self._watchers[view] -= 1

    def after(self, view: str, number: int, timeout: float) -> tuple[int, bytes]:
        """Wait for a picture of a view that is newer than `number`.

        Args:
            view: one of `VIEWS`.
            number: of the last picture taken; 0 for none.
            timeout: seconds.

        Returns:
            The new picture's number and JPEG, which is empty if the camera is lost; after a time-out `number` and
            an empty JPEG.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._jpegs.get(view, (0, b""))[0] > number, timeout)
            found = self._jpegs.get(view, (0, b""))
            return found if found[0] > number else (number, b"")


def _of(frame: FusedFrame, view: str) -> NDArray[Any] | None:
    if view == "fused":
        return frame.image
    return frame.ir if view == "ir" else frame.vi


def _encoded(image: NDArray[Any] | None) -> bytes:
    """The JPEG; empty if the camera is lost."""
    if image is None:
        return b""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)
