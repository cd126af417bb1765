"""What two kinds of light have in common: edges, whichever side of them is brighter.

Channels of orientated gradients (CFOG: Ye et al., "Fast and Robust Matching for Multimodal Remote Sensing Image
Registration", IEEE TGRS 2019), softly normalised, so that faint edges count beside glaring ones and noise does not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma

Floats = NDArray[np.float32]

Shown = tuple[Floats, Floats]
"""H×W: 1 where edges are known, and the share of the surroundings in which they are."""

CHANNELS = 4
"""Orientations over half a turn: as many as OpenCV's matchTemplate takes."""
_FINE = 0.8
"""Pixels, sigma before the gradient."""
_AROUND = 12.0
"""Pixels over which edges are compared with one another."""
_FLOOR = 0.5
"""Of the picture's own mean edge: what is fainter than this stays faint."""


def level(image: NDArray[Any]) -> Floats:
    """A picture's luma as float32, brightness compressed: H×W grey or H×W×3 BGR of any depth."""
    grey = luma(image).astype(np.float32)
    # The square root makes photon noise even, and lamps less glaring.
    return np.asarray(cv2.sqrt(grey / np.float32(max(float(grey.max()), 1e-6))), np.float32)


def shown(seen: NDArray[np.bool_]) -> Shown:
    """What `edges` must know of H×W where a picture shows anything, the same for many pictures."""
    core = np.ones((7, 7), np.uint8)
    inner = cv2.erode(seen.astype(np.uint8), core, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    known = np.asarray(inner, np.float32)
    return known, np.asarray(cv2.GaussianBlur(known, (0, 0), _AROUND) + np.float32(1e-6))


def edges(picture: Floats, soft: float, seen: Shown | None = None) -> Floats:
    """The channels of a picture.

    Args:
        picture: H×W float32, see `level`.
        soft: sigma in pixels the channels are blurred with: wide finds, narrow measures.
        seen: where the picture shows anything, by `shown`; None for everywhere.

    Returns:
        H×W×`CHANNELS` float32, at least 0, about 0 to 1; 0 near and beyond the border of what is seen.
    """
    smooth = cv2.GaussianBlur(picture, (0, 0), _FINE)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)
    known, share = seen or shown(np.ones(picture.shape, np.bool_))
    strength = cv2.magnitude(across, down) * known
    around = cv2.GaussianBlur(strength, (0, 0), _AROUND) / share
    floor = np.float32(_FLOOR * float(strength.sum()) / max(float(known.sum()), 1.0) + 1e-6)
    scale = known / (around + floor)
    layers = []
    for k in range(CHANNELS):
        angle = np.pi * k / CHANNELS
        along = np.abs(cv2.addWeighted(across, np.cos(angle), down, np.sin(angle), 0.0))
        along *= scale
        layers.append(cv2.GaussianBlur(np.minimum(along, np.float32(4.0), out=along), (0, 0), soft))
    return np.asarray(cv2.merge(layers), np.float32)
