"""Walking people: a skeleton with a gait, drawn as tapered capsules for both cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ufuser.simulation.geometry import Floats, Pinhole, Vec3
from ufuser.simulation.illumination import AMBIENT, Illumination
from ufuser.simulation.paint import Canvas, Patch

STRIDE = 1.42
"""Metres walked in one full gait cycle (two steps) by someone 1.75 m tall."""


@dataclass(frozen=True, slots=True)
class Look:
    """Build and clothes of a person. Albedos are BGR, temperatures in degrees Celsius."""

    height: float
    skin: Vec3
    hair: Vec3
    jacket: Vec3
    trousers: Vec3
    shoes: Vec3
    jacket_temperature: float
    """Apparent temperature of the jacket: a thin one is warmer."""
    long_coat: bool
    bag: bool


@dataclass(frozen=True, slots=True)
class Person:
    """A person at one moment."""

    name: str
    look: Look
    x: float
    z: float
    heading: float
    """Radians: 0 walks away from the camera, pi/2 to the right."""
    gait: float
    """Phase of the gait in radians."""
    swing: float
    """1 walking, 0 standing."""
    presence: float = 1.0
    """Opacity, to fade people in and out at the far end of the street."""


@dataclass(frozen=True, slots=True)
class _Part:
    a: Vec3
    b: Vec3
    ra: float
    rb: float
    material: int
    """Index into the materials of the look."""


_SKIN, _HAIR, _JACKET, _TROUSERS, _SHOES, _HANDS, _BAG = range(7)


def _materials(look: Look) -> tuple[Floats, Floats]:
    """Albedo (7, 3) and temperature (7,), by the part's `material`."""
    bag: Vec3 = (0.05, 0.06, 0.09)
    albedo = [look.skin, look.hair, look.jacket, look.trousers, look.shoes, look.skin, bag]
    jacket = look.jacket_temperature
    temperature = [33.0, 25.5, jacket, 0.5 * jacket + 12.0, 17.0, 30.0, 13.0]
    return np.asarray(albedo, np.float32), np.asarray(temperature, np.float32)


def _leg(phase: float, swing: float) -> tuple[float, float, float]:
    """Thigh angle, shank angle and foot pitch in radians, forward positive."""
    thigh = swing * (0.42 * math.sin(phase) + 0.04)
    # The knee bends while the leg swings forward and is nearly straight under load.
    knee = 0.06 + swing * (0.95 * max(0.0, math.cos(phase + 0.35)) ** 1.6 + 0.06)
    shank = thigh - knee
    lift = swing * (0.35 * math.sin(phase) if math.sin(phase) > 0 else 0.55 * math.sin(phase))
    return thigh, shank, lift


def _skeleton(person: Person) -> list[_Part]:
    """The body as capsules in metres: x right, y up, z forward of the person, feet on y = 0."""
    look, swing, phase = person.look, person.swing, person.gait
    k = look.height / 1.75
    thigh_l, shank_l = 0.44 * k, 0.43 * k
    legs = {side: _leg(phase + (0.0 if side < 0 else math.pi), swing) for side in (-1, 1)}
    # The lower foot stands on the ground, so the hips rise and fall with the gait.
    reach = max(thigh_l * math.cos(t) + shank_l * math.cos(s) for t, s, _ in legs.values())
    hip_y = reach + 0.09 * k
    sway = 0.018 * swing * math.sin(phase)
    lean = 0.06 * swing
    twist = 0.10 * swing * math.sin(phase)

    def at(x: float, y: float, z: float) -> Vec3:
        return (x + sway, y, z)

    parts: list[_Part] = []
    chest_y, neck_y = hip_y + 0.44 * k, hip_y + 0.55 * k
    chest_z, head_z = lean * 0.44, lean * 0.62 + 0.02
    for side, (thigh, shank, pitch) in legs.items():
        hip = at(side * 0.085 * k, hip_y, 0.0)
        knee = at(side * 0.085 * k, hip_y - thigh_l * math.cos(thigh), thigh_l * math.sin(thigh))
        ankle = at(side * 0.075 * k, knee[1] - shank_l * math.cos(shank), knee[2] + shank_l * math.sin(shank))
        toe = (
            ankle[0] + side * 0.015,
            max(ankle[1] - 0.06 * k + 0.15 * k * math.sin(pitch), 0.03),
            ankle[2] + 0.17 * k * math.cos(pitch),
        )
        heel = (ankle[0], ankle[1] - 0.05 * k, ankle[2] - 0.03)
        parts += [
            _Part(hip, knee, 0.092 * k, 0.066 * k, _TROUSERS),
            _Part(knee, ankle, 0.066 * k, 0.046 * k, _TROUSERS),
            _Part(heel, toe, 0.046 * k, 0.036 * k, _SHOES),
        ]
        if look.long_coat:
            hem = at(side * 0.10 * k, hip_y - 0.36 * k, 0.5 * knee[2])
            parts.append(_Part(at(side * 0.06 * k, hip_y, 0.0), hem, 0.115 * k, 0.105 * k, _JACKET))
        # Arms swing against the legs.
        shoulder_a = 0.34 * swing * math.sin(phase + (math.pi if side < 0 else 0.0))
        elbow_bend = 0.22 + 0.30 * swing * (0.5 + 0.5 * math.sin(phase + (math.pi if side < 0 else 0.0)))
        shoulder = at(side * 0.185 * k, neck_y - 0.07 * k, chest_z - side * twist * 0.18)
        elbow = (
            shoulder[0] + side * 0.045 * k,
            shoulder[1] - 0.29 * k * math.cos(shoulder_a),
            shoulder[2] + 0.29 * k * math.sin(shoulder_a),
        )
        fore = shoulder_a + elbow_bend
        wrist = (
            elbow[0] - side * 0.01,
            elbow[1] - 0.25 * k * math.cos(fore),
            elbow[2] + 0.25 * k * math.sin(fore),
        )
        hand = (wrist[0], wrist[1] - 0.07 * k * math.cos(fore), wrist[2] + 0.07 * k * math.sin(fore))
        parts += [
            _Part(shoulder, elbow, 0.064 * k, 0.050 * k, _JACKET),
            _Part(elbow, wrist, 0.050 * k, 0.040 * k, _JACKET),
            _Part(wrist, hand, 0.036 * k, 0.034 * k, _HANDS),
            # Half of the trunk: two side by side are broad from the front and narrow from the side.
            _Part(
                at(side * 0.105 * k, chest_y - 0.03 * k, chest_z - side * twist * 0.1),
                at(side * 0.065 * k, hip_y + 0.02 * k, 0.0),
                0.112 * k,
                0.098 * k,
                _JACKET,
            ),
        ]
    parts += [
        _Part(
            at(0, chest_y - 0.02 * k, chest_z + 0.03),
            at(0, hip_y + 0.06 * k, 0.03),
            0.115 * k,
            0.10 * k,
            _JACKET,
        ),
        _Part(
            at(-0.14 * k, neck_y - 0.06 * k, chest_z),
            at(0.14 * k, neck_y - 0.06 * k, chest_z),
            0.07 * k,
            0.07 * k,
            _JACKET,
        ),
        _Part(
            at(0, neck_y - 0.04 * k, chest_z), at(0, neck_y + 0.07 * k, head_z), 0.056 * k, 0.052 * k, _SKIN
        ),
        _Part(
            at(0, neck_y + 0.14 * k, head_z + 0.02),
            at(0, neck_y + 0.20 * k, head_z + 0.015),
            0.078 * k,
            0.092 * k,
            _SKIN,
        ),
        _Part(
            at(0, neck_y + 0.125 * k, head_z - 0.035),
            at(0, neck_y + 0.225 * k, head_z - 0.01),
            0.090 * k,
            0.098 * k,
            _HAIR,
        ),
    ]
    if look.long_coat:
        parts.append(_Part(at(0, hip_y, 0.0), at(0, hip_y - 0.33 * k, 0.0), 0.13 * k, 0.14 * k, _JACKET))
    if look.bag:
        parts.append(
            _Part(at(0, chest_y + 0.02, chest_z - 0.17), at(0, hip_y + 0.12, -0.18), 0.13 * k, 0.14 * k, _BAG)
        )
    return parts


@dataclass(frozen=True, slots=True)
class _Field:
    """Capsules of a body over a rectangle of pixels: visibility and normals."""

    x: int
    y: int
    weight: Floats
    """(parts, h, w) share of the pixel that shows the part."""
    normal: Floats
    """(3, parts, h, w) unit normals, world axes."""
    material: NDArray[np.int64]


def _field(person: Person, pinhole: Pinhole) -> _Field | None:
    parts = _skeleton(person)
    c, s = math.cos(person.heading), math.sin(person.heading)
    ends = np.asarray([(p.a, p.b) for p in parts], np.float32)
    world = np.empty_like(ends)
    world[..., 0] = person.x + ends[..., 0] * c + ends[..., 2] * s
    world[..., 1] = ends[..., 1]
    world[..., 2] = person.z - ends[..., 0] * s + ends[..., 2] * c
    if world[..., 2].min() < 1.0:
        return None
    order = np.argsort(world[..., 2].mean(axis=1) - np.asarray([max(p.ra, p.rb) for p in parts]))
    world = world[order]
    pixel, depth = pinhole.project(world)
    radius = np.asarray([(parts[i].ra, parts[i].rb) for i in order], np.float32) * (pinhole.focal / depth)
    material = np.asarray([parts[i].material for i in order], np.int64)

    low = np.floor((pixel - radius[..., None]).min(axis=(0, 1)) - 1)
    high = np.ceil((pixel + radius[..., None]).max(axis=(0, 1)) + 1)
    x0, y0 = int(max(low[0], 0)), int(max(low[1], 0))
    x1, y1 = int(min(high[0], pinhole.width)), int(min(high[1], pinhole.height))
    if x0 >= x1 or y0 >= y1:
        return None

    px = (np.arange(x0, x1, dtype=np.float32) + 0.5)[None, None, :]
    py = (np.arange(y0, y1, dtype=np.float32) + 0.5)[None, :, None]
    ax, ay = pixel[:, 0, 0, None, None], pixel[:, 0, 1, None, None]
    bx, by = (
        (pixel[:, 1, 0] - pixel[:, 0, 0])[:, None, None],
        (pixel[:, 1, 1] - pixel[:, 0, 1])[:, None, None],
    )
    qx, qy = px - ax, py - ay
    along = np.clip((qx * bx + qy * by) / (bx * bx + by * by + 1e-3), 0.0, 1.0)
    ra = radius[:, 0, None, None]
    r = ra + along * (radius[:, 1, None, None] - ra)
    nx, ny = qx - along * bx, qy - along * by
    distance = np.sqrt(nx * nx + ny * ny)
    cover = np.clip(r - distance + 0.5, 0.0, 1.0)
    # A limb thinner than a pixel covers less than a pixel.
    cover *= np.minimum(2.0 * r, 1.0)
    left = np.cumprod(1.0 - cover, axis=0)
    weight = cover
    weight[1:] *= left[:-1]
    inverse = 1.0 / np.maximum(r, 0.5)
    nx *= inverse
    ny *= inverse
    nz = np.sqrt(np.clip(1.0 - nx * nx - ny * ny, 0.02, 1.0))
    return _Field(x0, y0, weight, np.stack([nx, -ny, -nz]), material)


def _blend(field: _Field, shading: Floats, values: Floats) -> Floats:
    """Sum over the parts: (parts, h, w) shading times (parts, c) values -> (h, w, c)."""
    n, h, w = shading.shape
    return np.asarray((shading.reshape(n, h * w).T @ values).reshape(h, w, -1), np.float32)


def visible(person: Person, pinhole: Pinhole, lamps: Illumination, beams: Illumination) -> Patch | None:
    """The person as the visible camera sees it: (h, w, 3) BGR radiance."""
    field = _field(person, pinhole)
    if field is None:
        return None
    albedo, _ = _materials(person.look)
    albedo = albedo[field.material]
    weight = field.weight * np.float32(person.presence)
    total = _blend(field, weight, albedo * np.asarray(AMBIENT, np.float32))
    for source in (lamps, beams):
        if float(source.color.max()) < 1e-3:
            continue
        facing = np.tensordot(source.direction, field.normal, axes=1)
        # Cloth scatters light: no sharp shadow boundary.
        np.clip(facing * 0.85 + 0.15, 0.0, 1.0, out=facing)
        facing *= weight
        total += _blend(field, facing, albedo * source.color)
    return Patch(field.x, field.y, total, weight.sum(axis=0), person.z)


def thermal(person: Person, pinhole: Pinhole) -> Patch | None:
    """The person as the thermal camera sees it: (h, w, 1) apparent temperature, degrees Celsius."""
    field = _field(person, pinhole)
    if field is None:
        return None
    _, temperature = _materials(person.look)
    weight = field.weight * np.float32(person.presence)
    # At grazing angles a surface emits less and reflects more of the cold surroundings.
    rim = (1.0 + field.normal[2]) ** 2 * 5.0
    value = (
        _blend(field, weight, temperature[field.material][:, None]) - (weight * rim).sum(axis=0)[..., None]
    )
    return Patch(field.x, field.y, value, weight.sum(axis=0), person.z)


def shadow(person: Person, pinhole: Pinhole, lamps: Illumination) -> Patch | None:
    """The shadow on the ground: a patch that only darkens, (h, w, 3)."""
    if float(lamps.color.max()) < 0.01:
        return None
    d = lamps.direction
    k = min(1.6, 1.5 / max(float(d[1]), 0.3))
    away_x, away_z = -float(d[0]) * k, -float(d[2]) * k
    side = np.asarray((away_z, -away_x), np.float32)
    side = side / (np.linalg.norm(side) + 1e-6) * 0.2
    ring = []
    for i in range(12):
        angle = 2 * math.pi * i / 12
        f = 0.5 - 0.55 * math.cos(angle)
        across = math.sin(angle) * (1.0 - 0.3 * f)
        ring.append((person.x + away_x * f + side[0] * across, 0.0, person.z + away_z * f + side[1] * across))
    world = np.asarray(ring, np.float32)
    if world[:, 2].min() < 1.0:
        return None
    pixel, _ = pinhole.project(world)
    blur = 0.06 * pinhole.scale_at(person.z)
    canvas = Canvas(pixel, (pinhole.width, pinhole.height), 3, margin=1.5 + 3 * blur)
    if canvas.empty:
        return None
    canvas.polygon(pixel, (0.0, 0.0, 0.0))
    return canvas.patch(person.z, blur, 0.6 * person.presence)
