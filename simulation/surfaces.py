"""Materials of the ground and the sky: albedo, emission, apparent temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufuser.simulation.geometry import Floats
from ufuser.simulation.layout import (
    CROSSING,
    KERB_LEFT,
    KERB_RIGHT,
    LANE_LINE,
    LANE_ONCOMING,
    LANE_OUTGOING,
    PARKING_LEFT,
    PARKING_RIGHT,
)
from ufuser.simulation.texture import fractal_tile, hash01, ramp, sample

AIR = 8.0
"""Degrees Celsius."""
SKY = -22.0
"""Apparent temperature of a clear sky, degrees Celsius."""


@dataclass(frozen=True, slots=True)
class Material:
    """Samples of a surface, all (n, ...) float32."""

    albedo: Floats
    """(n, 3) BGR, 0..1."""
    emission: Floats
    """(n, 3) BGR radiance that the surface emits."""
    temperature: Floats
    """(n,) apparent temperature, degrees Celsius, with emissivity and reflected sky."""


@dataclass(frozen=True, slots=True)
class Textures:
    """The noise that all surfaces share."""

    grain: Floats
    cloud: Floats

    @classmethod
    def of(cls, seed: int) -> Textures:
        return cls(fractal_tile(seed * 2 + 1, slope=0.55), fractal_tile(seed * 2 + 2, slope=1.35))


def apparent(celsius: Floats, emissivity: Floats | float) -> Floats:
    """Apparent temperature, degrees Celsius, of a surface that reflects some of the cold sky."""
    return np.asarray(emissivity * celsius + (1.0 - emissivity) * (0.5 * SKY + 0.5 * AIR), np.float32)


def _line(x: Floats, center: float, width: float, soft: Floats) -> Floats:
    """Coverage of a line of `width` metres across coordinate x, softened over `soft` metres."""
    return np.asarray(np.clip((width / 2 - np.abs(x - center)) / soft + 0.5, 0.0, 1.0), np.float32)


def ground(tex: Textures, x: Floats, z: Floats, footprint: Floats) -> Material:
    """The road and both pavements.

    Args:
        x, z: (n,) metres.
        footprint: (n,) metres on the ground that one sample covers in depth: finer detail fades out.
    """
    n = x.size
    soft = np.maximum(footprint * 0.35, 0.01).astype(np.float32)
    fine = np.clip(0.05 / np.maximum(footprint, 1e-3), 0.15, 1.0)
    grain = sample(tex.grain, x * 42.0, z * 42.0) * fine
    patchy = sample(tex.cloud, x * 9.0, z * 5.0 + 100.0)
    stains = sample(tex.cloud, x * 30.0 + 200.0, z * 30.0)

    # Asphalt: polished in the wheel tracks, stained between them, patched here and there.
    tone = 0.080 * (1.0 + 0.22 * grain + 0.16 * patchy + 0.10 * stains)
    for lane in (LANE_ONCOMING, LANE_OUTGOING):
        for track in (-0.75, 0.75):
            tone *= 1.0 + 0.16 * np.exp(-(((x - lane - track) / 0.3) ** 2))
        tone *= 1.0 - 0.14 * np.exp(-(((x - lane) / 0.25) ** 2))
    crack = np.abs(sample(tex.cloud, x * 16.0 + 50.0, z * 16.0 + 300.0))
    cracked = ramp(sample(tex.cloud, x * 3.0 + 9.0, z * 3.0), 0.6, 1.4)
    tone *= 1.0 - 0.55 * (1.0 - ramp(crack, 0.0, 0.07)) * fine * cracked
    repair = _line(x, -1.3, 1.5, soft) * _line(z, 14.2, 3.4, soft)
    tone = np.asarray(tone * (1.0 - 0.35 * repair), np.float32)
    albedo = tone[:, None] * np.asarray((0.97, 1.0, 1.03), np.float32)
    temperature = 12.2 + 0.35 * patchy + 0.12 * grain + 0.1 * stains - 0.4 * repair
    for lane in (LANE_ONCOMING, LANE_OUTGOING):
        temperature += 0.55 * (
            np.exp(-(((x - lane - 0.75) / 0.4) ** 2)) + np.exp(-(((x - lane + 0.75) / 0.4) ** 2))
        )
    # Farther away the road sees more sky and is colder.
    temperature = np.asarray(temperature - 0.012 * np.minimum(z, 80.0), np.float32)

    paint = np.zeros(n, np.float32)
    dash = ramp(np.abs(np.mod(z, 9.0) - 4.5), 1.55, 1.45)
    on_zebra = (z > CROSSING[0] - 1.2) & (z < CROSSING[1] + 1.2)
    np.maximum(paint, _line(x, LANE_LINE, 0.16, soft * 0.3) * dash * ~on_zebra, out=paint)
    for edge in (PARKING_LEFT, PARKING_RIGHT):
        short = ramp(np.abs(np.mod(z, 1.6) - 0.8), 0.45, 0.4)
        np.maximum(paint, _line(x, edge, 0.13, soft * 0.3) * short * ~on_zebra, out=paint)
    bar = _line(np.mod(x - KERB_LEFT, 1.0), 0.5, 0.52, soft * 0.3)
    inside = _line(z, sum(CROSSING) / 2, CROSSING[1] - CROSSING[0], soft)
    np.maximum(paint, bar * inside * ((x > KERB_LEFT + 0.6) & (x < KERB_RIGHT - 0.6)), out=paint)
    stop = _line(z, CROSSING[0] - 1.6, 0.4, soft) * ((x > LANE_LINE) & (x < PARKING_RIGHT))
    np.maximum(paint, stop.astype(np.float32), out=paint)
    worn = np.clip(0.86 + 0.12 * grain + 0.10 * stains, 0.35, 1.0)
    paint *= worn
    albedo += paint[:, None] * (np.asarray((0.50, 0.53, 0.55), np.float32) - albedo)
    temperature -= 0.35 * paint

    for mx, mz in ((-2.1, 11.4), (-5.4, 19.0), (-3.0, 38.0)):
        r = np.hypot(x - mx, z - mz)
        cover = np.clip((0.36 - r) / soft + 0.5, 0.0, 1.0)
        rings = 0.05 + 0.035 * (np.sin(r * 60.0) > 0)
        albedo += cover[:, None] * (rings[:, None] - albedo)
        # Manhole covers are warm: the sewer is below.
        temperature += cover * (17.5 - temperature)

    left, right = x < KERB_LEFT, x > KERB_RIGHT
    walk = left | right
    kerb_at = np.where(left, KERB_LEFT, KERB_RIGHT)
    out = np.abs(x - kerb_at)
    joint_x = np.abs(np.mod(out - 0.25, 0.62) - 0.31)
    joint_z = np.abs(np.mod(z, 0.93) - 0.465)
    joints = np.maximum(ramp(joint_x, 0.28, 0.31), ramp(joint_z, 0.43, 0.465)) * fine
    slab = hash01(7, np.floor((out - 0.25) / 0.62), np.floor(z / 0.93))
    flag = 0.15 * (1.0 + 0.16 * (slab - 0.5) * fine + 0.12 * grain + 0.10 * patchy) * (1.0 - 0.45 * joints)
    kerb = ramp(out, 0.22, 0.18) * walk
    flag = flag * (1.0 - kerb) + kerb * 0.24 * (1.0 + 0.1 * grain)
    albedo[walk] = flag[walk, None] * np.asarray((0.95, 1.0, 1.04), np.float32)
    temperature[walk] = (11.0 + 0.3 * patchy + 0.15 * (slab - 0.5) + 0.1 * grain)[walk]
    gutter = _line(x, KERB_LEFT + 0.12, 0.26, soft) + _line(x, KERB_RIGHT - 0.12, 0.26, soft)
    albedo *= (1.0 - 0.45 * np.clip(gutter, 0.0, 1.0) * ~walk)[:, None]
    temperature -= 0.5 * gutter * ~walk
    # The strip along the houses is warmer.
    temperature += 1.2 * np.exp(-np.minimum(np.abs(x + 12.2), np.abs(x - 5.3)) / 0.5)
    return Material(np.asarray(albedo, np.float32), np.zeros((n, 3), np.float32), apparent(temperature, 0.96))


def sky(tex: Textures, azimuth: Floats, elevation: Floats) -> Material:
    """Night sky over a town: glow at the horizon, thin clouds, few stars. Angles as tangents, (n,)."""
    n = azimuth.size
    height = np.clip(elevation, 0.0, 1.0)
    cloud = sample(tex.cloud, azimuth * 90.0 / (0.35 + height), height * 260.0 / (0.35 + height))
    veil = ramp(cloud, -0.4, 1.8)
    low = np.asarray((0.0075, 0.0085, 0.0125), np.float32)
    high = np.asarray((0.0052, 0.0028, 0.0019), np.float32)
    mix = np.exp(-height * 7.0)[:, None]
    emission = low * mix + high * (1.0 - mix)
    emission += veil[:, None] * np.asarray((0.0028, 0.0030, 0.0038), np.float32) * (0.4 + 0.6 * mix)
    cell = hash01(3, np.floor(azimuth * 220.0), np.floor(elevation * 220.0))
    emission += ((cell > 0.9975) * 0.02 * (1.0 - veil) * (1.0 - mix[:, 0]))[:, None]
    temperature = SKY + 16.0 * np.exp(-height * 9.0) + 7.0 * veil
    return Material(np.zeros((n, 3), np.float32), emission.astype(np.float32), temperature.astype(np.float32))
