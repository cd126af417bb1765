"""Meshes of cars and vans: a lofted body with glass, wheels and lights, as flat polygons in car axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ufuser.simulation.geometry import Floats, Vec3

# A body is lofted through stations along its length. Each is
# (z, sill y, half width, waist y, half width, shoulder y, half width, roof y, half width), metres.
_Station = tuple[float, float, float, float, float, float, float, float, float]

_BODIES: dict[str, tuple[_Station, ...]] = {
    "sedan": (
        (2.22, 0.30, 0.62, 0.48, 0.70, 0.62, 0.64, 0.65, 0.50),
        (2.05, 0.22, 0.76, 0.50, 0.84, 0.74, 0.78, 0.78, 0.62),
        (1.45, 0.20, 0.82, 0.55, 0.90, 0.86, 0.82, 0.91, 0.62),
        (0.95, 0.20, 0.84, 0.58, 0.91, 0.92, 0.82, 0.97, 0.66),
        (0.25, 0.20, 0.84, 0.58, 0.91, 0.94, 0.83, 1.38, 0.60),
        (-0.35, 0.20, 0.84, 0.60, 0.91, 0.95, 0.83, 1.44, 0.60),
        (-1.00, 0.20, 0.84, 0.60, 0.91, 0.97, 0.82, 1.38, 0.58),
        (-1.65, 0.22, 0.82, 0.60, 0.90, 1.00, 0.80, 1.05, 0.64),
        (-2.10, 0.26, 0.76, 0.58, 0.86, 0.98, 0.76, 1.02, 0.62),
        (-2.25, 0.34, 0.66, 0.56, 0.78, 0.88, 0.70, 0.92, 0.56),
    ),
    "hatch": (
        (1.98, 0.30, 0.60, 0.48, 0.68, 0.64, 0.62, 0.68, 0.48),
        (1.80, 0.22, 0.74, 0.52, 0.82, 0.78, 0.76, 0.83, 0.60),
        (1.30, 0.20, 0.80, 0.56, 0.87, 0.92, 0.80, 0.97, 0.62),
        (0.95, 0.20, 0.82, 0.58, 0.88, 0.97, 0.80, 1.03, 0.64),
        (0.20, 0.20, 0.82, 0.60, 0.88, 0.98, 0.81, 1.46, 0.58),
        (-0.50, 0.20, 0.82, 0.62, 0.88, 1.00, 0.80, 1.51, 0.58),
        (-1.40, 0.20, 0.82, 0.62, 0.88, 1.03, 0.79, 1.45, 0.56),
        (-1.78, 0.24, 0.78, 0.60, 0.86, 1.02, 0.77, 1.08, 0.66),
        (-1.95, 0.32, 0.68, 0.58, 0.80, 0.90, 0.72, 0.95, 0.58),
    ),
    "van": (
        (2.40, 0.34, 0.70, 0.56, 0.80, 0.84, 0.74, 0.88, 0.58),
        (2.20, 0.26, 0.84, 0.60, 0.92, 1.00, 0.86, 1.05, 0.70),
        (1.65, 0.24, 0.90, 0.66, 0.97, 1.16, 0.90, 1.24, 0.76),
        (0.95, 0.24, 0.90, 0.70, 0.97, 1.20, 0.92, 2.00, 0.74),
        (0.20, 0.24, 0.90, 0.70, 0.97, 1.22, 0.93, 2.10, 0.76),
        (-1.20, 0.24, 0.90, 0.70, 0.97, 1.22, 0.93, 2.10, 0.76),
        (-2.35, 0.26, 0.90, 0.70, 0.96, 1.20, 0.92, 2.06, 0.76),
        (-2.45, 0.34, 0.84, 0.68, 0.92, 1.18, 0.88, 1.98, 0.72),
    ),
}
_WINDSCREEN = {"sedan": 3, "hatch": 3, "van": 2}
"""Station where the windscreen starts."""
_REAR_GLASS = {"sedan": 6, "hatch": 6, "van": -1}
"""Station where the rear window starts; a van has none."""
_SIDE_GLASS = {"sedan": (4, 6), "hatch": (4, 6), "van": (3, 4)}
_WHEELS = {"sedan": (1.38, -1.32), "hatch": (1.22, -1.22), "van": (1.45, -1.45)}
_CROWN = 0.05
"""Metres by which the middle of bonnet and roof is higher than their edge."""


MATERIALS = ("paint", "glass", "tyre", "rim", "trim", "plate", "lamp", "tail")
"""Materials of a face; `Mesh.material` holds indices into it."""

_CORNERS = 16
"""Corners of every polygon; shorter ones repeat their last."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Convex faces in car axes: x to the car's right, y up from the ground, z towards its front, metres."""

    points: Floats
    """(faces, 16, 3)."""
    normals: Floats
    """(faces, 3), outwards."""
    material: NDArray[np.int64]
    """(faces,) index into `MATERIALS`."""
    warming: Floats
    """(faces,) degrees Celsius by which a drive heats the face."""
    layer: NDArray[np.int64]
    """(faces,) 0 body, then wheel parts from 1 up: drawn in this order, far to near within the body."""
    lift: Floats
    """(faces,) metres by which a face is sorted nearer: fittings are drawn over the body from any angle."""
    tyres: Floats
    """(4, 32, 3) outer and inner rim of each tyre: its outline is their convex hull."""
    half_length: float
    """Metres from the middle to the front bumper."""
    height: float
    """Metres."""


class _Builder:
    def __init__(self) -> None:
        self.points: list[Floats] = []
        self.normals: list[Floats] = []
        self.material: list[int] = []
        self.warming: list[float] = []
        self.layer: list[int] = []
        self.lift: list[float] = []

    def add(self, points: Floats, material: str, warming: float, lift: float = 0.0, layer: int = 0) -> None:
        # Newell's normal: quads of a loft are not exactly flat.
        normal = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)
        normal = normal / (np.linalg.norm(normal) + 1e-9)
        center = points.mean(axis=0)
        # Outwards is away from the axis of the body, which all faces surround.
        if float(normal @ (center - np.asarray((0.0, 0.75, center[2] * 0.9)))) < 0:
            normal = -normal
        padding = np.repeat(points[-1:], _CORNERS - len(points), axis=0)
        self.points.append(np.concatenate([points, padding]).astype(np.float32))
        self.normals.append(normal.astype(np.float32))
        self.material.append(MATERIALS.index(material))
        self.warming.append(warming)
        self.layer.append(layer)
        self.lift.append(lift)


KINDS = tuple(_BODIES)


def build(kind: str) -> Mesh:
    """The mesh of a `KINDS` member."""
    b = _Builder()
    _body(b, kind)
    _fittings(b, kind)
    tyres = _wheels(b, kind)
    return Mesh(
        np.stack(b.points),
        np.stack(b.normals),
        np.asarray(b.material, np.int64),
        np.asarray(b.warming, np.float32),
        np.asarray(b.layer, np.int64),
        np.asarray(b.lift, np.float32),
        tyres,
        _BODIES[kind][0][0],
        max(s[7] for s in _BODIES[kind]) + _CROWN,
    )


def _body(b: _Builder, kind: str) -> None:
    stations = _BODIES[kind]
    rings = np.asarray([_ring(s) for s in stations], np.float32)
    screen, rear = _WINDSCREEN[kind], _REAR_GLASS[kind]
    side0, side1 = _SIDE_GLASS[kind]
    n = rings.shape[1]
    length = stations[0][0] - stations[-1][0]
    for i in range(len(stations) - 1):
        for j in range(n - 1):
            quad = np.stack([rings[i, j], rings[i + 1, j], rings[i + 1, j + 1], rings[i, j + 1]])
            upper_side = j in (2, n - 4)
            top = 3 <= j <= n - 5
            glass = (upper_side and side0 - 1 <= i <= side1) or (top and i in (screen, rear))
            behind = (stations[0][0] - float(quad[:, 2].mean())) / length
            bonnet = 15.0 if top else 8.0
            cabin = 2.0 if glass else 2.5 if behind > 0.85 else 1.0
            warming = bonnet if i < screen else cabin
            b.add(quad, "glass" if glass else "paint", warming)
    b.add(rings[0], "paint", 16.0, 0.02)
    b.add(rings[-1], "paint", 3.0, 0.02)


def _ring(s: _Station) -> list[Vec3]:
    z, y0, w0, y1, w1, y2, w2, y3, w3 = s
    right = [(w0, y0, z), (w1, y1, z), (w2, y2, z), (w3, y3, z), (w3 * 0.5, y3 + _CROWN * 0.8, z)]
    left = [(-x, y, zz) for x, y, zz in reversed(right)]
    return [*right, (0.0, y3 + _CROWN, z), *left]


def _rect(x0: float, x1: float, y0: float, y1: float, z: float, cut: float = 0.25) -> Floats:
    """A rectangle across the car with its corners cut off."""
    cx, cy = (x1 - x0) * cut * 0.5, (y1 - y0) * cut
    pts = [(x0 + cx, y0), (x1 - cx, y0), (x1, y0 + cy), (x1, y1 - cy)]
    pts += [(x1 - cx, y1), (x0 + cx, y1), (x0, y1 - cy), (x0, y0 + cy)]
    return np.asarray([(x, y, z) for x, y in pts], np.float32)


def _fittings(b: _Builder, kind: str) -> None:
    """Lights, grille, bumpers, plates, exhaust and mirrors."""
    stations = _BODIES[kind]
    nose, tail = stations[0][0] + 0.01, stations[-1][0] - 0.01
    tall = 1.35 if kind == "van" else 1.0
    b.add(_rect(-0.34, 0.34, 0.44 * tall, 0.60 * tall, nose), "trim", 24.0, 1.10)
    b.add(_rect(-0.50, 0.50, 0.31, 0.38, nose), "trim", 12.0, 1.10)
    b.add(_rect(-0.25, 0.25, 0.39, 0.47, nose + 0.01, 0.05), "plate", 12.0, 1.14)
    b.add(_rect(-0.25, 0.25, 0.62, 0.72, tail, 0.05), "plate", 2.0, 1.14)
    b.add(_rect(-0.64, 0.64, 0.34, 0.46, tail), "trim", 3.0, 1.08)
    b.add(_rect(-0.52, -0.40, 0.26, 0.33, tail - 0.02, 0.5), "trim", 46.0, 1.16)
    if kind == "van":
        for x0, x1 in ((-0.72, -0.06), (0.06, 0.72)):
            b.add(_rect(x0, x1, 1.30, 1.82, tail, 0.15), "glass", 1.5, 1.10)
    screen = stations[_WINDSCREEN[kind]]
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * 0.40, side * 0.70))
        b.add(_rect(x0, x1, 0.54 * tall, 0.66 * tall, nose - 0.03, 0.4), "lamp", 16.0, 1.12)
        x0, x1 = sorted((side * 0.50, side * 0.76))
        high = 0.86 * (1.15 if kind == "van" else 1.0)
        b.add(_rect(x0, x1, high - 0.14, high, tail, 0.3), "tail", 4.0, 1.12)
        x0, x1 = sorted((side * 0.90, side * 1.07))
        level = screen[5] + 0.03
        # Front and back of a mirror: a face is drawn from one side only.
        b.add(_rect(x0, x1, level, level + 0.14, screen[0] - 0.35, 0.3), "paint", 1.0)
        b.add(_rect(x0, x1, level, level + 0.14, screen[0] - 0.25, 0.3), "paint", 1.0)


def _wheels(b: _Builder, kind: str) -> Floats:
    half = max(s[4] for s in _BODIES[kind]) - 0.02
    angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)

    def disc(x: float, z: float, r: float) -> Floats:
        ring = np.stack([np.full(_CORNERS, x), 0.32 + r * np.cos(angles), z + r * np.sin(angles)], axis=1)
        return np.asarray(ring, np.float32)

    tyres = []
    for z in _WHEELS[kind]:
        for side in (-1.0, 1.0):
            x = side * half
            tyres.append(np.concatenate([disc(x, z, 0.32), disc(x - side * 0.20, z, 0.32)]))
            b.add(disc(x, z, 0.385), "trim", 5.0, layer=1)
            b.add(disc(x, z, 0.32), "tyre", 12.0, layer=2)
            b.add(disc(x, z, 0.215), "rim", 20.0, layer=3)
            b.add(disc(x, z, 0.075), "trim", 26.0, layer=4)
    return np.stack(tyres)
