"""Medical pairs: MRI with CT, PET or SPECT, fused by networks of infrared and visible pictures, without
fine-tuning, as their papers do (DAE-Fuse, section III-C; EMMA and FNet likewise).

PET and SPECT are shown in false colour, MRI and CT in grey. So the picture with colour, on whichever side it was
given, takes the visible picture's part: its luma is fused, its chroma is carried around the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError

_SPREAD = 1 / 32
"""Between a pixel's channels, of full scale: above it a pixel has colour. Coding of a grey picture stays below."""
_SHARE = 1e-3
"""Of pixels with colour: above it a picture has. PET is mostly black; a stray mark is no modality's colour."""


def has_colour(image: NDArray[Any]) -> bool:
    """Whether a picture H×W or H×W×3 shows more than grey: uint8, uint16, or float in [0, 1].

    Grey scans are often stored with three equal channels; what counts is what the channels hold.
    """
    if image.ndim == 2:
        return False
    full = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    spread = image.max(axis=2) - image.min(axis=2)
    return bool(np.mean(spread > _SPREAD * full) > _SHARE)


def arrange(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What takes the infrared and what the visible picture's part.

    Args:
        first: the picture of `--ir`, H×W or H×W×3 BGR.
        second: that of `--vi`, of the same height and width.

    Returns:
        Where one has colour: the other one's luma and the one with colour, in whichever order they were
        given. Where neither has: the luma of both, in the order given; so the fused picture is grey.

    Raises:
        InputError: both have colour, and only one chroma can be shown; sizes differ.
    """
    if first.shape[:2] != second.shape[:2]:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (first, second)]
        raise InputError(
            f"--ir is {sizes[0]}, --vi is {sizes[1]}: expected the same size (--resize scales the picture of "
            f"--ir to that of --vi)"
        )
    of_first, of_second = has_colour(first), has_colour(second)
    if of_first and of_second:
        raise InputError(
            "both pictures have colour: --task medical expected at most one (PET or SPECT) beside a grey MRI or "
            "CT; turn the structural one to grey first"
        )
    if of_first:
        return luma(second), first
    return luma(first), second if of_second else luma(second)
