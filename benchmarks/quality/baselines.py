"""Fusion without a network. Compare every network with these, since some metrics prefer them.

Each takes registered grey uint8 pictures H×W of the same size and returns H×W uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ufuser.benchmarks.quality.images import BLACK, WHITE, Grey, Image, as_pair

# Smallest side of the coarsest level, in pixels.
COARSEST_SIDE = 8


def mean(ir: Image, vi: Image) -> Grey:
    """Pixel mean, halves rounded to even."""
    a, b = as_pair(ir, vi, "ir", "vi")
    return np.rint((a.astype(np.float64) + b) / 2).astype(np.uint8)


def maximum(ir: Image, vi: Image) -> Grey:
    """Pixel maximum. Beats published networks on MI and VIF."""
    a, b = as_pair(ir, vi, "ir", "vi")
    return np.maximum(a, b)


def _bands(image: npt.NDArray[np.float32], levels: int) -> list[npt.NDArray[np.float32]]:
    """Laplacian pyramid: band-pass levels from fine to coarse, then the coarsest low-pass."""
    bands = []
    for _ in range(levels):
        coarse = cv2.pyrDown(image)
        height, width = image.shape
        bands.append(np.asarray(image - cv2.pyrUp(coarse, dstsize=(width, height)), dtype=np.float32))
        image = np.asarray(coarse, dtype=np.float32)
    return [*bands, image]


def laplacian_pyramid(ir: Image, vi: Image, levels: int = 4) -> Grey:
    """Laplacian pyramid: the stronger coefficient in each band, the mean of the coarsest low-pass.

    At most ``levels`` bands; small pictures have fewer.

    Source: Burt, Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans. Commun. 1983.
    """
    a, b = as_pair(ir, vi, "ir", "vi")
    levels = min(levels, max(0, int(np.log2(min(a.shape) / COARSEST_SIDE))))
    bands_a, bands_b = _bands(a.astype(np.float32), levels), _bands(b.astype(np.float32), levels)
    fused = (bands_a.pop() + bands_b.pop()) / 2
    for band_a, band_b in zip(reversed(bands_a), reversed(bands_b), strict=True):
        height, width = band_a.shape
        stronger = np.where(np.abs(band_a) >= np.abs(band_b), band_a, band_b)
        fused = stronger + cv2.pyrUp(fused, dstsize=(width, height))
    return np.clip(np.rint(fused), BLACK, WHITE).astype(np.uint8)


BASELINES: dict[str, Callable[[Image, Image], Grey]] = {
    "mean": mean,
    "maximum": maximum,
    "laplacian": laplacian_pyramid,
}
