"""Point pairs clicked in a window: visible left, infrared right."""

from __future__ import annotations

import os
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Points
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_uint8

_TITLE = "Click the same place left, then right | Z: undo | Enter: done | Esc: cancel"
_GAP, _HEIGHT = 8, 720
"""Pixels between the pictures, and their height in the window."""
_COLOURS = ((80, 200, 255), (120, 255, 120), (255, 160, 90), (220, 120, 255), (90, 255, 255))
_ENTER, _ESCAPE, _UNDO = (10, 13), 27, (ord("z"), ord("Z"), 8)


def click_points(ir: NDArray[Any], vi: NDArray[Any]) -> tuple[Points, Points]:
    """Let the user click point pairs.

    Returns:
        Visible and infrared pixels, (N, 2) each; a visible click without its partner is left out.

    Raises:
        InputError: no screen, an OpenCV without windows, or cancelled.
    """
    advice = "give the points as a file (`points`)"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(f"there is no screen to click on (DISPLAY is not set): {advice}")
    try:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error:
        raise InputError(f"this OpenCV cannot open windows (opencv-python-headless?): {advice}") from None
    board = ClickBoard(ir, vi)
    try:
        cv2.setMouseCallback(_TITLE, board.on_mouse)
        while True:
            cv2.imshow(_TITLE, board.drawn())
            key = cv2.waitKey(30) & 0xFF
            if key in _ENTER:
                return board.points()
            if key in _UNDO:
                board.undo()
            if key == _ESCAPE or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                raise InputError("clicking was cancelled: nothing is written")
    finally:
        cv2.destroyWindow(_TITLE)


class ClickBoard:
    """Both pictures side by side and the clicked points; independent of the window."""

    def __init__(self, ir: NDArray[Any], vi: NDArray[Any]) -> None:
        self._left, self._scale_vi = _panel(vi)
        self._right, self._scale_ir = _panel(ir)
        self._ir_left = self._left.shape[1] + _GAP
        self._vi: list[tuple[float, float]] = []
        self._ir: list[tuple[float, float]] = []

    def on_mouse(self, event: int, x: int, y: int, flags: int = 0, data: object = None) -> None:
        """OpenCV's mouse callback: a left click sets the next point where its picture is."""
        if event != cv2.EVENT_LBUTTONDOWN or not 0 <= y < _HEIGHT:
            return
        wants_visible = len(self._vi) == len(self._ir)
        if wants_visible and 0 <= x < self._left.shape[1]:
            self._vi.append(_pixel(x, y, self._scale_vi))
        elif not wants_visible and self._ir_left <= x < self._ir_left + self._right.shape[1]:
            self._ir.append(_pixel(x - self._ir_left, y, self._scale_ir))

    def undo(self) -> None:
        """Remove the last click."""
        if len(self._vi) > len(self._ir):
            self._vi.pop()
        elif self._ir:
            self._ir.pop()

    def points(self) -> tuple[Points, Points]:
        """Visible and infrared pixels of complete pairs, (N, 2) each."""
        count = len(self._ir)
        return (
            np.asarray(self._vi[:count], np.float64).reshape(-1, 2),
            np.asarray(self._ir, np.float64).reshape(-1, 2),
        )

    def drawn(self) -> NDArray[np.uint8]:
        """The picture to show."""
        gap = np.full((_HEIGHT, _GAP, 3), 40, np.uint8)
        picture = np.hstack([self._left, gap, self._right])
        for points, scale, left in ((self._vi, self._scale_vi, 0), (self._ir, self._scale_ir, self._ir_left)):
            for number, (x, y) in enumerate(points):
                at = (round((x + 0.5) * scale) + left, round((y + 0.5) * scale))
                colour = _COLOURS[number % len(_COLOURS)]
                cv2.drawMarker(picture, at, colour, cv2.MARKER_CROSS, 17, 1, cv2.LINE_AA)
                place = (at[0] + 8, at[1] - 8)
                cv2.putText(
                    picture, str(number + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA
                )
        return picture


def _panel(image: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """The picture at the window's height, BGR, and its scale."""
    level: NDArray[Any] = as_uint8(image)
    if level.ndim == 2:
        level = cv2.cvtColor(level, cv2.COLOR_GRAY2BGR)
    scale = _HEIGHT / level.shape[0]
    size = (max(round(level.shape[1] * scale), 1), _HEIGHT)
    return np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_LINEAR), np.uint8), scale


def _pixel(x: int, y: int, scale: float) -> tuple[float, float]:
    """Panel coordinates in the picture's own pixels, with centres at whole numbers."""
    return (x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5
