"""Metrics on the fused picture alone: SD, SF, AG. They reward noise and stretched contrast as well as detail.

All functions raise ValueError as ``images.as_grey`` says.
"""

from __future__ import annotations

import math

import numpy as np

from ufuser.benchmarks.quality.images import Image, as_grey, require_side


def standard_deviation(fused: Image) -> float:
    """SD, population standard deviation in grey levels, 0..127.5; 0 for a constant picture.

    Source: Rao, "In-fibre Bragg grating sensors", Meas. Sci. Technol. 1997, as the field cites it.
    """
    return float(np.std(as_grey(fused, "fused"), dtype=np.float64))


def spatial_frequency(fused: Image) -> float:
    """SF = sqrt(mean squared horizontal + mean squared vertical difference), grey levels; 0 if constant.

    Each mean is over the differences that exist: H·(W−1) and (H−1)·W of them. Needs 2 pixels per side.

    Source: Eskicioglu, Fisher, "Image quality measures and their performance", IEEE Trans. Commun. 1995.
    """
    image = as_grey(fused, "fused")
    require_side(image, 2, "SF")
    levels = image.astype(np.float64)
    return math.sqrt(
        float(np.mean(np.diff(levels, axis=1) ** 2)) + float(np.mean(np.diff(levels, axis=0) ** 2))
    )


def average_gradient(fused: Image) -> float:
    """AG, mean of sqrt((gx² + gy²) / 2) in grey levels per pixel; 0 for a constant picture.

    Central differences inside, one-sided at the borders (``numpy.gradient``), mean over all pixels. Needs 2
    pixels per side.

    Source: Cui, Feng, Xu, Li, Chen, "Detail preserved fusion of visible and infrared images using regional
    saliency extraction and multi-scale image decomposition", Opt. Commun. 2015.
    """
    image = as_grey(fused, "fused")
    require_side(image, 2, "AG")
    gy, gx = np.gradient(image.astype(np.float64))
    return float(np.mean(np.sqrt((gx * gx + gy * gy) / 2)))
