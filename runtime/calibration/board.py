"""A chessboard or a grid of circles seen by both cameras → lenses, rotation and translation, and a homography."""

from __future__ import annotations

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

FEWEST = 5
"""Pairs that must show the whole board."""
_LEAST_TILT = 0.02
"""Spread of the board's horizons, see `_require_tilts`: about 2.5 degrees of tilt at 50 degrees across. With less, any
focal length fits to a tenth of a pixel."""
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)


@dataclass(frozen=True, slots=True)
class Board:
    """The board. Infrared must see it too: a heated print, or holes in a sheet before something warm."""

    columns: int
    rows: int
    """Inner corners, or circles."""
    spacing: float
    """Above 0: metres between neighbouring corners; for asymmetric circles, half the distance between two in a row."""
    pattern: str = "chess"
    """"chess", or "circles" for an asymmetric grid."""

    def __post_init__(self) -> None:
        if not (3 <= self.columns <= 50 and 3 <= self.rows <= 50):
            raise InputError(
                f"board='{self.columns}x{self.rows}': expected 3 to 50 inner corners or circles a side",
                "board",
            )

    def places(self) -> NDArray[np.float32]:
        """(N, 3) metres on the board, in the order of `find`."""
        y, x = np.mgrid[0 : self.rows, 0 : self.columns]
        if self.pattern == "circles":
            x = 2 * x + y % 2
        flat = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
        return np.asarray(flat * self.spacing, np.float32)

    def find(self, image: NDArray[Any]) -> Points | None:
        """Corners or centres in a picture, (N, 2) pixels; None if the picture does not show the whole board."""
        grey = luma(as_uint8(image))
        grey = np.asarray(cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
        size = (self.columns, self.rows)
        # Infrared may show a negative: warm ink on a cold board.
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
    """A calibration and how it was found."""

    calibration: Calibration
    used: int
    """Pairs in which both cameras see the whole board."""
    rms: tuple[float, float]
    """Reprojection errors of the infrared and the visible camera on their own, pixels."""


def calibrate_board(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], board: Board, distance: float | None = None
) -> BoardResult:
    """Find both lenses, and the rotation and translation between the cameras.

    Args:
        pairs: infrared and visible pictures of the same moments, of one size a side.
        board: in the pictures.
        distance: metres at which the two pictures shall meet; None for far away.

    Raises:
        InputError: too few pairs show the whole board, or it has the same tilt in all of them.
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
    ir_points = [_same_order(a, b).astype(np.float32) for a, b in whole]
    places = [board.places()] * len(whole)
    (ir, vi) = pairs[0]
    sizes: tuple[Size, Size] = ((ir.shape[1], ir.shape[0]), (vi.shape[1], vi.shape[0]))
    _require_tilts(places[0], vi_points, sizes[1])
    ir_rms, ir_lens = _lens(places, ir_points, sizes[0])
    vi_rms, vi_lens = _lens(places, vi_points, sizes[1])
    rotation, translation = _stereo(places, vi_points, ir_points, vi_lens, ir_lens, sizes[1])
    homography = plane_homography(vi_lens.matrix, ir_lens.matrix, rotation, translation, distance)
    errors = _errors(places[0], vi_points, ir_points, vi_lens, ir_lens, rotation, translation)
    calibration = Calibration(
        vi_size=sizes[1],
        ir_size=sizes[0],
        homography=homography,
        vi_lens=vi_lens,
        ir_lens=ir_lens,
        method="board",
        residual=Residual.of(errors),
        distance_m=distance,
        baseline_m=float(np.linalg.norm(translation)),
    )
    return BoardResult(calibration, len(whole), (ir_rms, vi_rms))


def plane_homography(
    vi: Matrix, ir: Matrix, rotation: Matrix, translation: Points, distance: float | None
) -> Matrix:
    """Undistorted visible to undistorted infrared pixels, for a plane parallel to the visible picture.

    Args:
        vi, ir: camera matrices.
        rotation, translation: a point X in the visible camera's axes is rotation·X + translation in infrared's, metres.
        distance: of the plane, metres; None for far away.
    """
    induced = rotation.copy()
    if distance is not None:
        induced[:, 2] += translation.ravel() / distance
    homography = ir @ induced @ np.linalg.inv(vi)
    return np.asarray(homography / homography[2, 2], np.float64)


def _same_order(ir: Points, vi: Points) -> Points:
    """Infrared corners in the visible's order: a negative may be counted from the other end."""
    reversed_order = float(np.dot(ir[-1] - ir[0], vi[-1] - vi[0])) < 0
    return ir[::-1] if reversed_order else ir


def _require_tilts(places: NDArray[np.float32], points: Sequence[NDArray[np.float32]], size: Size) -> None:
    """Raise InputError if the board is parallel to itself in all pictures: then any focal length fits.

    Parallel boards have the same horizon, the line where the board's plane meets infinity.
    """
    half = size[0] / 2
    horizons = []
    for seen in points:
        homography, _ = cv2.findHomography(places[:, :2], (seen - np.asarray(size) / 2) / half)
        line = np.linalg.inv(homography).T[:, 2]
        horizons.append(line[:2] / line[2])
    if float(np.hypot(*np.std(horizons, axis=0))) < _LEAST_TILT:
        raise InputError(
            f"the board has the same tilt in all {len(points)} pairs: expected it tilted to all sides, by 20 to 30 "
            f"degrees"
        )


def _lens(
    places: Sequence[NDArray[np.float32]], points: Sequence[NDArray[np.float32]], size: Size
) -> tuple[float, Lens]:
    """One camera's intrinsics. A few views cannot determine a third radial coefficient, so it stays 0."""
    rms, matrix, distortion, _, _ = cv2.calibrateCamera(
        places, points, size, None, None, flags=cv2.CALIB_FIX_K3, criteria=_CRITERIA
    )
    return float(rms), Lens(np.asarray(matrix, np.float64), np.asarray(distortion, np.float64).ravel()[:5])


def _stereo(
    places: Sequence[NDArray[np.float32]],
    vi_points: Sequence[NDArray[np.float32]],
    ir_points: Sequence[NDArray[np.float32]],
    vi: Lens,
    ir: Lens,
    size: Size,
) -> tuple[Matrix, Points]:
    """Rotation and translation from the visible to the infrared camera."""
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
    translation: Points,
) -> NDArray[np.float64]:
    """Pixels between infrared corners and the visible ones projected onto them."""
    errors = []
    for vi_corners, ir_corners in zip(vi_points, ir_points, strict=True):
        _, board_rotation, board_translation = cv2.solvePnP(places, vi_corners, vi.matrix, vi.distortion)
        world = places @ cv2.Rodrigues(board_rotation)[0].T + board_translation.ravel()
        seen = cv2.projectPoints(
            world @ rotation.T + translation.ravel(), np.zeros(3), np.zeros(3), ir.matrix, ir.distortion
        )
        errors.append(np.hypot(*(seen[0].reshape(-1, 2) - ir_corners).T))
    return np.concatenate(errors).astype(np.float64)
