"""Geometry of the cameras: a common pinhole, and views with another lens or orientation.

World axes: X to the right, Y up from the road surface, Z forward along the street, all in metres, with the
camera above the origin. Both cameras use the same pinhole, so their pictures are registered. A `View` is a camera
at the same place with its own field of view, orientation and lens; its mapping to the other is known exactly, as
ground truth for calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.opencv import undistort

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Vec3 = tuple[float, float, float]

CAMERA_HEIGHT = 2.6
"""Metres above the road: the roof of a van."""

NEAR_Z = 0.3
"""Metres: nearer objects are not drawn."""


@dataclass(frozen=True, slots=True)
class Pinhole:
    """A level pinhole camera. Its principal point is off centre, so that more of the left side is visible."""

    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length in pixels: about 53 degrees across a 4:3 picture."""
        return float(max(self.width, self.height * 4 / 3))

    @property
    def cx(self) -> float:
        """Column of the vanishing point, in pixels."""
        return 0.60 * self.width

    @property
    def cy(self) -> float:
        """Row of the horizon, in pixels."""
        return 0.45 * self.height

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Image position of world points.

        Args:
            points: (..., 3) float32, metres.

        Returns:
            (..., 2) float32 pixels (pixel centres lie at half integers) and (...) float32 depth in metres.
            Points nearer than `NEAR_Z` are moved there: callers drop them by their depth.
        """
        depth = points[..., 2]
        scale = self.focal / np.maximum(depth, NEAR_Z)
        u = self.cx + points[..., 0] * scale
        v = self.cy - (points[..., 1] - CAMERA_HEIGHT) * scale
        return np.stack([u, v], axis=-1).astype(np.float32), depth

    def scale_at(self, depth: float) -> float:
        """Pixels per metre at a depth in metres."""
        return self.focal / max(depth, NEAR_Z)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3×3 camera matrix, of OpenCV's pixels: centres lie at whole numbers; y points down."""
        return np.asarray(
            [[self.focal, 0, self.cx - 0.5], [0, self.focal, self.cy - 0.5], [0, 0, 1]], np.float64
        )


@dataclass(frozen=True, slots=True)
class View:
    """A camera at the pinhole's place with its own lens and orientation. By default, the pinhole itself."""

    pinhole: Pinhole
    fov: float = 0.0
    """Degrees across the picture; 0 keeps the pinhole's focal length, principal point and axis. Otherwise the
    axis goes through the middle of both pictures."""
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    """Degrees of rotation to the right, upwards, clockwise."""
    k1: float = 0.0
    """First radial distortion coefficient (Brown): negative is a barrel."""

    @property
    def plain(self) -> bool:
        """Whether it is the pinhole itself."""
        return self == View(self.pinhole)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3×3 camera matrix, OpenCV's pixels."""
        if not self.fov:
            return self.pinhole.matrix
        w, h = self.pinhole.width, self.pinhole.height
        focal = w / 2 / math.tan(math.radians(self.fov) / 2)
        return np.asarray([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1]], np.float64)

    @property
    def distortion(self) -> NDArray[np.float64]:
        """OpenCV's k1, k2, p1, p2, k3."""
        return np.asarray([self.k1, 0, 0, 0, 0], np.float64)

    @property
    def rotation(self) -> NDArray[np.float64]:
        """3×3: directions of the pinhole (x right, y down, z forward) to directions of this camera."""
        rotation = np.eye(3)
        if self.fov:
            w, h = self.pinhole.width, self.pinhole.height
            x, y, _ = np.linalg.inv(self.pinhole.matrix) @ ((w - 1) / 2, (h - 1) / 2, 1)
            rotation = _rotation_about(1, -math.atan(x)) @ rotation
            rotation = _rotation_about(0, math.atan2(y, math.hypot(x, 1.0))) @ rotation
        yaw, pitch, roll = (math.radians(a) for a in (self.yaw, self.pitch, self.roll))
        return np.asarray(
            _rotation_about(2, -roll) @ _rotation_about(0, -pitch) @ _rotation_about(1, -yaw) @ rotation
        )

    def directions(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Viewing directions of pixels (N, 2): (N, 3), in the pinhole's axes."""
        ideal = undistort(pixels, self.matrix, self.distortion)
        rays = np.column_stack([ideal, np.ones(len(pixels))]) @ np.linalg.inv(self.matrix).T
        return np.asarray(rays @ self.rotation)

    def pixels(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (N, 2) of directions (N, 3) in the pinhole's axes."""
        pixels, _ = cv2.projectPoints(
            (directions @ self.rotation.T).reshape(-1, 1, 3),
            np.zeros(3),
            np.zeros(3),
            self.matrix,
            self.distortion,
        )
        return np.asarray(pixels, np.float64).reshape(-1, 2)

    def resampler(self) -> Resampler:
        """Resamples pictures of the pinhole to this camera."""
        return Resampler(self)


class Resampler:
    """Resamples pictures of the pinhole to a view, by maps that are computed once."""

    def __init__(self, view: View) -> None:
        self._maps: tuple[Floats, Floats] | None = None
        if not view.plain:
            w, h = view.pinhole.width, view.pinhole.height
            ys, xs = np.mgrid[0:h, 0:w]
            directions = view.directions(np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64))
            places = View(view.pinhole).pixels(directions).reshape(h, w, 2).astype(np.float32)
            self._maps = (np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1]))

    def __call__(self, picture: Floats) -> Floats:
        """The pinhole's picture in the view; its edge is repeated beyond it."""
        if self._maps is None:
            return picture
        return np.asarray(cv2.remap(picture, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def seen_by_other(view: View, other: View, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (N, 2) of one view → the same places in another's picture: the ground truth of a calibration."""
    return other.pixels(view.directions(pixels))


def _rotation_about(axis: int, angle: float) -> NDArray[np.float64]:
    """3×3 rotation about the x, y or z axis."""
    vector = np.zeros(3)
    vector[axis] = angle
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)
