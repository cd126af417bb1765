"""A chessboard or a grid of circles before both cameras → lenses, the turn and way between them, and a homography."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Calibration, Lens, Matrix, Points, Residual, Size
from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_uint8

PATTERNS = ("chess", "circles")
FEWEST = 5
"""Pairs in which the board must be found."""
_ALIKE = 0.02
"""Spread of the board's horizons, see `_require_tilts`: about 2.5 degrees of tilt at 50 degrees across. With less, the
focal length is a guess that fits to a tenth of a pixel."""
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)


@dataclass(frozen=True, slots=True)
class Board:
    """What is held before the cameras. For infrared it must be warm or cold: a heated print, holes in a sheet."""

    columns: int
    rows: int
    """Inner corners, or circles."""
    spacing: float
    """Metres between neighbouring corners; of asymmetric circles, half the way to the next in the same row."""
    pattern: str = "chess"
    """"chess", or "circles" for an asymmetric grid."""

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise InputError(f"--pattern {self.pattern}: expected {' or '.join(PATTERNS)}")
        if not (3 <= self.columns <= 50 and 3 <= self.rows <= 50):
            raise InputError(
                f"--board {self.columns}x{self.rows}: expected 3 to 50 inner corners or circles a side"
            )
        if not (math.isfinite(self.spacing) and self.spacing > 0):
            raise InputError(f"--spacing {self.spacing:g}: expected metres above 0")

    def places(self) -> NDArray[np.float32]:
        """(N, 3) metres on the board, in the order of `find`."""
        y, x = np.mgrid[0 : self.rows, 0 : self.columns]
        if self.pattern == "circles":
            x = 2 * x + y % 2
        flat = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
        return np.asarray(flat * self.spacing, np.float32)

    def find(self, image: NDArray[Any]) -> Points | None:
        """Its corners or centres in a picture, (N, 2) pixels; None if it is not there, or not whole."""
        grey = luma(as_uint8(image))
        grey = np.asarray(cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
        size = (self.columns, self.rows)
        # Warm ink on a cold board looks like a negative.
        for picture in (grey, np.asarray(255 - grey, np.uint8)):
            if self.pattern == "circles":
                done, found = cv2.findCirclesGrid(picture, size, flags=cv2.CALIB_CB_ASYMMETRIC_GRID)
            else:
                done, found = cv2.findChessboardCornersSB(picture, size, flags=cv2.CALIB_CB_EXHAUSTIVE)
            if done:
                return np.asarray(found, np.float64).reshape(-1, 2)
        return None


@dataclass(frozen=True, slots=True, eq=False)
class BoardResult:
    """What came out."""

    calibration: Calibration
    used: int
    """Pairs in which both cameras saw the whole board."""
    rms: tuple[float, float]
    """Reprojection error of the infrared and of the visible lens alone, pixels."""


def calibrate_board(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], board: Board, distance: float | None = None
) -> BoardResult:
    """Find both lenses and how the cameras lie to each other.

    Args:
        pairs: infrared and visible picture of one moment each, of one size a side.
        board: what is in them.
        distance: metres at which the pictures shall meet; None for far away.

    Raises:
        InputError: the board was found in too few pairs, or was held alike in all of them.
    """
    seen = [(board.find(ir), board.find(vi)) for ir, vi in pairs]
    whole = [(a, b) for a, b in seen if a is not None and b is not None]
    if len(whole) < FEWEST:
        alone = [sum(side is not None for side in column) for column in zip(*seen, strict=True)] or [0, 0]
        raise InputError(
            f"a {board.columns}x{board.rows} {board.pattern} board is in {len(whole)} of {len(pairs)} pairs "
            f"(infrared {alone[0]}, visible {alone[1]}): expected at least {FEWEST}, held at different angles all over "
            f"the picture"
        )
    vi_points = [b.astype(np.float32) for _, b in whole]
    ir_points = [_same_way(a, b).astype(np.float32) for a, b in whole]
    places = [board.places()] * len(whole)
    (ir, vi) = pairs[0]
    sizes: tuple[Size, Size] = ((ir.shape[1], ir.shape[0]), (vi.shape[1], vi.shape[0]))
    _require_tilts(places[0], vi_points, sizes[1])
    ir_rms, ir_lens = _lens(places, ir_points, sizes[0])
    vi_rms, vi_lens = _lens(places, vi_points, sizes[1])
    rotation, way = _between(places, vi_points, ir_points, vi_lens, ir_lens, sizes[1])
    homography = plane_homography(vi_lens.matrix, ir_lens.matrix, rotation, way, distance)
    errors = _errors(places[0], vi_points, ir_points, vi_lens, ir_lens, rotation, way)
    calibration = Calibration(
        vi_size=sizes[1],
        ir_size=sizes[0],
        homography=homography,
        vi_lens=vi_lens,
        ir_lens=ir_lens,
        method="board",
        residual=Residual.of(errors),
        distance_m=distance,
        baseline_m=float(np.linalg.norm(way)),
    )
    return BoardResult(calibration, len(whole), (ir_rms, vi_rms))


def plane_homography(vi: Matrix, ir: Matrix, rotation: Matrix, way: Points, distance: float | None) -> Matrix:
    """Ideal visible to ideal infrared pixels for what lies in a plane before the visible camera.

    Args:
        vi, ir: camera matrices.
        rotation, way: a point X of the visible camera's axes is rotation·X + way in infrared's, metres.
        distance: of the plane, metres; None for far away.
    """
    turned = rotation.copy()
    if distance is not None:
        turned[:, 2] += way.ravel() / distance
    homography = ir @ turned @ np.linalg.inv(vi)
    return np.asarray(homography / homography[2, 2], np.float64)


def _same_way(ir: Points, vi: Points) -> Points:
    """Infrared corners in the visible's order: a board seen as a negative may be counted from its other end."""
    turned = float(np.dot(ir[-1] - ir[0], vi[-1] - vi[0])) < 0
    return ir[::-1] if turned else ir


def _require_tilts(places: NDArray[np.float32], points: Sequence[NDArray[np.float32]], size: Size) -> None:
    """Raise InputError if the board was parallel to itself in all pictures: then any focal length fits.

    The line where the board's plane meets infinity is the same in the pictures of parallel boards.
    """
    half = size[0] / 2
    horizons = []
    for seen in points:
        homography, _ = cv2.findHomography(places[:, :2], (seen - np.asarray(size) / 2) / half)
        line = np.linalg.inv(homography).T[:, 2]
        horizons.append(line[:2] / line[2])
    if float(np.hypot(*np.std(horizons, axis=0))) < _ALIKE:
        raise InputError(
            f"the board was held alike in all pairs ({len(points)}): expected it tilted to all sides, by 20 to "
            f"30 degrees"
        )


def _lens(
    places: Sequence[NDArray[np.float32]], points: Sequence[NDArray[np.float32]], size: Size
) -> tuple[float, Lens]:
    """One camera's intrinsics: two radial coefficients and no third, which a handful of views cannot tell apart."""
    rms, matrix, distortion, _, _ = cv2.calibrateCamera(
        places, points, size, None, None, flags=cv2.CALIB_FIX_K3, criteria=_CRITERIA
    )
    return float(rms), Lens(np.asarray(matrix, np.float64), np.asarray(distortion, np.float64).ravel()[:5])


def _between(
    places: Sequence[NDArray[np.float32]],
    vi_points: Sequence[NDArray[np.float32]],
    ir_points: Sequence[NDArray[np.float32]],
    vi: Lens,
    ir: Lens,
    size: Size,
) -> tuple[Matrix, Points]:
    found = cv2.stereoCalibrate(
        places,
        vi_points,
        ir_points,
        vi.matrix,
        vi.distortion,
        ir.matrix,
        ir.distortion,
        size,
        flags=cv2.CALIB_FIX_INTRINSIC,
        criteria=_CRITERIA,
    )
    return np.asarray(found[5], np.float64), np.asarray(found[6], np.float64)


def _errors(
    places: NDArray[np.float32],
    vi_points: Sequence[NDArray[np.float32]],
    ir_points: Sequence[NDArray[np.float32]],
    vi: Lens,
    ir: Lens,
    rotation: Matrix,
    way: Points,
) -> NDArray[np.float64]:
    """Pixels between infrared corners and where the visible ones say they are."""
    errors = []
    for light, heat in zip(vi_points, ir_points, strict=True):
        _, turn, shift = cv2.solvePnP(places, light, vi.matrix, vi.distortion)
        world = places @ cv2.Rodrigues(turn)[0].T + shift.ravel()
        seen = cv2.projectPoints(
            world @ rotation.T + way.ravel(), np.zeros(3), np.zeros(3), ir.matrix, ir.distortion
        )
        errors.append(np.hypot(*(seen[0].reshape(-1, 2) - heat).T))
    return np.concatenate(errors).astype(np.float64)
