"""A word in the corner of a picture that is not what it should be: an old picture looks like a new one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_INK, _GROUND = (255, 255, 255), (40, 40, 200)
"""BGR."""


def stamp(image: NDArray[Any], text: str) -> NDArray[np.uint8]:
    """The picture, H×W or H×W×3 uint8, with a word at the lower left; a new array."""
    marked: NDArray[np.uint8] = image.copy()
    height, width = image.shape[:2]
    scale = max(0.35, width / 1000)
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    pad = max(2, round(6 * scale))
    top = height - high - below - 3 * pad
    grey = image.ndim == 2
    cv2.rectangle(
        marked, (pad, top), (pad * 3 + wide, height - pad), (60, 60, 60) if grey else _GROUND, cv2.FILLED
    )
    place = (2 * pad, height - 2 * pad - below)
    cv2.putText(marked, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
    return marked
