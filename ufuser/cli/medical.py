"""Medical pairs: MRI with CT, PET or SPECT, fused without fine-tuning as the papers do (DAE-Fuse, section III-C; EMMA).

PET and SPECT come in false colour, MRI and CT in grey. The picture with colour, whether given as infrared or as
visible, takes the visible role: its luma is fused and its chroma is carried around the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError

_SPREAD = 1 / 32
"""Difference of a pixel's channels, of full scale, above which it has colour. JPEG coding of grey stays below."""
_SHARE = 1e-3
"""Share of such pixels above which a picture has colour. PET is mostly black, and a small mark does not count."""


def has_colour(image: NDArray[Any]) -> bool:
    """Whether a picture H×W or H×W×3 shows more than grey: uint8, uint16, or float in [0, 1].

    Grey scans are often stored with three equal channels, so the values decide.
    """
    if image.ndim == 2:
        return False
    full = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    spread = image.max(axis=2) - image.min(axis=2)
    return bool(np.mean(spread > _SPREAD * full) > _SHARE)


def arrange(ir: NDArray[Any], vi: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Assign the infrared and the visible role.

    Args:
        ir: the picture of `--ir`, H×W or H×W×3 BGR.
        vi: the picture of `--vi`, of the same height and width.

    Returns:
        If one has colour: the luma of the other, and the one with colour. If neither has: the luma of both, so that
        the fused picture is grey.

    Raises:
        InputError: both have colour, and only one chroma can be shown; sizes differ.
    """
    if ir.shape[:2] != vi.shape[:2]:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (ir, vi)]
        raise InputError(f"the pictures are {sizes[0]} and {sizes[1]}: expected the same size")
    ir_colour, vi_colour = has_colour(ir), has_colour(vi)
    if ir_colour and vi_colour:
        raise InputError(
            "both pictures have colour: --task medical expected at most one (PET or SPECT) beside a grey MRI or "
            "CT; convert the structural one to grey first"
        )
    if ir_colour:
        return luma(vi), ir
    return luma(ir), vi if vi_colour else luma(vi)
