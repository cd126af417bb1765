"""Cars and vans: meshes placed on the street, shaded for one of the cameras, and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ufuser.simulation.carmesh import MATERIALS, Mesh
from ufuser.simulation.geometry import CAMERA_HEIGHT, NEAR_Z, Bools, Floats, Pinhole, Vec3
from ufuser.simulation.illumination import AMBIENT, Beam, Illumination
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
"""Specular reflectance at normal incidence; the rest is diffuse."""
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
    warmth: float
    """1 after a drive, 0 as cold as the street."""
    lights: bool
    rolled: float = 0.0
    """Metres driven, for the rotation of the wheels."""
    presence: float = 1.0
    """Opacity, to fade vehicles in and out at the far end of the street."""

    @property
    def beam(self) -> Beam:
        """Its headlights."""
        nose = self.z + self.toward * self.mesh.half_length
        return Beam((self.x, 0.66, nose), self.toward, 450.0 * self.presence)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The mesh in world axes, and its view from the camera."""

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
    rotation = np.asarray((car.toward, 1.0, car.toward), np.float32)
    translation = np.asarray((car.x, 0.0, car.z), np.float32)
    points = car.mesh.points * rotation + translation
    to_eye = np.asarray((0.0, CAMERA_HEIGHT, 0.0), np.float32) - points.mean(axis=1)
    distance = np.sqrt((to_eye * to_eye).sum(axis=1))
    return _Placed(
        points,
        car.mesh.tyres * rotation + translation,
        car.mesh.normals * rotation,
        to_eye / distance[:, None],
        distance,
    )


def _radiance(car: Vehicle, placed: _Placed, sources: Sequence[Illumination]) -> Floats:
    """Radiance of every face: (faces, 3) BGR."""
    table = np.asarray([car.paint if s == "paint" else _ALBEDO[s] for s in MATERIALS], np.float32)
    gloss = np.asarray([_GLOSS.get(s, 0.02) for s in MATERIALS], np.float32)[car.mesh.material]
    albedo = table[car.mesh.material]
    normals, view = placed.normals, placed.view
    out = albedo * np.asarray(AMBIENT, np.float32)
    for source in sources:
        facing = np.clip(normals @ source.direction * 0.9 + 0.1, 0.0, 1.0)
        half = view + source.direction
        half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-6
        shine = gloss * np.clip((normals * half).sum(axis=1), 0.0, 1.0) ** 40
        out += (albedo * facing[:, None] + shine[:, None]) * source.color
    # Lacquer and glass reflect the glow of the town where they face the sky.
    fresnel = (1.0 - np.clip((normals * view).sum(axis=1), 0.0, 1.0)) ** 3
    mirror = gloss * (0.010 + 0.05 * fresnel) * np.clip(normals[:, 1] * 0.7 + 0.3, 0.0, 1.0)
    out += mirror[:, None] * np.asarray((0.8, 0.9, 1.0), np.float32)
    if car.lights:
        # A low beam is brightest from straight ahead.
        axis = np.clip(car.toward * view[:, 2], 0.0, 1.0)
        white = np.asarray((0.93, 1.0, 1.0), np.float32)
        lamp = car.mesh.material == MATERIALS.index("lamp")
        out[lamp] += (1.5 + 38.5 * axis[lamp, None] ** 14) * white
        out[car.mesh.material == MATERIALS.index("tail")] += np.asarray((0.07, 0.12, 2.6), np.float32)
        rear = (car.mesh.material == MATERIALS.index("plate")) & (normals[:, 2] * car.toward < 0)
        out[rear] += np.asarray((0.10, 0.12, 0.12), np.float32)
    return np.asarray(out, np.float32)


def _temperature(car: Vehicle, placed: _Placed, street: float) -> Floats:
    """Apparent temperature of every face: (faces, 1) degrees Celsius."""
    up = np.clip(placed.normals[:, 1], 0.0, 1.0)
    glass = car.mesh.material == MATERIALS.index("glass")
    # Lacquer, and glass even more, reflect the cold sky where they face it.
    out = street - 1.5 - 3.5 * up + car.mesh.warming * car.warmth
    out = np.where(glass, street - 4.0 - 5.0 * up + 2.5 * car.warmth, out)
    return np.asarray(out[:, None], np.float32)


def _draw(car: Vehicle, pinhole: Pinhole, placed: _Placed, values: Floats) -> Patch | None:
    """Draw the faces that face the camera, far to near, with one value row each."""
    mesh = car.mesh
    near = placed.points[..., 2].min(axis=1) > NEAR_Z
    facing_camera = near & ((placed.normals * placed.view).sum(axis=1) > 0.0)
    if not facing_camera.any():
        return None
    flat, _ = pinhole.project(placed.points)
    tyre_depth = placed.tyres[..., 2].min(axis=1)
    tyre_flat, _ = pinhole.project(placed.tyres)
    tyre_flat = tyre_flat[tyre_depth > NEAR_Z]
    outline = np.concatenate([flat[facing_camera].reshape(-1, 2), tyre_flat.reshape(-1, 2)])
    canvas = Canvas(outline, (pinhole.width, pinhole.height), values.shape[1])
    if canvas.empty:
        return None
    tyre = values[int(np.flatnonzero(mesh.material == MATERIALS.index("tyre"))[0])].tolist()
    for hull in tyre_flat:
        canvas.polygon(np.asarray(cv2.convexHull(hull)[:, 0, :], np.float32), tyre)
    order = np.lexsort((mesh.lift - placed.distance, mesh.layer))
    chosen = order[facing_camera[order]]
    colors = values.tolist()
    fixed = canvas.fixed(flat)
    for k in chosen:
        canvas.fill(fixed[k], colors[k])
    _spokes(car, pinhole, placed, facing_camera, canvas, colors)
    return canvas.patch(car.z, strength=car.presence)


def _spokes(
    car: Vehicle,
    pinhole: Pinhole,
    placed: _Placed,
    facing_camera: Bools,
    canvas: Canvas,
    colors: list[list[float]],
) -> None:
    """Gaps between the spokes, which show the rotation of the wheel; omitted in the distance."""
    if pinhole.scale_at(car.z) < 18:
        return
    angle = np.arange(_SPOKES)[:, None] * (2 * math.pi / _SPOKES) + car.rolled / 0.32
    wedge = angle + np.asarray((-0.30, 0.30, 0.34, -0.34))
    r = np.asarray((0.19, 0.19, 0.10, 0.10))
    offsets = np.stack([np.zeros_like(wedge), r * np.cos(wedge), car.toward * r * np.sin(wedge)], axis=2)
    for k in np.flatnonzero(facing_camera & (car.mesh.material == MATERIALS.index("rim"))):
        hub = placed.points[k].mean(axis=0)
        flat, _ = pinhole.project((hub + offsets).astype(np.float32))
        # The hub cap's colour follows the rim in the mesh.
        for gap in canvas.fixed(flat):
            canvas.fill(gap, colors[k + 1])


def visible(car: Vehicle, pinhole: Pinhole, lamps: Illumination, beams: Illumination) -> Patch | None:
    """The vehicle as the visible camera sees it: (h, w, 3) BGR radiance."""
    placed = _place(car)
    return _draw(car, pinhole, placed, _radiance(car, placed, (lamps, beams)))


def thermal(car: Vehicle, pinhole: Pinhole, street: float) -> Patch | None:
    """The vehicle as the thermal camera sees it: (h, w, 1) apparent temperature; `street` is that around it."""
    placed = _place(car)
    return _draw(car, pinhole, placed, _temperature(car, placed, street))


def underneath(car: Vehicle, pinhole: Pinhole, value: tuple[float, ...], strength: float) -> Patch | None:
    """A soft patch on the ground below the car: its shadow, or the heating by engine and exhaust."""
    length, width = car.mesh.half_length + 0.1, 0.98
    angles = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    # A superellipse: a rectangle with round corners.
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
