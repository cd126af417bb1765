"""Sinks of a few lines: a folder of pictures, a window, nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.files import FolderSink
from ufuser.runtime.sinks.stream import EndWanted
from ufuser.runtime.uri import Uri


class PictureFolder:
    """`folder:DIR`: a PNG a frame, named by its number; each appears whole.

    Raises InputError if the folder cannot be created or written into.
    """

    every_frame, in_main_thread = True, False

    def __init__(self, uri: Uri) -> None:
        uri.read({})
        self.name = uri.name
        self._folder = FolderSink(Path(uri.address))

    def write(self, frame: FusedFrame) -> None:
        self._folder.write(frame)

    def close(self) -> None:
        pass


class Nothing:
    """`null:`: takes every frame and keeps none, to measure."""

    every_frame, in_main_thread = True, False

    def __init__(self, name: str = "null:") -> None:
        self.name = name

    def write(self, frame: FusedFrame) -> None:
        pass

    def close(self) -> None:
        pass


class Window:
    """`window:TITLE`: the newest frame on the screen. Escape, q or its close button ends the stream.

    Raises InputError where there is no screen, or this OpenCV has no windows (headless wheels).
    """

    every_frame, in_main_thread = False, True

    def __init__(self, uri: Uri) -> None:
        uri.read({})
        self.name, self._title = uri.name, uri.address or "ufuser"
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            # OpenCV's toolkit would end the whole program.
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
        except cv2.error:  # it has been closed by hand
            return
