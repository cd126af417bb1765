"""One pinhole for both cameras: world metres to image pixels and back.

World axes: X to the right, Y up from the road surface, Z forward along the street, all in metres, with the
camera above the origin. Both modalities use the same pinhole, which is what registers the two pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Vec3 = tuple[float, float, float]

CAMERA_HEIGHT = 2.6
"""Metres above the road: the roof of a van, from where the road surface opens up in the picture."""

NEAR_Z = 0.3
"""Metres: what lies nearer than this is not drawn."""


@dataclass(frozen=True, slots=True)
class Pinhole:
    """A level pinhole camera whose principal point is shifted, so that the street runs off to the right."""

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
