"""A few words in the corner of a picture that is old or incomplete, which its content alone does not show."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_TEXT, _BACKGROUND, _GREY_BACKGROUND = (255, 255, 255), (40, 40, 200), (60, 60, 60)
"""BGR; the last for grey pictures."""


def stamp(image: NDArray[Any], text: str) -> NDArray[np.uint8]:
    """The picture, H×W or H×W×3 uint8, with the text at its lower left; a new array."""
    marked: NDArray[np.uint8] = image.copy()
    height, width = image.shape[:2]
    scale = max(0.35, width / 1000)
    (text_width, text_height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    pad = max(2, round(6 * scale))
    top = height - text_height - baseline - 3 * pad
    background = _GREY_BACKGROUND if image.ndim == 2 else _BACKGROUND
    cv2.rectangle(marked, (pad, top), (pad * 3 + text_width, height - pad), background, cv2.FILLED)
    place = (2 * pad, height - 2 * pad - baseline)
    cv2.putText(marked, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT, 1, cv2.LINE_AA)
    return marked
