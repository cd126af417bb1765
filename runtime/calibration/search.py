"""Starts of a registration: from the fields of view, or by a search over all scales, rotations and translations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ufuser.runtime.alignment import Calibration, Size
from ufuser.runtime.calibration.features import edges
from ufuser.runtime.calibration.matching import Pair, Warp, shrunk

_WIDTH, _BLUR = 128, 1.5
"""Width of the pictures and blur of their edges, pixels."""
_SCALES = tuple(np.geomspace(0.45, 2.0, 13))
_ROTATIONS = (-5.0, -2.5, 0.0, 2.5, 5.0)
"""Degrees."""


def rough_start(
    vi_size: Size, ir_size: Size, vi_fov: float | None = None, ir_fov: float | None = None
) -> Calibration:
    """Both pictures centred on each other; scaled by the fields of view if both are known.

    Args:
        vi_size, ir_size: width and height, pixels.
        vi_fov, ir_fov: horizontal fields of view, degrees.
    """
    ratio = ir_size[0] / vi_size[0]
    if vi_fov and ir_fov:
        ratio *= math.tan(math.radians(vi_fov) / 2) / math.tan(math.radians(ir_fov) / 2)
    x, y = ((i - 1) / 2 - ratio * (v - 1) / 2 for i, v in zip(ir_size, vi_size, strict=True))
    return Calibration(vi_size, ir_size, np.asarray([[ratio, 0, x], [0, ratio, y], [0, 0, 1.0]]))


def search_starts(pairs: Sequence[Pair], start: Calibration) -> list[Calibration]:
    """The start itself, and at every scale the rotation and translation at which the edges match best."""
    small = shrunk(start.vi_size, _WIDTH)
    centre = ((small[0] - 1) / 2, (small[1] - 1) / 2)
    base = start.scaled(small, start.ir_size)
    pad = (small[1] // 2, small[0] // 2)
    fixed = [
        cv2.copyMakeBorder(pair.vi_edges(small, _BLUR), pad[0], pad[0], pad[1], pad[1], cv2.BORDER_CONSTANT)
        for pair in pairs
    ]
    starts = [start]
    for scale in _SCALES:
        best, chosen = -math.inf, np.eye(3)
        for rotation in _ROTATIONS:
            similarity = np.vstack([cv2.getRotationMatrix2D(centre, rotation, 1 / scale), [0, 0, 1]])
            trial = replace(base, homography=base.homography @ similarity)
            score, (x, y) = _best_translation(pairs, trial, fixed, pad)
            if score > best:
                best, chosen = score, similarity @ np.asarray([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        if best > -math.inf:
            found = replace(base, homography=base.homography @ chosen)
            starts.append(found.scaled(start.vi_size, start.ir_size))
    return starts


def _best_translation(
    pairs: Sequence[Pair], trial: Calibration, fixed: Sequence[Any], pad: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """Score and translation at which infrared, warped by a trial, matches best."""
    warp = Warp(trial)
    rows, columns = np.flatnonzero(warp.inside.any(axis=1)), np.flatnonzero(warp.inside.any(axis=0))
    if len(rows) < 24 or len(columns) < 24:
        return -math.inf, (0.0, 0.0)
    top, left = int(rows[0]), int(columns[0])
    total: Any = 0.0
    for pair, picture in zip(pairs, fixed, strict=True):
        part = edges(warp(pair.ir), _BLUR, warp.coverage)[top : rows[-1] + 1, left : columns[-1] + 1]
        total = total + cv2.matchTemplate(picture, part, cv2.TM_CCOEFF_NORMED)
    # A small picture correlates by chance somewhere; times the root of its area, scores of all sizes compare.
    total = total / len(pairs) * math.sqrt(part.shape[0] * part.shape[1])
    _, score, _, at = cv2.minMaxLoc(np.nan_to_num(total, nan=-1e9, posinf=-1e9, neginf=-1e9))
    return float(score), (at[0] - pad[1] - left, at[1] - pad[0] - top)
