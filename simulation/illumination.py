"""Visible illumination by street lamps, shop windows and headlights: irradiance at points of the world.

Unit: the irradiance directly below a street lamp is about 1. The thermal camera sees none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufuser.simulation.geometry import Floats, Vec3

SODIUM: Vec3 = (0.30, 0.66, 1.00)
LED: Vec3 = (0.92, 0.95, 1.00)
SHOP: Vec3 = (0.62, 0.85, 1.00)
HEADLIGHT: Vec3 = (0.95, 1.00, 1.00)
AMBIENT: Vec3 = (0.0125, 0.0105, 0.0095)
"""Irradiance of the night sky over a town, BGR."""


@dataclass(frozen=True, slots=True)
class Lamp:
    """A fixed lamp."""

    position: Vec3
    """Metres."""
    color: Vec3
    """BGR, linear."""
    power: float
    """Irradiance at one metre, along the axis."""
    downward: bool
    """Shaded, as a street lamp; else it radiates in all directions."""


@dataclass(frozen=True, slots=True)
class Beam:
    """The headlights of one vehicle, as one lamp between the two."""

    position: Vec3
    """Metres."""
    toward: float
    """+1 shines away from the camera, -1 towards it."""
    power: float
    """Irradiance at one metre along the axis."""


@dataclass(frozen=True, slots=True)
class Illumination:
    """Illumination of one small object."""

    color: Floats
    """(3,) BGR irradiance of a surface that faces the light."""
    direction: Floats
    """(3,) unit vector towards the light."""


def lamp_field(lamps: tuple[Lamp, ...], points: Floats, normals: Floats | None) -> Floats:
    """Irradiance of the fixed lamps.

    Args:
        points: (..., 3) metres.
        normals: (..., 3) unit vectors, or None for leaves and other objects without one orientation.

    Returns:
        (..., 3) float32 BGR.
    """
    total = np.zeros(points.shape, np.float32)
    for lamp in lamps:
        total += _falloff(lamp, points, normals)[..., None] * np.asarray(lamp.color, np.float32)
    return total


def _falloff(lamp: Lamp, points: Floats, normals: Floats | None) -> Floats:
    to = np.asarray(lamp.position, np.float32) - points
    d2 = np.einsum("...i,...i->...", to, to) + np.float32(0.15)
    d = np.sqrt(d2)
    strength = lamp.power / d2
    if lamp.downward:
        down = np.clip(to[..., 1] / d, 0.0, 1.0)
        strength = strength * down * down * down
    if normals is None:
        return np.asarray(strength * np.float32(0.5), np.float32)
    facing = np.einsum("...i,...i->...", to, normals) / d
    return np.asarray(strength * np.clip(facing, 0.0, 1.0), np.float32)


def lamps_at(lamps: tuple[Lamp, ...], point: Vec3) -> Illumination:
    """All fixed lamps at one point, merged into one from their weighted mean direction."""
    p = np.asarray(point, np.float32)
    positions = np.asarray([lamp.position for lamp in lamps], np.float32)
    to = positions - p
    d2 = (to * to).sum(axis=1) + 0.15
    unit = to / np.sqrt(d2)[:, None]
    power = np.asarray([lamp.power for lamp in lamps], np.float32) / d2
    shaded = np.asarray([lamp.downward for lamp in lamps])
    down = np.clip(unit[:, 1], 0.0, 1.0)
    power = np.where(shaded, power * down**3, power)
    colors = np.asarray([lamp.color for lamp in lamps], np.float32)
    return _merge(power, unit, colors)


def beams_at(beams: tuple[Beam, ...], point: Vec3) -> Illumination:
    """All headlights at one point, merged like `lamps_at`."""
    if not beams:
        return Illumination(np.zeros(3, np.float32), np.asarray((0.0, 1.0, 0.0), np.float32))
    p = np.asarray(point, np.float32)
    strength = np.asarray([float(_beam(beam, p)[0]) for beam in beams], np.float32)
    to = np.asarray([beam.position for beam in beams], np.float32) - p
    unit = to / (np.linalg.norm(to, axis=1, keepdims=True) + 1e-6)
    colors = np.tile(np.asarray(HEADLIGHT, np.float32), (len(beams), 1))
    return _merge(strength, unit, colors)


def _merge(power: Floats, unit: Floats, colors: Floats) -> Illumination:
    direction = (power[:, None] * unit).sum(axis=0)
    length = float(np.linalg.norm(direction))
    towards = direction / length if length > 1e-9 else np.asarray((0.0, 1.0, 0.0))
    return Illumination((power[:, None] * colors).sum(axis=0).astype(np.float32), towards.astype(np.float32))


def beam_field(beams: tuple[Beam, ...], points: Floats, normals: Floats) -> Floats:
    """Irradiance of all headlights on surfaces: (...) float32 for points and normals (..., 3)."""
    total = np.zeros(points.shape[:-1], np.float32)
    for beam in beams:
        strength, to, d = _beam(beam, points)
        facing = np.einsum("...i,...i->...", to, normals) / d
        total += strength * np.clip(facing, 0.0, 1.0)
    return total


def _beam(beam: Beam, points: Floats) -> tuple[Floats, Floats, Floats]:
    """Irradiance by a low beam (wide, flat, cut off above the lamps), vectors to it, and distances."""
    to = np.asarray(beam.position, np.float32) - points
    ahead = -to[..., 2] * beam.toward
    d2 = np.einsum("...i,...i->...", to, to) + np.float32(0.05)
    d = np.sqrt(d2)
    reach = np.maximum(ahead, 0.05)
    # Dipped towards the driver's kerb, for right-hand traffic.
    across = (to[..., 0] + beam.toward * 0.10 * reach) / (0.8 + 0.24 * reach)
    above = np.maximum(-to[..., 1] - 0.1, 0.0) / (0.25 + 0.05 * reach)
    shape = np.exp(-(across * across) - above * above)
    gate = np.clip(ahead / 1.5, 0.0, 1.0)
    # 1/d^2 alone would overexpose the first metre: a reflector sends most of its light far ahead.
    return np.asarray(beam.power * shape * gate / (d2 + 30.0), np.float32), to, d
