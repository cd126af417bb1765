"""Simple fusers for pseudo ground truth, where there are no fused images of published networks.

Each maps infrared and visible, H×W float32 in [0, 1], to fused, H×W float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ufuser.runtime.files import make_folder
from ufuser.runtime.images import as_float, as_uint8, read_grey, write_image

from .data import Image, Pair

LEVELS = 4


def _larger(a: Image, b: Image) -> Image:
    """At each pixel the value of larger magnitude."""
    chosen: Image = np.where(np.abs(a) >= np.abs(b), a, b)
    return chosen


def laplacian_pyramid(ir: Image, vi: Image) -> Image:
    """Burt and Adelson's pyramid: the larger detail of each level, the mean of the coarsest."""
    shapes, details = [], []
    a, b = ir, vi
    for _ in range(LEVELS):
        size = a.shape[::-1]
        coarse: list[Image] = [np.asarray(cv2.pyrDown(x), np.float32) for x in (a, b)]
        finer: list[Image] = [np.asarray(cv2.pyrUp(x, dstsize=size), np.float32) for x in coarse]
        details.append(_larger(a - finer[0], b - finer[1]))
        shapes.append(size)
        a, b = coarse
    fused: Image = np.asarray((a + b) / 2, np.float32)
    for size, detail in zip(shapes[::-1], details[::-1], strict=True):
        fused = np.asarray(cv2.pyrUp(fused, dstsize=size), np.float32) + detail
    return np.clip(fused, 0, 1)


def wavelet(ir: Image, vi: Image) -> Image:
    """Undecimated (à trous) wavelets with the cubic B-spline: the larger detail, the mean of the rest.

    Starck and Murtagh's "starlet": without decimation there are no blocks to see.
    """
    fused = np.zeros_like(ir)
    a, b = ir, vi
    for level in range(LEVELS):
        kernel = np.zeros(4 * 2**level + 1, np.float32)
        kernel[:: 2**level] = np.array([1, 4, 6, 4, 1], np.float32) / 16
        smooth = [
            np.asarray(cv2.sepFilter2D(x, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT), np.float32)
            for x in (a, b)
        ]
        fused += _larger(a - smooth[0], b - smooth[1])
        a, b = smooth
    return np.clip(fused + (a + b) / 2, 0, 1)


def _box(x: Image, radius: int) -> Image:
    edge = 2 * radius + 1
    return np.asarray(cv2.boxFilter(x, -1, (edge, edge), borderType=cv2.BORDER_REFLECT), np.float32)


def _guided(guide: Image, x: Image, radius: int, eps: float) -> Image:
    """He, Sun and Tang's guided filter, grey guide."""
    mean_g, mean_x = _box(guide, radius), _box(x, radius)
    slope = (_box(guide * x, radius) - mean_g * mean_x) / (_box(guide * guide, radius) - mean_g**2 + eps)
    offset = mean_x - slope * mean_g
    return _box(slope, radius) * guide + _box(offset, radius)


def guided_filter(ir: Image, vi: Image) -> Image:
    """Li, Kang and Hu, "Image fusion with guided filtering" (2013), with its parameters: two scales, each
    weighted by which source is more salient, the weights' edges guided by the sources."""

    def salience(x: Image) -> Image:
        strength = np.abs(cv2.Laplacian(x, cv2.CV_32F))
        return np.asarray(cv2.GaussianBlur(strength, (11, 11), 5))

    first = (salience(ir) >= salience(vi)).astype(np.float32)
    coarse = [_box(x, 15) for x in (ir, vi)]
    fused = np.zeros_like(ir)
    scales = ((45, 0.3, coarse), (7, 1e-6, [ir - coarse[0], vi - coarse[1]]))
    for radius, eps, (a, b) in scales:
        weight = np.clip(_guided(ir, first, radius, eps), 0, 1)
        other = np.clip(_guided(vi, 1 - first, radius, eps), 0, 1)
        fused += (weight * a + other * b) / (weight + other + 1e-6)
    return np.clip(fused, 0, 1)


def weighted_mean(ir: Image, vi: Image) -> Image:
    """Mean weighted by local contrast: the standard deviation in 15×15 windows, smoothed.

    Far below a deviation of 0.05 the mean is a plain one: noise in flat parts shall not choose a source.
    """

    def contrast(x: Image) -> Image:
        deviation = np.sqrt(np.clip(_box(x * x, 7) - _box(x, 7) ** 2, 0, None))
        smooth: Image = np.asarray(cv2.GaussianBlur(deviation, (15, 15), 4), np.float32) + np.float32(0.05)
        return smooth

    a, b = contrast(ir), contrast(vi)
    fused: Image = (a * ir + b * vi) / (a + b)
    return fused


FUSERS: dict[str, Callable[[Image, Image], Image]] = {
    "laplacian": laplacian_pyramid,
    "wavelet": wavelet,
    "guided": guided_filter,
    "mean": weighted_mean,
}


def write_fused(fuser: str, pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    """A built-in fuser's image of each pair, as 8-bit PNG by the pair's stem; files that exist are kept.

    Raises InputError where one cannot be written.
    """
    make_folder(folder)
    written = {}
    for pair in pairs:
        path = folder / f"{pair.name}.png"
        if not path.exists():
            fused = FUSERS[fuser](as_float(read_grey(pair.ir)), as_float(read_grey(pair.vi)))
            write_image(path, as_uint8(np.clip(fused, 0, 1)), durable=False)
        written[pair.name] = path
    return written
