"""Calibration file → warp maps: infrared as the visible camera sees it.

A point of the visible picture goes to the infrared picture in three steps, of which the outer two need a known
lens: visible pixel → ideal visible pixel (lens undone) → ideal infrared pixel (homography) → infrared pixel
(lens). Pixels are OpenCV's: centres lie at whole numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes

Points = NDArray[np.float64]
"""(N, 2) pixels: x, y."""
Matrix = NDArray[np.float64]
Size = tuple[int, int]
"""Width and height, pixels."""

FORMAT, VERSION = "ufuser-calibration", 1
_ASPECT = 0.01
"""Relative difference of two aspects that counts as the same: rounded sizes differ by less."""
_SOLVED = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
_NOWHERE = -1e4
"""Pixels: where the warp looks for what the infrared camera does not see."""


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """Intrinsics of one camera at the calibration's size."""

    matrix: Matrix
    """3×3: focal lengths and principal point, pixels."""
    distortion: NDArray[np.float64]
    """OpenCV's (Brown) k1, k2, p1, p2, k3."""

    @property
    def reach(self) -> float:
        """Ideal radius, in focal lengths, up to which the lens maps one to one; beyond, it folds back."""
        k1, k2, _, _, k3 = self.distortion
        if not (k2 or k3):  # as where a lens is searched for: asked often
            return math.sqrt(-1 / (3 * k1)) if k1 < 0 else math.inf
        roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])
        real = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0)]
        return math.sqrt(float(real.min())) if real.size else math.inf

    def ideal(self, pixels: Points) -> Points:
        """The pixels a lens without distortion would give."""
        if not self.distortion.any():
            return pixels
        points = pixels.reshape(-1, 1, 2)
        undone = cv2.undistortPoints(points, self.matrix, self.distortion, P=self.matrix, criteria=_SOLVED)
        return np.asarray(undone, np.float64).reshape(-1, 2)

    def real(self, pixels: Points) -> Points:
        """The inverse; far outside for what lies beyond the lens's reach."""
        if not self.distortion.any():
            return pixels
        x, y = _apply(np.asarray(np.linalg.inv(self.matrix), np.float64), pixels).T
        k1, k2, p1, p2, k3 = self.distortion
        square = np.minimum(x * x + y * y, 1e6)  # what is behind the camera must not overflow
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        across = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        down = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        placed = _apply(self.matrix, np.stack([across, down], axis=1))
        placed[square >= self.reach**2] = _NOWHERE
        return placed

    def scaled(self, factor: Matrix) -> Lens:
        """For another resolution: see `_scaling`."""
        return Lens(factor @ self.matrix, self.distortion)


@dataclass(frozen=True, slots=True)
class Residual:
    """How well the calibration fits what it was made from; pixels of the infrared picture."""

    rms: float
    median: float
    largest: float
    count: int
    """Points or patches it was taken over, outliers left out."""

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Residual:
        """Summarise (N,) distances in pixels."""
        return cls(
            float(np.sqrt(np.mean(distances**2))),
            float(np.median(distances)),
            float(distances.max()),
            len(distances),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How two cameras lie to each other."""

    vi_size: Size
    ir_size: Size
    homography: Matrix
    """3×3: ideal visible pixels to ideal infrared pixels, for what lies at `distance_m`."""
    vi_lens: Lens | None = None
    ir_lens: Lens | None = None
    """None where not known: pixels are taken as ideal."""
    method: str = "points"
    """The command that made it."""
    residual: Residual | None = None
    distance_m: float | None = None
    """Metres at which both pictures meet; None if far away or unknown."""
    baseline_m: float | None = None
    """Metres between the two cameras; None if unknown."""
    offset_s: float | None = None
    """Seconds infrared stamps are ahead of visible ones; None if never measured."""

    def to_infrared(self, pixels: Points) -> Points:
        """Where pixels (N, 2) of the visible picture are in the infrared one; far outside where nowhere."""
        ideal = pixels if self.vi_lens is None else self.vi_lens.ideal(pixels)
        placed = _apply(self.homography, ideal)
        return placed if self.ir_lens is None else self.ir_lens.real(placed)

    def scaled(self, vi_size: Size, ir_size: Size) -> Calibration:
        """The same cameras at other resolutions.

        Raises:
            InputError: a size has not the aspect it was calibrated with, so it shows another crop.
        """
        for side, given, known in (("visible", vi_size, self.vi_size), ("infrared", ir_size, self.ir_size)):
            ratio = given[0] * known[1] / (given[1] * known[0])
            if abs(ratio - 1) > _ASPECT:
                raise InputError(
                    f"{side} is {given[0]}x{given[1]}, but was calibrated at {known[0]}x{known[1]}: expected the "
                    f"same aspect; set the camera to it or calibrate anew"
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
        """What the file holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "vi_size": list(self.vi_size),
            "ir_size": list(self.ir_size),
            "homography": self.homography.tolist(),
            "vi_lens": _lens_json(self.vi_lens),
            "ir_lens": _lens_json(self.ir_lens),
            "residual_px": self.residual
            and {k: getattr(self.residual, k) for k in ("rms", "median", "largest", "count")},
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
            InputError: no such file, not JSON, of another format or a newer version, or with values that
                cannot be.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"no file {path}: expected a calibration; `ufuser calibrate` writes one"
            ) from None
        except OSError as e:
            raise InputError(f"cannot read {path}: {e.strerror}") from None
        except (ValueError, RecursionError):  # nested a thousand deep
            raise InputError(f"{path} is not JSON: expected a file that `ufuser calibrate` wrote") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path} is no calibration: expected a file that `ufuser calibrate` wrote")
        if data.get("version") != VERSION:
            raise InputError(
                f"{path} has version {data.get('version')} of the format, expected {VERSION}: calibrate anew, or "
                f"update ufuser"
            )
        return _from_json(path, data)


def _from_json(path: str | Path, data: dict[str, Any]) -> Calibration:
    try:
        offset = _number(data.get("offset_ms"))
        found = Calibration(
            vi_size=_size(data["vi_size"]),
            ir_size=_size(data["ir_size"]),
            homography=_array(data["homography"], (3, 3)),
            vi_lens=_lens(data.get("vi_lens")),
            ir_lens=_lens(data.get("ir_lens")),
            method=str(data.get("method")),
            residual=_residual(data.get("residual_px")),
            distance_m=_number(data.get("distance_m")),
            baseline_m=_number(data.get("baseline_m")),
            offset_s=None if offset is None else offset / 1000,
        )
    except KeyError as e:
        raise InputError(f"{path} has no {e}: expected a whole calibration; make it anew") from None
    except (ValueError, TypeError, AttributeError) as e:
        raise InputError(f"{path} is damaged ({e}): expected a whole calibration; make it anew") from None
    # A homography that mirrors or flattens shows nothing of any use.
    if not (np.linalg.det(found.homography[:2, :2]) > 1e-6 and np.linalg.det(found.homography) > 1e-9):
        raise InputError(f"{path} holds a homography that mirrors or flattens the picture: calibrate anew")
    return found


class Aligner:
    """Warps infrared pictures onto the visible camera's. The maps are computed at the first picture of a size.

    Args:
        calibration: of the two cameras, at any resolution of the same aspects.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self._sizes: tuple[Size, Size] | None = None
        self._maps: tuple[Any, Any] = (None, None)
        self._mask: NDArray[np.uint8] = np.empty((0, 0), np.uint8)

    def warp(self, image: NDArray[Any], size: Size, under: NDArray[Any] | None = None) -> NDArray[Any]:
        """The picture as the visible camera sees it.

        Args:
            image: infrared, H×W or H×W×3; any dtype OpenCV remaps.
            size: the visible picture's width and height.
            under: what to show where infrared sees nothing, of that size and the image's dtype and channels,
                such as the visible luma; None is black.

        Returns:
            A new array of the visible picture's height and width.

        Raises:
            InputError: a size has not the calibration's aspect.
        """
        self._prepare((image.shape[1], image.shape[0]), size)
        warped = np.asarray(cv2.remap(image, *self._maps, cv2.INTER_LINEAR))
        return (
            warped
            if under is None
            else np.asarray(cv2.copyTo(warped, self._mask, np.array(under, copy=True)))
        )

    def seen(self, ir_size: Size, size: Size) -> NDArray[np.bool_]:
        """Which pixels of the visible picture the infrared camera sees too: height×width."""
        self._prepare(ir_size, size)
        return self._mask > 0

    def _prepare(self, ir_size: Size, size: Size) -> None:
        if self._sizes == (ir_size, size):
            return
        calibration = self.calibration.scaled(size, ir_size)
        places = warp_map(calibration)
        # Fixed-point maps: a quarter less to read a picture, to 1/32 of a pixel.
        x, y = np.float32(places[..., 0]), np.float32(places[..., 1])
        self._maps = cv2.convertMaps(x, y, cv2.CV_16SC2)
        inside = (places >= 0) & (places <= np.asarray(ir_size) - 1)
        self._mask = np.where(inside.all(axis=2), np.uint8(255), np.uint8(0))
        self._sizes = (ir_size, size)


def warp_map(calibration: Calibration) -> NDArray[np.float64]:
    """For every visible pixel, its place in the infrared picture: height×width×2."""
    width, height = calibration.vi_size
    ys, xs = np.mgrid[0:height, 0:width]
    pixels = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    places = np.clip(calibration.to_infrared(pixels), _NOWHERE, -_NOWHERE)
    return places.reshape(height, width, 2)


def homogeneous(homography: Matrix, points: Points) -> tuple[NDArray[np.float64], ...]:
    """(N, 2) points through a homography, not yet divided: across, down and depth, N each."""
    # Written out: a product of so narrow a matrix takes NumPy thirty times as long.
    x, y = points[:, 0], points[:, 1]
    across, down, depth = (a * x + b * y + c for a, b, c in homography)
    return across, down, depth


def _apply(homography: Matrix, points: Points) -> Points:
    """Points through a homography; far outside for what would lie behind the camera."""
    across, down, depth = homogeneous(homography, points)
    behind = ~(depth > 1e-9)
    depth[behind] = 1.0
    placed = np.stack([across / depth, down / depth], axis=1)
    placed[behind] = _NOWHERE
    return placed


def _scaling(before: Size, after: Size) -> Matrix:
    """Pixels of one resolution to those of another: the corners of the picture stay corners."""
    x, y = after[0] / before[0], after[1] / before[1]
    return np.asarray([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float64)


def _lens_json(lens: Lens | None) -> dict[str, Any] | None:
    return None if lens is None else {"matrix": lens.matrix.tolist(), "distortion": lens.distortion.tolist()}


def _lens(data: Any) -> Lens | None:
    if data is None:
        return None
    lens = Lens(_array(data["matrix"], (3, 3)), _array(data["distortion"], (5,)))
    if not (lens.matrix[0, 0] > 0 and lens.matrix[1, 1] > 0 and lens.matrix[2].tolist() == [0, 0, 1]):
        raise ValueError("a lens matrix without focal lengths")
    return lens


def _residual(data: Any) -> Residual | None:
    if data is None:
        return None
    return Residual(float(data["rms"]), float(data["median"]), float(data["largest"]), int(data["count"]))


def _array(data: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(data, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"expected {'x'.join(map(str, shape))} finite numbers")
    return array


def _size(data: Any) -> Size:
    width, height = data
    if not all(isinstance(side, int) and 1 <= side <= 100_000 for side in (width, height)):
        raise ValueError(f"a size of {width}x{height}")
    return (width, height)


def _number(data: Any) -> float | None:
    if data is not None and not math.isfinite(float(data)):
        raise ValueError(f"expected a finite number, not {data}")
    return None if data is None else float(data)
