"""Cars and vans on the street: their meshes placed, shaded for one camera or the other, and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ufuser.simulation.carmesh import STUFF, Mesh
from ufuser.simulation.geometry import CAMERA_HEIGHT, NEAR_Z, Bools, Floats, Pinhole, Vec3
from ufuser.simulation.light import AMBIENT, Arriving, Beam
from ufuser.simulation.paint import Canvas, Patch

_ALBEDO: dict[str, Vec3] = {
    "paint": (0.0, 0.0, 0.0),
    "glass": (0.012, 0.011, 0.010),
    "tyre": (0.020, 0.020, 0.020),
    "rim": (0.34, 0.34, 0.34),
    "trim": (0.030, 0.030, 0.030),
    "plate": (0.55, 0.60, 0.60),
    "lamp": (0.45, 0.45, 0.45),
    "tail": (0.03, 0.02, 0.24),
}
_GLOSS = {"paint": 0.20, "glass": 0.12, "rim": 0.3, "lamp": 0.3}
"""Share of light mirrored head-on; the rest is matt."""
_SPOKES = 5


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle at one moment."""

    name: str
    mesh: Mesh
    paint: Vec3
    """Albedo, BGR."""
    x: float
    z: float
    toward: float
    """+1 faces away from the camera, -1 faces it."""
    heat: float
    """1 just driven, 0 as cold as the street."""
    lights: bool
    rolled: float = 0.0
    """Metres driven, which turn the wheels."""
    presence: float = 1.0
    """Fades vehicles in and out at the far end of the street."""

    @property
    def beam(self) -> Beam:
        """The headlights' light on the street."""
        nose = self.z + self.toward * self.mesh.half_length
        return Beam((self.x, 0.66, nose), self.toward, 450.0 * self.presence)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The mesh in world axes, and how it is seen."""

    points: Floats
    """(faces, 16, 3)."""
    tyres: Floats
    """(4, 32, 3)."""
    normals: Floats
    """(faces, 3)."""
    view: Floats
    """(faces, 3) unit vectors from each face to the camera."""
    distance: Floats
    """(faces,) metres."""


def _place(car: Vehicle) -> _Placed:
    # Facing the camera is half a turn about the vertical axis.
    turn = np.asarray((car.toward, 1.0, car.toward), np.float32)
    shift = np.asarray((car.x, 0.0, car.z), np.float32)
    points = car.mesh.points * turn + shift
    to_eye = np.asarray((0.0, CAMERA_HEIGHT, 0.0), np.float32) - points.mean(axis=1)
    distance = np.sqrt((to_eye * to_eye).sum(axis=1))
    return _Placed(
        points, car.mesh.tyres * turn + shift, car.mesh.normals * turn, to_eye / distance[:, None], distance
    )


def _light(car: Vehicle, placed: _Placed, arriving: Sequence[Arriving]) -> Floats:
    """Radiance of every face: (faces, 3) BGR."""
    table = np.asarray([car.paint if s == "paint" else _ALBEDO[s] for s in STUFF], np.float32)
    gloss = np.asarray([_GLOSS.get(s, 0.02) for s in STUFF], np.float32)[car.mesh.stuff]
    albedo = table[car.mesh.stuff]
    normals, view = placed.normals, placed.view
    out = albedo * np.asarray(AMBIENT, np.float32)
    for light in arriving:
        facing = np.clip(normals @ light.direction * 0.9 + 0.1, 0.0, 1.0)
        half = view + light.direction
        half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-6
        shine = gloss * np.clip((normals * half).sum(axis=1), 0.0, 1.0) ** 40
        out += (albedo * facing[:, None] + shine[:, None]) * light.color
    # Lacquer and glass mirror the town's glow where they face the sky.
    fresnel = (1.0 - np.clip((normals * view).sum(axis=1), 0.0, 1.0)) ** 3
    mirror = gloss * (0.010 + 0.05 * fresnel) * np.clip(normals[:, 1] * 0.7 + 0.3, 0.0, 1.0)
    out += mirror[:, None] * np.asarray((0.8, 0.9, 1.0), np.float32)
    if car.lights:
        # A low beam looks brightest from straight ahead.
        axis = np.clip(car.toward * view[:, 2], 0.0, 1.0)
        white = np.asarray((0.93, 1.0, 1.0), np.float32)
        lamp = car.mesh.stuff == STUFF.index("lamp")
        out[lamp] += (1.5 + 38.5 * axis[lamp, None] ** 14) * white
        out[car.mesh.stuff == STUFF.index("tail")] += np.asarray((0.07, 0.12, 2.6), np.float32)
        rear = (car.mesh.stuff == STUFF.index("plate")) & (normals[:, 2] * car.toward < 0)
        out[rear] += np.asarray((0.10, 0.12, 0.12), np.float32)
    return np.asarray(out, np.float32)


def _heat(car: Vehicle, placed: _Placed, street: float) -> Floats:
    """Apparent temperature of every face: (faces, 1) degrees Celsius."""
    up = np.clip(placed.normals[:, 1], 0.0, 1.0)
    glass = car.mesh.stuff == STUFF.index("glass")
    # Lacquer, and glass even more, mirror the cold sky where they face it.
    out = street - 1.5 - 3.5 * up + car.mesh.warm * car.heat
    out = np.where(glass, street - 4.0 - 5.0 * up + 2.5 * car.heat, out)
    return np.asarray(out[:, None], np.float32)


def _draw(car: Vehicle, pinhole: Pinhole, placed: _Placed, values: Floats) -> Patch | None:
    """Paint the faces seen by the camera, far to near, with one value row each."""
    mesh = car.mesh
    near = placed.points[..., 2].min(axis=1) > NEAR_Z
    seen = near & ((placed.normals * placed.view).sum(axis=1) > 0.0)
    if not seen.any():
        return None
    flat, _ = pinhole.project(placed.points)
    tyre_depth = placed.tyres[..., 2].min(axis=1)
    tyre_flat, _ = pinhole.project(placed.tyres)
    tyre_flat = tyre_flat[tyre_depth > NEAR_Z]
    outline = np.concatenate([flat[seen].reshape(-1, 2), tyre_flat.reshape(-1, 2)])
    canvas = Canvas(outline, (pinhole.width, pinhole.height), values.shape[1])
    if canvas.empty:
        return None
    tyre = values[int(np.flatnonzero(mesh.stuff == STUFF.index("tyre"))[0])].tolist()
    for hull in tyre_flat:
        canvas.polygon(np.asarray(cv2.convexHull(hull)[:, 0, :], np.float32), tyre)
    order = np.lexsort((mesh.lift - placed.distance, mesh.layer))
    chosen = order[seen[order]]
    colors = values.tolist()
    fixed = canvas.fixed(flat)
    for k in chosen:
        canvas.fill(fixed[k], colors[k])
    _spokes(car, pinhole, placed, seen, canvas, colors)
    return canvas.patch(car.z, strength=car.presence)


def _spokes(
    car: Vehicle,
    pinhole: Pinhole,
    placed: _Placed,
    seen: Bools,
    canvas: Canvas,
    colors: list[list[float]],
) -> None:
    """Gaps between the spokes, which show that the wheel turns. Too small to see from afar."""
    if pinhole.scale_at(car.z) < 18:
        return
    angle = np.arange(_SPOKES)[:, None] * (2 * math.pi / _SPOKES) + car.rolled / 0.32
    wedge = angle + np.asarray((-0.30, 0.30, 0.34, -0.34))
    r = np.asarray((0.19, 0.19, 0.10, 0.10))
    offsets = np.stack([np.zeros_like(wedge), r * np.cos(wedge), car.toward * r * np.sin(wedge)], axis=2)
    for k in np.flatnonzero(seen & (car.mesh.stuff == STUFF.index("rim"))):
        hub = placed.points[k].mean(axis=0)
        flat, _ = pinhole.project((hub + offsets).astype(np.float32))
        # The hub cap's colour follows the rim in the mesh.
        for gap in canvas.fixed(flat):
            canvas.fill(gap, colors[k + 1])


def visible(car: Vehicle, pinhole: Pinhole, lamps: Arriving, beams: Arriving) -> Patch | None:
    """The vehicle in reflected light and its own: (h, w, 3) BGR radiance."""
    placed = _place(car)
    return _draw(car, pinhole, placed, _light(car, placed, (lamps, beams)))


def thermal(car: Vehicle, pinhole: Pinhole, street: float) -> Patch | None:
    """The vehicle by its heat: (h, w, 1) apparent temperature, `street` degrees Celsius around it."""
    placed = _place(car)
    return _draw(car, pinhole, placed, _heat(car, placed, street))


def underneath(car: Vehicle, pinhole: Pinhole, value: tuple[float, ...], strength: float) -> Patch | None:
    """A soft patch on the ground below the car: its shadow, or the warmth of its exhaust and engine."""
    length, width = car.mesh.half_length + 0.1, 0.98
    angles = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    # A superellipse: a rectangle whose corners have gone soft.
    across = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** 0.35 * width
    along = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** 0.35 * length
    world = np.stack([car.x + across, np.zeros(20), car.z + along], axis=1).astype(np.float32)
    world = world[world[:, 2] > NEAR_Z + 0.5]
    if len(world) < 3:
        return None
    pixels, _ = pinhole.project(world)
    blur = min(0.10 * pinhole.scale_at(max(car.z, 4.0)), 14.0)
    canvas = Canvas(pixels, (pinhole.width, pinhole.height), len(value), margin=2.0 + 3 * blur)
    if canvas.empty:
        return None
    canvas.polygon(np.asarray(cv2.convexHull(pixels)[:, 0, :], np.float32), value)
    return canvas.patch(car.z, blur, strength * car.presence)
