"""Edges that infrared and visible have in common, whichever side of them is brighter.

Channels of oriented gradients (CFOG: Ye et al., "Fast and Robust Matching for Multimodal Remote Sensing Image
Registration", IEEE TGRS 2019), normalised locally so that faint edges count beside strong ones, but noise does not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma

Floats = NDArray[np.float32]
Coverage = tuple[Floats, Floats]
"""H×W each: 1 where edges are known, and the share of the neighbourhood in which they are."""

CHANNELS = 4
"""Orientations over 180 degrees. OpenCV's matchTemplate takes four channels at most."""
_FINE = 0.8
"""Sigma of the blur before the gradient, pixels."""
_AROUND = 12.0
"""Sigma of the neighbourhood that normalises an edge, pixels."""
_FLOOR = 0.5
"""Share of the picture's mean edge strength below which edges stay faint."""


def level(image: NDArray[Any]) -> Floats:
    """Compressed luma, H×W float32, of an H×W grey or H×W×3 BGR picture of any depth."""
    grey = luma(image).astype(np.float32)
    # The square root makes photon noise uniform and attenuates lamps.
    return np.asarray(cv2.sqrt(grey / np.float32(max(float(grey.max()), 1e-6))), np.float32)


def coverage(seen: NDArray[np.bool_]) -> Coverage:
    """What `edges` needs of a mask H×W of the valid pixels; reusable for many pictures."""
    core = np.ones((7, 7), np.uint8)
    inner = cv2.erode(seen.astype(np.uint8), core, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    known = np.asarray(inner, np.float32)
    return known, np.asarray(cv2.GaussianBlur(known, (0, 0), _AROUND) + np.float32(1e-6))


def edges(picture: Floats, blur: float, seen: Coverage | None = None) -> Floats:
    """Edge strength by orientation.

    Args:
        picture: H×W float32, see `level`.
        blur: sigma in pixels of the blur of the channels: wide to find, narrow to measure.
        seen: the valid pixels, by `coverage`; None for all.

    Returns:
        H×W×`CHANNELS` float32, at least 0, about 0 to 1; 0 outside the valid pixels and near their border.
    """
    smooth = cv2.GaussianBlur(picture, (0, 0), _FINE)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)
    known, share = seen or coverage(np.ones(picture.shape, np.bool_))
    strength = cv2.magnitude(across, down) * known
    around = cv2.GaussianBlur(strength, (0, 0), _AROUND) / share
    floor = np.float32(_FLOOR * float(strength.sum()) / max(float(known.sum()), 1.0) + 1e-6)
    scale = known / (around + floor)
    layers = []
    for k in range(CHANNELS):
        angle = np.pi * k / CHANNELS
        along = np.abs(cv2.addWeighted(across, np.cos(angle), down, np.sin(angle), 0.0))
        along *= scale
        layers.append(cv2.GaussianBlur(np.minimum(along, np.float32(4.0), out=along), (0, 0), blur))
    return np.asarray(cv2.merge(layers), np.float32)
