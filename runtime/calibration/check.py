"""A picture to check a calibration with: a checkerboard of both cameras, and infrared edges on the visible picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Aligner, Calibration
from ufuser.runtime.color import luma
from ufuser.runtime.contact_sheet import Layout, Row, contact_sheet

_SQUARES = 8
"""Across the picture."""
_EDGE_SHARE = 0.06
"""Share of the infrared pixels that are drawn as edges."""
_EDGE_COLOUR = (60, 90, 255)
"""BGR."""
_MEAN = 110
"""Mean level to which a darker visible picture is brightened."""


def check_picture(
    ir: NDArray[np.uint8], vi: NDArray[np.uint8], calibration: Calibration, caption: str
) -> NDArray[Any]:
    """Draw both views side by side.

    Args:
        ir: infrared H×W uint8, not aligned.
        vi: visible H×W or H×W×3 uint8.
        calibration: of the two.
        caption: a line below.

    Returns:
        H×W×3 uint8 BGR. Pixels that infrared does not see are dimmed.
    """
    size = (vi.shape[1], vi.shape[0])
    aligner = Aligner(calibration)
    warped, seen = aligner.warp(ir, size), aligner.seen((ir.shape[1], ir.shape[0]), size)
    grey = _brightened(luma(vi))
    squares = np.where(_board(size) & seen, warped, grey)
    drawn = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    drawn[~seen] //= 3
    squares[~seen] //= 3
    drawn[_edges(warped, seen)] = _EDGE_COLOUR
    layout = Layout(tile_width=max(480, min(size[0], 960)))
    return contact_sheet(("Squares of infrared", "Infrared edges"), [Row((squares, drawn), caption)], layout)


def _brightened(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A dark picture brightened by a gamma curve."""
    mean = max(float(grey.mean()), 1.0)
    gamma = min(1.0, np.log(_MEAN / 255) / np.log(mean / 255)) if mean < 254 else 1.0
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return np.asarray(cv2.LUT(grey, table), np.uint8)


def _board(size: tuple[int, int]) -> NDArray[np.bool_]:
    side = max(size[0] // _SQUARES, 1)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.asarray((x // side + y // side) % 2 == 0)


def _edges(image: NDArray[np.uint8], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The strongest edges, one pixel wide."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.2)
    across, down = (cv2.Sobel(smooth, cv2.CV_16S, *direction) for direction in ((1, 0), (0, 1)))
    inside = cv2.erode(seen.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=(0,)) > 0
    strength = (np.abs(across.astype(np.int32)) + np.abs(down.astype(np.int32)))[inside]
    high = float(np.quantile(strength, 1 - _EDGE_SHARE)) if strength.size else 255.0
    return np.asarray((cv2.Canny(across, down, max(high / 2, 1.0), max(high, 2.0)) > 0) & inside)
