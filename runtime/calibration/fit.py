"""Point pairs → a homography and, optionally, the distortion of the infrared lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Calibration, Lens, Matrix, Points, Residual, Size, homogeneous
from ufuser.runtime.errors import InputError
from ufuser.runtime.remedies import how_to_install

FEWEST, FEWEST_FOR_LENS = 4, 8
_ROUNDS = 5
"""Of selecting inliers and fitting to them."""
_LOOSE = 0.01
"""Second smallest singular value, relative to the largest, below which the points do not determine a homography."""
_FLAT = 1e-4
"""Spread, relative to the picture's size, below which points lie on one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Sizes and known lenses."""

    vi_size: Size
    ir_size: Size
    vi_lens: Lens | None = None
    ir_lens: Lens | None = None

    @classmethod
    def of(cls, calibration: Calibration) -> Start:
        """The lenses and sizes of a calibration."""
        return cls(calibration.vi_size, calibration.ir_size, calibration.vi_lens, calibration.ir_lens)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted mapping."""

    homography: Matrix
    ir_lens: Lens | None
    distances: NDArray[np.float64]
    """(N,) errors of all points, pixels of the infrared picture."""
    inliers: NDArray[np.bool_]
    """(N,)"""

    @property
    def residual(self) -> Residual:
        """Over the inliers."""
        return Residual.of(self.distances[self.inliers])


def fit(start: Start, vi: Points, ir: Points, find_distortion: bool = False, robust: bool = True) -> Fit:
    """Fit the homography that maps visible points to infrared ones, least squares in infrared pixels.

    Args:
        start: sizes and known lenses.
        vi, ir: (N, 2) pixels each, the same places.
        find_distortion: find the infrared lens's first radial coefficient too, about the middle of its picture.
        robust: leave out points that lie far from where the others put them, such as wrong clicks.

    Raises:
        InputError: too few points, all or all but one on one line, or in another order on the other side; SciPy is
            not installed.
    """
    needed = FEWEST_FOR_LENS if find_distortion else FEWEST
    if len(vi) < needed:
        raise InputError(
            f"{len(vi)} point pairs: expected at least {needed}{' to find the lens' if find_distortion else ''}"
        )
    for points, size, side in ((vi, start.vi_size, "visible"), (ir, start.ir_size, "infrared")):
        if np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < _FLAT * max(size):
            raise InputError(f"the {side} points lie on one line: expected them all over the picture")
    ideal_vi = vi if start.vi_lens is None else start.vi_lens.undistorted(vi)
    lens = start.ir_lens
    if find_distortion and lens is None:
        lens = nominal_lens(start.ir_size)
    ideal_ir = ir if lens is None else lens.undistorted(ir)
    _require_determined(ideal_vi, ideal_ir)
    # The median ignores wrong clicks; least squares over the inliers measures.
    rough, _ = cv2.findHomography(ideal_vi, ideal_ir, cv2.LMEDS if robust and len(vi) > 4 else 0)
    if rough is None:
        raise InputError(
            "the points give no homography: expected them in the same order, all over the picture"
        )
    model = _Model(np.asarray(rough, np.float64), lens, find_distortion)
    inliers = model.inliers(ideal_vi, ir, needed) if robust else np.ones(len(vi), np.bool_)
    for _ in range(_ROUNDS):
        model = model.fitted(ideal_vi[inliers], ir[inliers])
        now = model.inliers(ideal_vi, ir, needed) if robust else inliers
        if np.array_equal(now, inliers):
            break
        inliers = now
    _require_possible(model.homography, start.vi_size)
    return Fit(model.homography / model.homography[2, 2], model.lens, model.distances(ideal_vi, ir), inliers)


def _require_determined(vi: Points, ir: Points) -> None:
    """Raise InputError if several homographies fit the points, as where three of four lie on one line."""
    (x, y), (u, v) = (((p - p.mean(axis=0)) / np.sqrt(p.var(axis=0).mean())).T for p in (vi, ir))
    one, zero = np.ones_like(x), np.zeros_like(x)
    equations = np.vstack(
        [
            np.column_stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u]),
            np.column_stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v]),
        ]
    )
    values = np.linalg.svd(equations, compute_uv=False)
    if values[7] < _LOOSE * values[0]:
        raise InputError(
            "the points do not determine the rest of the picture: expected at least four apart from each other, no "
            "three of them on one line"
        )


def _require_possible(homography: Matrix, size: Size) -> None:
    """Raise InputError if the homography mirrors or folds the picture, as clicks in another order do."""
    width, height = size
    corners = np.asarray([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64)
    matrix = homography / homography[2, 2]
    ahead = (corners @ matrix[2] > 1e-3).all()
    if not (ahead and min(np.linalg.det(matrix), np.linalg.det(matrix[:2, :2])) > 1e-6):
        raise InputError(
            "the points mirror, fold or flatten the picture: expected the same places on both sides, in the same order"
        )


def nominal_lens(size: Size) -> Lens:
    """A lens without distortion, centred. Its 50 degrees across only set the unit of k1."""
    focal = size[0] / 2 / np.tan(np.radians(25))
    matrix = [[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]]
    return Lens(np.asarray(matrix, np.float64), np.zeros(5))


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    homography: Matrix
    lens: Lens | None
    find_distortion: bool

    def fitted(self, ideal_vi: Points, ir: Points) -> _Model:
        """The least-squares model, started from this one."""
        eight = (self.homography / self.homography[2, 2]).ravel()[:8]
        first = np.append(eight, self.lens.distortion[0]) if self.lens and self.find_distortion else eight
        found = _least_squares()(
            lambda values: (self._with(values).place(ideal_vi) - ir).ravel(),
            first,
            method="lm",
            x_scale="jac",
        )
        return self._with(found.x)

    def _with(self, values: NDArray[np.float64]) -> _Model:
        """The model of the homography's first eight entries and, with `find_distortion`, k1."""
        lens = self.lens
        if lens is not None and self.find_distortion:
            lens = Lens(lens.matrix, np.concatenate([values[8:], lens.distortion[1:]]))
        return _Model(np.append(values[:8], 1.0).reshape(3, 3), lens, self.find_distortion)

    def place(self, ideal_vi: Points) -> Points:
        across, down, depth = homogeneous(self.homography, ideal_vi)
        flat = np.stack([across / depth, down / depth], axis=1)
        return flat if self.lens is None else self.lens.distorted(flat)

    def distances(self, ideal_vi: Points, ir: Points) -> NDArray[np.float64]:
        return np.asarray(np.hypot(*(self.place(ideal_vi) - ir).T), np.float64)

    def inliers(self, ideal_vi: Points, ir: Points, needed: int) -> NDArray[np.bool_]:
        """Points within three and a half robust sigmas, at least half a pixel; all if these are too few."""
        distances = self.distances(ideal_vi, ir)
        near = distances <= max(0.5, 3.5 * float(np.median(distances)) / 1.1774)
        return near if near.sum() >= needed else np.ones(len(ir), np.bool_)


def _least_squares() -> Callable[..., Any]:
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise InputError(
            f"SciPy is not installed, which `ufuser calibrate` needs: {how_to_install('scipy')}"
        ) from None
    solver: Callable[..., Any] = least_squares
    return solver
