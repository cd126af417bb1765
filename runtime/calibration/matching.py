"""One step of the registration: infrared is warped, matched to the visible edges, and the calibration moved.

Patches of the visible edges are searched for in the warped infrared edges. One smooth displacement is found on which
the scores of all patches agree, so patches without edges, such as dark sky or bare road, do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Calibration, Size, warp_map
from ufuser.runtime.calibration.features import Floats, coverage, edges, level
from ufuser.runtime.calibration.field import Field, maximise, sampled
from ufuser.runtime.calibration.fit import Start, fit
from ufuser.runtime.errors import InputError

ImagePair = tuple[NDArray[Any], NDArray[Any]]
"""Infrared and visible picture, 8 bits."""

_CACHED = 48
"""Pictures of visible edges kept for all pairs together, 5 MB or less each."""
_GRID = 32
"""Points across the picture through which a displacement is fitted by a calibration."""


@dataclass(frozen=True, slots=True)
class Step:
    """Size and freedom of one step; pixels of the visible picture at `width`."""

    width: int
    patch: int
    reach: int
    """Largest displacement."""
    degree: int
    """1 translation, rotation and scale; 2 affine; 3 homography; 4 also the infrared lens's k1."""
    blur: float = 1.2
    """Sigma of the blur of the edges, pixels."""


class Pair:
    """Brightness of a pair of pictures, see `level`, with the visible edges cached by size and blur.

    Args:
        ir, vi: the pictures.
        cached: number of pictures of visible edges to keep.
    """

    def __init__(self, ir: NDArray[Any], vi: NDArray[Any], cached: int) -> None:
        self.ir, self._vi = level(ir), level(vi)
        self.vi_edges = lru_cache(cached)(self._vi_edges)

    def _vi_edges(self, size: Size, blur: float) -> Floats:
        mode = cv2.INTER_AREA if size[0] < self._vi.shape[1] else cv2.INTER_LINEAR
        return edges(np.asarray(cv2.resize(self._vi, size, interpolation=mode), np.float32), blur)


def prepare(pairs: Sequence[ImagePair]) -> list[Pair]:
    """All pairs as `Pair`."""
    return [Pair(ir, vi, _CACHED // len(pairs)) for ir, vi in pairs]


class Warp:
    """Infrared as the visible camera sees it by a calibration, at the calibration's sizes."""

    def __init__(self, calibration: Calibration) -> None:
        places = warp_map(calibration)
        x, y = places[..., 0], places[..., 1]
        right, bottom = np.asarray(calibration.ir_size) - 1.0
        self.inside: NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x <= right) & (y <= bottom)
        """Visible pixels that infrared sees."""
        self.coverage = coverage(self.inside)
        self._maps = np.float32(x), np.float32(y)
        self._step = float(np.median(np.abs(np.diff(x[::4], axis=1))))

    def __call__(self, ir: Floats) -> Floats:
        # Blur before subsampling, against aliasing.
        soft = cv2.GaussianBlur(ir, (0, 0), 0.45 * self._step) if self._step > 1.2 else ir
        warped = cv2.remap(soft, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, np.float32)


def shrunk(size: Size, width: int) -> Size:
    """A size of the same aspect ratio."""
    return width, max(round(size[1] * width / size[0]), 1)


def run_step(pairs: Sequence[Pair], calibration: Calibration, step: Step) -> tuple[Calibration, float]:
    """Move the calibration to where the patches agree.

    Returns:
        The calibration, and the mean correlation of the patches, weighted by the strength of their edges.

    Raises:
        InputError: the two pictures hardly overlap.
    """
    small = shrunk(calibration.vi_size, step.width)
    here = calibration.scaled(small, calibration.ir_size)
    warp = Warp(here)
    corners = _patches(warp.inside, step)
    if len(corners) < 4:
        raise InputError("infrared and visible hardly overlap: expected a start nearer to the truth")
    surfaces: Any = 0.0
    weights: Any = 0.0
    for pair in pairs:
        moving = edges(warp(pair.ir), step.blur, warp.coverage)
        moving = np.pad(moving, ((step.reach,) * 2, (step.reach,) * 2, (0, 0)))
        fixed = pair.vi_edges(small, step.blur)
        found = [_score(moving, fixed, corner, step) for corner in corners]
        surfaces = surfaces + np.stack([surface * weight for surface, weight in found])
        weights = weights + np.asarray([weight for _, weight in found])
    centres = np.asarray(corners, np.float64) + (step.patch - 1) / 2
    inside = warp.inside[tuple(np.rint(centres[:, ::-1]).astype(int).T)]
    field = Field(centres[inside].mean(axis=0), small, step.degree)
    basis = field.basis(centres)
    values = maximise(surfaces / float(weights.max()), basis)
    score = sampled(surfaces, basis @ values + step.reach).sum() / max(float(weights.sum()), 1e-9)
    moved = _moved(here, field, values, warp.inside)
    return moved.scaled(calibration.vi_size, calibration.ir_size), float(score)


def _patches(inside: NDArray[np.bool_], step: Step) -> list[tuple[int, int]]:
    """Upper left corners of half overlapping patches that both cameras see for the most part."""
    height, width = inside.shape
    size = min(step.patch, height // 3)
    return [
        (int(x), int(y))
        for y in np.linspace(0, height - step.patch, max(2 * (height // size) - 1, 2))
        for x in np.linspace(0, width - step.patch, max(2 * (width // size) - 1, 2))
        if inside[int(y) : int(y) + step.patch, int(x) : int(x) + step.patch].mean() > 0.7
    ]


def _score(moving: Floats, fixed: Floats, corner: tuple[int, int], step: Step) -> tuple[Floats, float]:
    """Correlation of a visible patch with infrared at every displacement, (2·reach + 1) squared, and the strength of
    the patch's edges. `moving` is padded by the reach."""
    (x, y), size, reach = corner, step.patch, step.reach
    template = fixed[y : y + size, x : x + size]
    window = moving[y : y + size + 2 * reach, x : x + size + 2 * reach]
    surface = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    surface = np.where(np.isfinite(surface) & (np.abs(surface) <= 1.0001), surface, 0.0)
    means, deviations = cv2.meanStdDev(template)
    strength = math.sqrt(float((means**2 + deviations**2).mean() - means.mean() ** 2))
    return np.asarray(surface, np.float32), strength


def _moved(
    here: Calibration, field: Field, values: NDArray[np.float64], inside: NDArray[np.bool_]
) -> Calibration:
    """The calibration nearest to the old one after the displacement."""
    height, width = inside.shape
    spacing = max(width // _GRID, 1)
    ys, xs = np.mgrid[0:height:spacing, 0:width:spacing]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    points = points[inside[ys.ravel(), xs.ravel()]]
    targets = here.to_infrared(points + field.basis(points) @ values)
    good = (np.abs(targets) < 5000).all(axis=1)
    moved = fit(Start.of(here), points[good], targets[good], find_distortion=field.degree == 4, robust=False)
    return replace(here, homography=moved.homography, ir_lens=moved.ir_lens)
