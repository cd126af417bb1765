"""Registration of infrared to visible by their edges, from a rough start to a fraction of a pixel.

Coarse to fine, see `matching`. Several pairs from fixed cameras add up: noise averages out, and people who pass add
edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Calibration, Residual
from ufuser.runtime.calibration.matching import ImagePair, Pair, Step, prepare, run_step
from ufuser.runtime.calibration.search import search_starts
from ufuser.runtime.errors import InputError

COARSE = (Step(192, 48, 16, 1), Step(192, 48, 10, 2), Step(320, 64, 12, 3))
FINE = (
    Step(320, 48, 8, 4),
    Step(480, 64, 8, 4),
    Step(640, 96, 8, 4, 0.8),
    Step(640, 96, 5, 4, 0.6),
    Step(640, 96, 5, 4, 0.6),
)
FINE_LENS_LAST = (*(replace(step, degree=3) for step in FINE[:-2]), *FINE[-2:], FINE[-1])
_COARSE_PAIRS = 2
"""Pairs that the coarse steps use."""
_AFTER_ONE_STEP, _AFTER_COARSE = 7, 2
"""Starts kept after the first coarse step, and after all of them."""
_COARSE_SHARE, _FINE_SHARE = 0.8, 0.5
"""Share of the best one's agreement that another must reach to be kept: after the coarse steps, at each fine step."""
_COARSE_SAME, _FINE_SAME = 3e-3, 1e-4
"""Distance, in infrared picture widths, below which two calibrations count as one."""
_NONE = -1.0
"""Agreement of pictures that cannot be compared."""
_LOWEST = 0.12
"""Agreement below which the pictures do not show the same scene."""
_HOPELESS = 0.07
"""Agreement below which no further step is tried: it falls as the edges get sharper."""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """A calibration and how well it matches."""

    calibration: Calibration
    agreement: float
    """Mean correlation of the patches' edges, weighted by their strength: -1 to 1, 0 by chance."""


def refine(
    pairs: Sequence[ImagePair], start: Calibration, find_distortion: bool = True, search: bool = True
) -> Refined:
    """Register the pictures.

    Args:
        pairs: infrared (uint8 or uint16) and visible pictures of the start's sizes, from the same fixed cameras.
        start: where to begin. Its lenses are kept, except infrared's k1 with `find_distortion`.
        find_distortion: find k1 as well.
        search: try all scales and translations first. Otherwise the start must be right to a twentieth of the picture.

    Raises:
        InputError: pictures of other sizes, or without common edges.
    """
    for ir, vi in pairs:
        for side, image, size in (("infrared", ir, start.ir_size), ("visible", vi, start.vi_size)):
            if (image.shape[1], image.shape[0]) != size:
                raise InputError(
                    f"{side} picture of {image.shape[1]}x{image.shape[0]}, expected {size[0]}x{size[1]} as the first"
                )
    prepared = prepare(pairs)
    few = prepared[:_COARSE_PAIRS]
    starts = search_starts(few, start) if search else [start]
    # A street resembles itself at another scale: only the finer steps tell which start was right.
    for steps, kept in ((COARSE[:1], _AFTER_ONE_STEP), (COARSE[1:], _AFTER_COARSE)):
        found = [_run(few, each, steps, find_distortion) for each in starts]
        found = sorted(found, key=lambda r: -r.agreement)[:kept]
        starts = [each.calibration for each in found]
    starts = [each.calibration for each in _distinct(found, _COARSE_SHARE, _COARSE_SAME)]
    # A lens freed too early can end in a wrong distortion, so also try to free it last.
    ends = _run_side_by_side(prepared, starts, FINE_LENS_LAST, find_distortion) if find_distortion else []
    # The coarse steps can move away from a start that was right already.
    ends += _run_side_by_side(prepared, [*starts, start], FINE, find_distortion)
    best = max(ends, key=lambda r: r.agreement)
    if best.agreement < _LOWEST:
        raise InputError(
            f"the pictures agree by {max(best.agreement, 0.0):.2f} only: expected the same scene with edges in both; "
            f"give more pairs or a nearer start, or click points (`ufuser calibrate points`)"
        )
    residual = _repeatability(prepared, best.calibration) if len(pairs) > 1 else None
    return Refined(replace(best.calibration, method="refine", residual=residual), best.agreement)


def left_over(pairs: Sequence[ImagePair], calibration: Calibration) -> tuple[Residual, float]:
    """How far the pictures would still move a calibration, in infrared pixels, and their agreement.

    Args:
        pairs: infrared and visible pictures of the calibration's sizes.
        calibration: to be checked.

    Raises:
        InputError: with this calibration the two pictures hardly overlap.
    """
    moved = _run(prepare(pairs), calibration, FINE[-2:], find_distortion=False)
    distances = _distances(moved.calibration, calibration)
    if moved.agreement <= _NONE or not distances.size:
        raise InputError(
            "by this calibration both cameras see too little of the same to check it: expected a calibration of "
            "these two; calibrate again"
        )
    return Residual.of(distances), moved.agreement


def _run(
    pairs: Sequence[Pair], calibration: Calibration, steps: Sequence[Step], find_distortion: bool
) -> Refined:
    """Run the steps; the agreement is `_NONE` if they lose the overlap."""
    agreement = 0.0
    for step in steps:
        limited = replace(step, degree=min(step.degree, 4 if find_distortion else 3))
        try:
            calibration, agreement = run_step(pairs, calibration, limited)
        except InputError:
            return Refined(calibration, _NONE)
    return Refined(calibration, agreement)


def _run_side_by_side(
    pairs: Sequence[Pair], starts: Sequence[Calibration], steps: Sequence[Step], find_distortion: bool
) -> list[Refined]:
    """Run the steps from several starts, and after each drop those that match far worse or have met another."""
    found = [Refined(start, 0.0) for start in starts]
    for step in steps:
        found = [_run(pairs, each.calibration, (step,), find_distortion) for each in found]
        found = _distinct(sorted(found, key=lambda r: -r.agreement), _FINE_SHARE, _FINE_SAME)
        if found[0].agreement < _HOPELESS:
            break
    return found


def _distinct(found: Sequence[Refined], share: float, same: float) -> list[Refined]:
    """The best, and those others that reach a share of its agreement and differ from all before them.

    Args:
        found: best first.
        share: of the best one's agreement.
        same: median distance, in infrared picture widths, up to which two count as one.
    """
    kept = [found[0]]
    for each in found[1:]:
        limit = same * each.calibration.ir_size[0]
        if each.agreement > share * found[0].agreement and not any(
            float(np.median(_distances(each.calibration, other.calibration))) < limit for other in kept
        ):
            kept.append(each)
    return kept


def _repeatability(pairs: Sequence[Pair], whole: Calibration) -> Residual | None:
    """How far each single pair would move the calibration found from all of them; None without overlap."""
    single = [_run([each], whole, FINE[-1:], find_distortion=False) for each in pairs[:4]]
    distances = np.concatenate([_distances(each.calibration, whole) for each in single])
    return Residual.of(distances) if distances.size else None


def _distances(one: Calibration, other: Calibration) -> NDArray[np.float64]:
    """Infrared pixels between two calibrations, over the part that both cameras see by the second."""
    (width, height), (right, bottom) = one.vi_size, np.asarray(one.ir_size) - 1.0
    ys, xs = np.mgrid[0:height:8, 0:width:8]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    places = other.to_infrared(points)
    seen = (places >= 0).all(axis=1) & (places[:, 0] <= right) & (places[:, 1] <= bottom)
    return np.asarray(np.hypot(*(one.to_infrared(points[seen]) - places[seen]).T), np.float64)
