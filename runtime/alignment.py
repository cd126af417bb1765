"""Calibration of two cameras, its file, and the warp maps that show infrared as the visible camera sees it.

A visible pixel maps to the infrared picture in three steps: undistort (visible lens), homography, distort (infrared
lens). Steps of unknown lenses are left out. Pixel centres lie at whole numbers, as in OpenCV.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.opencv import undistort
from ufuser.runtime.structs import convert, read_json

Points = NDArray[np.float64]
"""(N, 2) pixels: x, y."""
Matrix = NDArray[np.float64]
Size = tuple[int, int]
"""Width and height, pixels."""

FORMAT, VERSION = "ufuser-calibration", 1
_ASPECT = 0.01
"""Relative difference of two aspect ratios that counts as the same: rounded sizes differ by less."""
_NO_DISTORTION = 1e-24
_NOWHERE = -1e4
"""Pixels: coordinate given to what the infrared camera does not see."""


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """Intrinsics of one camera at the calibration's size."""

    matrix: Matrix
    """3×3: focal lengths and principal point, pixels."""
    distortion: NDArray[np.float64]
    """OpenCV's (Brown) k1, k2, p1, p2, k3."""

    @property
    def valid_radius(self) -> float:
        """Undistorted radius, in focal lengths, up to which the distortion is one to one; beyond, it folds back."""
        k1, k2, _, _, k3 = self.distortion
        if not (k2 or k3):  # the common case while a lens is being fitted
            return math.sqrt(-1 / (3 * k1)) if k1 < 0 else math.inf
        # Smaller coefficients change nothing within `distorted`'s limit, and overflow in the companion matrix.
        roots = np.roots([c if abs(c) > _NO_DISTORTION else 0.0 for c in (7 * k3, 5 * k2, 3 * k1, 1.0)])
        real = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0)]
        return math.sqrt(float(real.min())) if real.size else math.inf

    def undistorted(self, pixels: Points) -> Points:
        """The pixels that a lens without distortion would give."""
        return undistort(pixels, self.matrix, self.distortion) if self.distortion.any() else pixels

    def distorted(self, pixels: Points) -> Points:
        """The inverse; far outside the picture for points beyond the valid radius."""
        if not self.distortion.any():
            return pixels
        x, y = _apply(np.asarray(np.linalg.inv(self.matrix), np.float64), pixels).T
        k1, k2, p1, p2, k3 = self.distortion
        square = np.minimum(x * x + y * y, 1e6)  # points behind the camera must not overflow
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        across = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        down = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        placed = _apply(self.matrix, np.stack([across, down], axis=1))
        placed[square >= self.valid_radius**2] = _NOWHERE
        return placed

    def scaled(self, factor: Matrix) -> Lens:
        """The lens at another resolution: see `_scaling`."""
        return Lens(factor @ self.matrix, self.distortion)


class Residual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well the calibration fits the data it was made from; pixels of the infrared picture."""

    rms: float
    median: float
    largest: float
    count: int
    """Points or patches, outliers left out."""

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Residual:
        """Summarise (N,) distances in pixels."""
        return cls(
            float(np.sqrt(np.mean(distances**2))),
            float(np.median(distances)),
            float(distances.max()),
            len(distances),
        )


_Number = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Row = tuple[_Number, _Number, _Number]
_Rows = tuple[_Row, _Row, _Row]


class _LensFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A camera's lens."""

    matrix: _Rows
    """OpenCV's camera matrix, row by row."""
    distortion: tuple[_Number, _Number, _Number, _Number, _Number]
    """OpenCV's k1, k2, p1, p2, k3."""

    def lens(self) -> Lens:
        return Lens(np.asarray(self.matrix, np.float64), np.asarray(self.distortion, np.float64))


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calibration file, version 1."""

    format: str
    """"ufuser-calibration"."""
    version: int
    method: str
    """The command that made it."""
    vi_size: tuple[_Side, _Side]
    """Width and height in pixels."""
    ir_size: tuple[_Side, _Side]
    """Width and height in pixels."""
    homography: _Rows
    """3×3, row by row: undistorted visible pixels to undistorted infrared pixels."""
    vi_lens: _LensFile | None = None
    """Null where unknown: then no distortion is assumed."""
    ir_lens: _LensFile | None = None
    """Null where unknown: then no distortion is assumed."""
    residual_px: Residual | None = None
    """How well the calibration fits the data it was made from."""
    distance_m: _Number | None = None
    """Distance at which both pictures meet."""
    baseline_m: _Number | None = None
    """Distance between the cameras."""
    offset_ms: _Number | None = None
    """By how much infrared's time stamps are ahead."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Where two cameras see the same place, and the time between their stamps."""

    vi_size: Size
    ir_size: Size
    homography: Matrix
    """3×3: undistorted visible pixels to undistorted infrared pixels, for objects at `distance_m`."""
    vi_lens: Lens | None = None
    ir_lens: Lens | None = None
    """None where unknown: then no distortion is assumed."""
    method: str = "points"
    """The command that made it."""
    residual: Residual | None = None
    distance_m: float | None = None
    """Metres at which both pictures meet; None if far away or unknown."""
    baseline_m: float | None = None
    """Metres between the two cameras; None if unknown."""
    offset_s: float | None = None
    """Seconds by which infrared stamps are ahead of visible ones; None if never measured."""

    def to_infrared(self, pixels: Points) -> Points:
        """Map visible pixels (N, 2) to infrared ones; far outside the picture for those that infrared cannot see."""
        ideal = pixels if self.vi_lens is None else self.vi_lens.undistorted(pixels)
        placed = _apply(self.homography, ideal)
        return placed if self.ir_lens is None else self.ir_lens.distorted(placed)

    def scaled(self, vi_size: Size, ir_size: Size) -> Calibration:
        """The same cameras at other resolutions.

        Raises:
            InputError: a size has another aspect ratio than the calibration's, so it shows another crop.
        """
        for side, given, known in (("visible", vi_size, self.vi_size), ("infrared", ir_size, self.ir_size)):
            ratio = given[0] * known[1] / (given[1] * known[0])
            if abs(ratio - 1) > _ASPECT:
                raise InputError(
                    f"{side} is {given[0]}x{given[1]}, but was calibrated at {known[0]}x{known[1]}: expected the "
                    f"same aspect ratio; set the camera to it or calibrate again"
                )
        vi, ir = _scaling(self.vi_size, vi_size), _scaling(self.ir_size, ir_size)
        homography = ir @ self.homography @ np.linalg.inv(vi)
        return replace(
            self,
            vi_size=vi_size,
            ir_size=ir_size,
            homography=homography / homography[2, 2],
            vi_lens=self.vi_lens and self.vi_lens.scaled(vi),
            ir_lens=self.ir_lens and self.ir_lens.scaled(ir),
        )

    def as_json(self) -> dict[str, Any]:
        """The contents of the file."""
        vi_lens, ir_lens = (
            {"matrix": lens.matrix.tolist(), "distortion": lens.distortion.tolist()} if lens else None
            for lens in (self.vi_lens, self.ir_lens)
        )
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "vi_size": list(self.vi_size),
            "ir_size": list(self.ir_size),
            "homography": self.homography.tolist(),
            "vi_lens": vi_lens,
            "ir_lens": ir_lens,
            "residual_px": self.residual and msgspec.to_builtins(self.residual),
            "distance_m": self.distance_m,
            "baseline_m": self.baseline_m,
            "offset_ms": None if self.offset_s is None else self.offset_s * 1000,
        }

    def save(self, path: Path) -> None:
        """Write the file atomically. Raises InputError where that fails."""
        write_bytes(path, f"{json.dumps(self.as_json(), indent=2)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that `ufuser calibrate` wrote.

        Raises:
            InputError: no such file, not JSON, of another format or version, or with impossible values.
        """
        data = read_json(Path(path))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path} is not a calibration: expected a file that `ufuser calibrate` wrote")
        if data.get("version") != VERSION:
            raise InputError(
                f"{path} has version {data.get('version')} of the format, expected {VERSION}: calibrate again, or "
                f"update ufuser"
            )
        file = convert(data, _File, str(path))
        homography = np.asarray(file.homography, np.float64)
        if not (np.linalg.det(homography[:2, :2]) > 1e-6 and np.linalg.det(homography) > 1e-9):
            raise InputError(
                f"{path} holds a homography that mirrors or flattens the picture: calibrate again"
            )
        for side, lens in (("vi", file.vi_lens), ("ir", file.ir_lens)):
            if lens and not (lens.matrix[0][0] > 0 < lens.matrix[1][1] and lens.matrix[2] == (0, 0, 1)):
                raise InputError(f"{path}: the matrix of {side}_lens is not a camera matrix: calibrate again")
        return cls(
            file.vi_size,
            file.ir_size,
            homography,
            file.vi_lens.lens() if file.vi_lens else None,
            file.ir_lens.lens() if file.ir_lens else None,
            file.method,
            file.residual_px,
            file.distance_m,
            file.baseline_m,
            None if file.offset_ms is None else file.offset_ms / 1000,
        )


class Aligner:
    """Warps infrared pictures onto the visible camera's. Maps are computed at the first picture of a size.

    Args:
        calibration: of the two cameras, at any resolution of the same aspect ratios.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self._sizes: tuple[Size, Size] | None = None
        self._maps: tuple[Any, Any] = (None, None)
        self._mask: NDArray[np.uint8] = np.empty((0, 0), np.uint8)

    def warp(self, image: NDArray[Any], size: Size, background: NDArray[Any] | None = None) -> NDArray[Any]:
        """The picture as the visible camera sees it.

        Args:
            image: infrared, H×W or H×W×3; any dtype OpenCV remaps.
            size: the visible picture's width and height.
            background: shown where infrared sees nothing, such as the visible luma; of that size, and of the
                image's dtype and channels. None is black.

        Returns:
            A new array of the visible picture's height and width.

        Raises:
            InputError: a size has another aspect ratio than the calibration's.
        """
        self._prepare((image.shape[1], image.shape[0]), size)
        warped = np.asarray(cv2.remap(image, *self._maps, cv2.INTER_LINEAR))
        if background is None:
            return warped
        return np.asarray(cv2.copyTo(warped, self._mask, np.array(background, copy=True)))

    def seen(self, ir_size: Size, size: Size) -> NDArray[np.bool_]:
        """Which pixels of the visible picture the infrared camera sees too: height×width."""
        self._prepare(ir_size, size)
        return self._mask > 0

    def _prepare(self, ir_size: Size, size: Size) -> None:
        if self._sizes == (ir_size, size):
            return
        calibration = self.calibration.scaled(size, ir_size)
        places = warp_map(calibration)
        # Fixed-point maps save a quarter of the time and are exact to 1/32 of a pixel.
        x, y = np.float32(places[..., 0]), np.float32(places[..., 1])
        self._maps = cv2.convertMaps(x, y, cv2.CV_16SC2)
        inside = (places >= 0) & (places <= np.asarray(ir_size) - 1)
        self._mask = np.where(inside.all(axis=2), np.uint8(255), np.uint8(0))
        self._sizes = (ir_size, size)


def warp_map(calibration: Calibration) -> NDArray[np.float64]:
    """The infrared coordinates of every visible pixel: height×width×2."""
    width, height = calibration.vi_size
    ys, xs = np.mgrid[0:height, 0:width]
    pixels = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    places = np.clip(calibration.to_infrared(pixels), _NOWHERE, -_NOWHERE)
    return places.reshape(height, width, 2)


def homogeneous(homography: Matrix, points: Points) -> tuple[NDArray[np.float64], ...]:
    """Apply a homography to (N, 2) points without the division: x, y and depth, N each."""
    # A matrix product with three rows takes NumPy thirty times as long.
    x, y = points[:, 0], points[:, 1]
    across, down, depth = (a * x + b * y + c for a, b, c in homography)
    return across, down, depth


def _apply(homography: Matrix, points: Points) -> Points:
    """Apply a homography; far outside the picture for points behind the camera."""
    across, down, depth = homogeneous(homography, points)
    behind = ~(depth > 1e-9)
    depth[behind] = 1.0
    placed = np.stack([across / depth, down / depth], axis=1)
    placed[behind] = _NOWHERE
    return placed


def _scaling(before: Size, after: Size) -> Matrix:
    """Pixels of one resolution to those of another; the corners of the picture stay corners."""
    x, y = after[0] / before[0], after[1] / before[1]
    return np.asarray([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float64)
