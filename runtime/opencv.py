"""The functions of OpenCV that differ between 4.5.4 and 5."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CONVERGED = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-12)


def silence() -> None:
    """Turn off OpenCV's own log."""
    cv2_any: Any = cv2
    try:
        cv2_any.utils.logging.setLogLevel(cv2_any.utils.logging.LOG_LEVEL_SILENT)
    except AttributeError:  # before 4.13
        cv2_any.setLogLevel(0)


def undistort(
    pixels: NDArray[np.float64], matrix: NDArray[np.float64], distortion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Remove a lens's distortion from (N, 2) pixels, to convergence.

    The default five rounds of `cv2.undistortPoints` leave a hundredth of a pixel at the border of a wide lens.
    """
    if not len(pixels):  # OpenCV returns None
        return pixels
    points = pixels.reshape(-1, 1, 2)
    before_5: Any = getattr(cv2, "undistortPointsIter", None)
    if before_5 is None:
        solved: Any = cv2.undistortPoints(points, matrix, distortion, P=matrix, criteria=_CONVERGED)
    else:
        solved = before_5(points, matrix, distortion, np.eye(3), matrix, _CONVERGED)
    return np.asarray(solved, np.float64).reshape(-1, 2)
