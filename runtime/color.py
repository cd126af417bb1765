"""Luma and chroma: the network fuses luma; the fused picture keeps the chroma of the visible one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def luma(image: NDArray[Any]) -> NDArray[Any]:
    """Luma (BT.601, full range) of a grey H×W or BGR H×W×3 picture, H×W in the same dtype."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def with_chroma_of(fused: NDArray[Any], visible: NDArray[Any]) -> NDArray[Any]:
    """The fused luma H×W with the chroma of a BGR picture H×W×3 of the same dtype, as BGR.

    The chroma differences (YCrCb) do not change, so the saturation does not depend on the fused brightness. Values
    outside the range are clipped.
    """
    ycrcb = cv2.cvtColor(visible, cv2.COLOR_BGR2YCrCb)
    ycrcb[..., 0] = fused
    bgr = cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2BGR)
    # OpenCV saturates integers; floats may leave [0, 1].
    return np.clip(bgr, 0, 1, out=bgr) if bgr.dtype == np.float32 else bgr
