"""From a rough start to the pixel: infrared registered to visible by their edges.

Coarse to fine. At each step infrared is warped by what is known, patches of the visible edges are searched for in
it, and one smooth displacement is sought that all the patches' scores agree on: a homography's, and the bend of the
infrared lens. No patch has to decide by itself, so dark sky and bare road do no harm. Several pairs of a standing
camera add up: noise averages out, and whoever walks by draws edges.
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

from ufuser.runtime.alignment import Calibration, Residual, Size, warp_map
from ufuser.runtime.calibration.features import Floats, edges, level, shown
from ufuser.runtime.calibration.field import Field, agreed, sampled
from ufuser.runtime.calibration.fit import Start, fit
from ufuser.runtime.errors import InputError

ImagePair = tuple[NDArray[Any], NDArray[Any]]
"""Infrared and visible picture, 8 bits."""


@dataclass(frozen=True, slots=True)
class Step:
    """One round of the search; pixels of the visible picture at `width`."""

    width: int
    patch: int
    reach: int
    """Farthest displacement."""
    degree: int
    """What may move: 1 shift and turn and size, 2 affine, 3 homography, 4 also the lens."""
    soft: float = 1.2
    """Blur of the edges, pixels."""


FINDING = (Step(192, 48, 16, 1), Step(192, 48, 10, 2), Step(320, 64, 12, 3))
MEASURING = (
    Step(320, 48, 8, 4),
    Step(480, 64, 8, 4),
    Step(640, 96, 8, 4, 0.8),
    Step(640, 96, 5, 4, 0.6),
    Step(640, 96, 5, 4, 0.6),
)
LENS_LAST = (*(replace(step, degree=3) for step in MEASURING[:-2]), *MEASURING[-2:], MEASURING[-1])
_COARSE, _SOFTEST = 128, 1.5
"""Width of the first, global search, and its edges' blur, pixels."""
_SIZES = tuple(np.geomspace(0.45, 2.0, 13))
_TURNS = (-5.0, -2.5, 0.0, 2.5, 5.0)
"""Scales and degrees tried there."""
_CONTENDERS, _FINALISTS = 7, 2
"""Of the starts that the global search gives, one a scale, so many are left after a first step, and measured to the
end."""
_NEARLY = 0.8
"""Of the best start's agreement, that another must have to be measured too."""
_BEHIND = 0.5
"""The same while measuring: another that has less gives up."""
_ALIKE, _SAME = 3e-3, 1e-4
"""Of the infrared picture's width: starts so near each other will end alike, and ways have met."""
_GLIMPSE = 2
"""Pairs that are enough to search with."""
_ACROSS = 32
"""Points across the picture that a displacement is turned into a calibration by."""
_KEPT = 48
"""Pictures of edges kept while refining, 5 MB or less each."""
_NONE = -1.0
"""Agreement of what cannot be compared."""
_WEAKEST = 0.12
"""Mean agreement of the patches below which the pictures do not show the same."""
_HOPELESS = 0.07
"""The same at any step: agreement falls as the edges get sharper."""


class _Pair:
    """A pair's brightness, see `level`.

    Args:
        ir, vi: the pictures.
        kept: how many pictures of visible edges to keep.
    """

    def __init__(self, ir: NDArray[Any], vi: NDArray[Any], kept: int) -> None:
        self.ir, self._vi = level(ir), level(vi)
        # The visible picture stands still, whichever way infrared is moved over it.
        self.still = lru_cache(kept)(self._still)

    def _still(self, size: Size, soft: float) -> Floats:
        """Edges of the visible picture at a size."""
        return edges(_resized(self._vi, size), soft)


def _pairs(pairs: Sequence[ImagePair]) -> list[_Pair]:
    return [_Pair(ir, vi, _KEPT // len(pairs)) for ir, vi in pairs]


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What came out."""

    calibration: Calibration
    agreement: float
    """Mean correlation of the patches' edges, weighted by how much they show: -1 to 1, 0 by chance."""


def refine(
    pairs: Sequence[ImagePair], start: Calibration, find_distortion: bool = True, search: bool = True
) -> Refined:
    """Register the pictures.

    Args:
        pairs: infrared (uint8 or uint16) and visible pictures of the start's sizes, all by the same cameras,
            unmoved towards each other.
        start: where to begin; its lenses are kept, but for infrared's k1 if `find_distortion`.
        find_distortion: find k1 as well.
        search: try all sizes and shifts first, instead of trusting the start to a few pixels in a hundred.

    Raises:
        InputError: pictures of other sizes, or they have nothing in common.
    """
    for ir, vi in pairs:
        for side, image, size in (("infrared", ir, start.ir_size), ("visible", vi, start.vi_size)):
            if (image.shape[1], image.shape[0]) != size:
                raise InputError(
                    f"{side} picture of {image.shape[1]}x{image.shape[0]}, expected {size[0]}x{size[1]} as the first"
                )
    known = _pairs(pairs)
    starts = _searched(known[:_GLIMPSE], start) if search else [start]
    # A street looks like itself at another size: only close up is it clear which start was right.
    for steps, left in ((FINDING[:1], _CONTENDERS), (FINDING[1:], _FINALISTS)):
        found = [_through(known[:_GLIMPSE], each, steps, find_distortion) for each in starts]
        found = sorted(found, key=lambda r: -r.agreement)[:left]
        starts = [each.calibration for each in found]
    starts = [each.calibration for each in _leading(found, _NEARLY, _ALIKE)]
    # A lens let loose too early may bend the picture to where it stays bent: without it first, as well.
    ends = _raced(known, starts, LENS_LAST, find_distortion) if find_distortion else []
    # Finding looks from afar, and may leave a start that was right already.
    ends += _raced(known, [*starts, start], MEASURING, find_distortion)
    best = max(ends, key=lambda r: r.agreement)
    if best.agreement < _WEAKEST:
        raise InputError(
            f"the pictures agree by {max(best.agreement, 0.0):.2f} only: expected the same scene with edges in both; "
            f"give more pairs, a nearer start (--start), or click points (ufuser calibrate points)"
        )
    residual = _scatter(known, best.calibration) if len(pairs) > 1 else None
    return Refined(replace(best.calibration, method="refine", residual=residual), best.agreement)


def left_over(pairs: Sequence[ImagePair], calibration: Calibration) -> tuple[Residual, float]:
    """How far the pictures themselves would still move a calibration, in infrared pixels, and their agreement.

    Args:
        pairs: infrared and visible pictures of the calibration's sizes.
        calibration: to be judged; kept as it is.

    Raises:
        InputError: by this calibration the cameras do not see the same.
    """
    known = _pairs(pairs)
    moved = _through(known, calibration, MEASURING[-2:], find_distortion=False)
    if moved.agreement <= _NONE:
        raise InputError(
            "by this calibration both cameras see too little of the same to judge: expected a calibration of "
            "these two; calibrate anew"
        )
    return Residual.of(_apart(moved.calibration, calibration)), moved.agreement


def _raced(
    pairs: Sequence[_Pair], starts: Sequence[Calibration], steps: Sequence[Step], find_distortion: bool
) -> list[Refined]:
    """Several starts step after step, side by side: only those go on that may still end elsewhere, and better."""
    found = [Refined(start, 0.0) for start in starts]
    for step in steps:
        found = [_through(pairs, each.calibration, (step,), find_distortion) for each in found]
        found = _leading(sorted(found, key=lambda r: -r.agreement), _BEHIND, _SAME)
        if found[0].agreement < _HOPELESS:
            break
    return found


def _leading(found: Sequence[Refined], share: float, near: float) -> list[Refined]:
    """The first, and of the others those with a share of its agreement that lie apart from all before them.

    Args:
        found: best first.
        share: of the first one's agreement.
        near: of the infrared picture's width, median distance up to which two count as one.
    """
    left = [found[0]]
    for each in found[1:]:
        limit = near * each.calibration.ir_size[0]
        if each.agreement > share * found[0].agreement and not any(
            float(np.median(_apart(each.calibration, other.calibration))) < limit for other in left
        ):
            left.append(each)
    return left


def _scatter(pairs: Sequence[_Pair], whole: Calibration) -> Residual:
    """How far each single pair would move what all pairs together found: its repeatability."""
    single = [_through([each], whole, MEASURING[-1:], find_distortion=False) for each in pairs[:4]]
    return Residual.of(np.concatenate([_apart(each.calibration, whole) for each in single]))


def _apart(one: Calibration, other: Calibration) -> NDArray[np.float64]:
    """Infrared pixels between what two calibrations say, over what both cameras see."""
    (width, height), (right, bottom) = one.vi_size, np.asarray(one.ir_size) - 1.0
    ys, xs = np.mgrid[0:height:8, 0:width:8]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    places = other.to_infrared(points)
    seen = (places >= 0).all(axis=1) & (places[:, 0] <= right) & (places[:, 1] <= bottom)
    return np.asarray(np.hypot(*(one.to_infrared(points[seen]) - places[seen]).T), np.float64)


def rough_start(
    vi_size: Size, ir_size: Size, vi_fov: float | None = None, ir_fov: float | None = None
) -> Calibration:
    """Both pictures on top of each other, middle on middle; scaled by the fields of view if both are known.

    Args:
        vi_size, ir_size: width and height, pixels.
        vi_fov, ir_fov: degrees across.
    """
    ratio = ir_size[0] / vi_size[0]
    if vi_fov and ir_fov:
        ratio *= math.tan(math.radians(vi_fov) / 2) / math.tan(math.radians(ir_fov) / 2)
    shift = [(i - 1) / 2 - ratio * (v - 1) / 2 for i, v in zip(ir_size, vi_size, strict=True)]
    return Calibration(
        vi_size, ir_size, np.asarray([[ratio, 0, shift[0]], [0, ratio, shift[1]], [0, 0, 1.0]])
    )


def _shrunk(size: Size, width: int) -> Size:
    return width, max(round(size[1] * width / size[0]), 1)


def _resized(picture: Floats, size: Size) -> Floats:
    mode = cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=mode), np.float32)


class _Warp:
    """Infrared as the visible camera sees it by a calibration, at the calibration's sizes."""

    def __init__(self, calibration: Calibration) -> None:
        places = warp_map(calibration)
        x, y = places[..., 0], places[..., 1]
        right, bottom = np.asarray(calibration.ir_size) - 1.0
        self.inside: NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x <= right) & (y <= bottom)
        """Where infrared shows anything."""
        self.shown = shown(self.inside)
        self._maps = np.float32(x), np.float32(y)
        self._step = float(np.median(np.abs(np.diff(x[::4], axis=1))))

    def __call__(self, ir: Floats) -> Floats:
        # Averaged before it is thinned out: else small sizes alias.
        soft = cv2.GaussianBlur(ir, (0, 0), 0.45 * self._step) if self._step > 1.2 else ir
        warped = cv2.remap(soft, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, np.float32)


def _through(
    pairs: Sequence[_Pair], calibration: Calibration, steps: Sequence[Step], find_distortion: bool
) -> Refined:
    """Step after step; an agreement of `_NONE` where the way leads out of the picture."""
    agreement = 0.0
    for step in steps:
        fitting = replace(step, degree=min(step.degree, 4 if find_distortion else 3))
        try:
            calibration, agreement = _stepped(pairs, calibration, fitting)
        except InputError:
            return Refined(calibration, _NONE)
    return Refined(calibration, agreement)


# The global search


def _searched(pairs: Sequence[_Pair], start: Calibration) -> list[Calibration]:
    """The start at every scale, turned and shifted as the edges fit best at a small size; and the start itself."""
    small = _shrunk(start.vi_size, _COARSE)
    middle = ((small[0] - 1) / 2, (small[1] - 1) / 2)
    base = start.scaled(small, start.ir_size)
    pad = (small[1] // 2, small[0] // 2)
    seen = []
    for pair in pairs:
        still = pair.still(small, _SOFTEST)
        seen.append(cv2.copyMakeBorder(still, pad[0], pad[0], pad[1], pad[1], cv2.BORDER_CONSTANT))
    starts = [start]
    for size in _SIZES:
        best, chosen = -math.inf, np.eye(3)
        for turn in _TURNS:
            about = np.vstack([cv2.getRotationMatrix2D(middle, turn, 1 / size), [0, 0, 1]])
            trial = replace(base, homography=base.homography @ about)
            score, shift = _placed(pairs, trial, seen, pad)
            if score > best:
                best = score
                chosen = about @ np.asarray([[1, 0, -shift[0]], [0, 1, -shift[1]], [0, 0, 1]])
        if best > -math.inf:
            found = replace(base, homography=base.homography @ chosen)
            starts.append(found.scaled(start.vi_size, start.ir_size))
    return starts


def _placed(
    pairs: Sequence[_Pair], trial: Calibration, seen: Sequence[Any], pad: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """How well infrared, warped by a trial, fits where it fits best, and its shift to there."""
    warp = _Warp(trial)
    rows, columns = np.flatnonzero(warp.inside.any(axis=1)), np.flatnonzero(warp.inside.any(axis=0))
    if len(rows) < 24 or len(columns) < 24:
        return -math.inf, (0.0, 0.0)
    top, left = int(rows[0]), int(columns[0])
    total: Any = 0.0
    for pair, picture in zip(pairs, seen, strict=True):
        part = edges(warp(pair.ir), _SOFTEST, warp.shown)[top : rows[-1] + 1, left : columns[-1] + 1]
        total = total + cv2.matchTemplate(picture, part, cv2.TM_CCOEFF_NORMED)
    # A small picture fits somewhere by chance: what counts is how far beyond chance.
    total = total / len(pairs) * math.sqrt(part.shape[0] * part.shape[1])
    _, score, _, at = cv2.minMaxLoc(np.nan_to_num(total, nan=-1e9, posinf=-1e9, neginf=-1e9))
    return float(score), (at[0] - pad[1] - left, at[1] - pad[0] - top)


# One step


def _stepped(pairs: Sequence[_Pair], calibration: Calibration, step: Step) -> tuple[Calibration, float]:
    """One round: the calibration moved to where the patches agree, and their agreement."""
    small = _shrunk(calibration.vi_size, step.width)
    here = calibration.scaled(small, calibration.ir_size)
    warp = _Warp(here)
    corners = _patches(warp.inside, step)
    if len(corners) < 4:
        raise InputError("infrared and visible hardly overlap: expected a nearer start (--start)")
    surfaces: Any = 0.0
    weights: Any = 0.0
    for pair in pairs:
        moving = edges(warp(pair.ir), step.soft, warp.shown)
        moving = np.pad(moving, ((step.reach,) * 2, (step.reach,) * 2, (0, 0)))
        still = pair.still(small, step.soft)
        found = [_score(moving, still, corner, step) for corner in corners]
        surfaces = surfaces + np.stack([surface * weight for surface, weight in found])
        weights = weights + np.asarray([weight for _, weight in found])
    centres = np.asarray(corners, np.float64) + (step.patch - 1) / 2
    field = Field(
        centres[warp.inside[tuple(np.rint(centres[:, ::-1]).astype(int).T)]].mean(axis=0), small, step.degree
    )
    basis = field.basis(centres)
    values = agreed(surfaces / float(weights.max()), basis)
    score = sampled(surfaces, basis @ values + step.reach).sum() / max(float(weights.sum()), 1e-9)
    return _moved(here, field, values, warp.inside).scaled(calibration.vi_size, calibration.ir_size), float(
        score
    )


def _patches(inside: NDArray[np.bool_], step: Step) -> list[tuple[int, int]]:
    """Left upper corners of patches half overlapping each other, most of each in sight of both cameras."""
    height, width = inside.shape
    size = min(step.patch, height // 3)
    return [
        (int(x), int(y))
        for y in np.linspace(0, height - step.patch, max(2 * (height // size) - 1, 2))
        for x in np.linspace(0, width - step.patch, max(2 * (width // size) - 1, 2))
        if inside[int(y) : int(y) + step.patch, int(x) : int(x) + step.patch].mean() > 0.7
    ]


def _score(moving: Floats, still: Floats, corner: tuple[int, int], step: Step) -> tuple[Floats, float]:
    """Correlation of a visible patch with infrared at every displacement, (2·reach + 1) squared, and how much the
    patch has to say: the strength of its edges. `moving` is padded by the reach."""
    (x, y), size, reach = corner, step.patch, step.reach
    template = still[y : y + size, x : x + size]
    window = moving[y : y + size + 2 * reach, x : x + size + 2 * reach]
    surface = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    surface = np.where(np.isfinite(surface) & (np.abs(surface) <= 1.0001), surface, 0.0)
    means, deviations = cv2.meanStdDev(template)
    return np.asarray(surface, np.float32), math.sqrt(
        float((means**2 + deviations**2).mean() - means.mean() ** 2)
    )


def _moved(
    here: Calibration, field: Field, values: NDArray[np.float64], inside: NDArray[np.bool_]
) -> Calibration:
    """The calibration whose mapping is the old one after the field: exact but for what no lens of ours can do."""
    height, width = inside.shape
    apart = max(width // _ACROSS, 1)
    ys, xs = np.mgrid[0:height:apart, 0:width:apart]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    points = points[inside[ys.ravel(), xs.ravel()]]
    targets = here.to_infrared(points + field.basis(points) @ values)
    good = (np.abs(targets) < 5000).all(axis=1)
    moved = fit(Start.of(here), points[good], targets[good], find_distortion=field.degree == 4, robust=False)
    return replace(here, homography=moved.homography, ir_lens=moved.ir_lens)
