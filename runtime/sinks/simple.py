"""Small sinks: a window, and one that discards every frame."""

from __future__ import annotations

import os
import sys

import cv2

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.sink import EndWanted, SinkContext
from ufuser.runtime.uri import Uri


class Nothing:
    """`null:`: takes every frame and discards it, for measurements."""

    every_frame, in_main_thread = True, False

    def __init__(self, name: str = "null:") -> None:
        self.name = name

    def write(self, frame: FusedFrame) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Window:
    """`window:TITLE`: shows the newest frame. Escape, q or the close button ends the stream.

    Raises InputError where there is no screen, or OpenCV has no windows (headless wheels).
    """

    every_frame, in_main_thread = False, True

    def __init__(self, uri: Uri) -> None:
        uri.read({})
        self.name, self._title = uri.name, uri.address or "ufuser"
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            # OpenCV's toolkit would end the process.
            raise InputError(
                f"{self.name}: there is no screen (DISPLAY is not set): expected mjpeg://127.0.0.1:8080"
            )
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            raise InputError(
                f"{self.name}: this OpenCV cannot open windows: expected a build that is not headless"
            ) from None
        self._shown = False

    def write(self, frame: FusedFrame) -> None:
        if not self._shown:
            cv2.resizeWindow(self._title, frame.image.shape[1], frame.image.shape[0])
        cv2.imshow(self._title, frame.image)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0
        if key in (27, ord("q")) or (self._shown and not visible):
            raise EndWanted
        self._shown = True

    def close(self) -> None:
        try:
            cv2.destroyWindow(self._title)
        except cv2.error:  # the user has closed it
            return

    def abort(self) -> None:
        self.close()


def open_window(uri: Uri, context: SinkContext) -> Window:
    """Open `window:TITLE`. Raises InputError."""
    return Window(uri)


def open_null(uri: Uri, context: SinkContext) -> Nothing:
    """Open `null:`."""
    return Nothing(uri.name)
