"""House fronts: walls, windows (some lit), doors, shops."""

from __future__ import annotations

import numpy as np

from ufuser.simulation.geometry import Bools, Floats
from ufuser.simulation.layout import Building
from ufuser.simulation.surfaces import Material, Textures, apparent
from ufuser.simulation.texture import hash01, ramp, sample


def facade(tex: Textures, house: Building, s: Floats, y: Floats, footprint: Floats) -> Material:
    """The street front of a house: `s` metres along it, `y` metres up, both (n,)."""
    n = s.size
    fine = np.clip(0.10 / np.maximum(footprint, 1e-3), 0.0, 1.0)
    tile = float(house.number * 37 % 512)
    stains = sample(tex.cloud, s * 12.0 + tile, y * 6.0)
    grain = sample(tex.grain, s * 36.0 + tile, y * 36.0)
    tone = 1.0 + 0.13 * stains + 0.10 * grain * fine
    if house.brick:
        course = np.floor(y / 0.10)
        mortar = np.maximum(
            ramp(np.abs(np.mod(y / 0.10, 1.0) - 0.5), 0.36, 0.46),
            ramp(np.abs(np.mod(s / 0.28 + 0.5 * np.mod(course, 2.0), 1.0) - 0.5), 0.44, 0.49),
        )
        single = hash01(house.number, np.floor(s / 0.28 + 0.5 * np.mod(course, 2.0)), course)
        tone = tone * (1.0 + fine * (0.35 * (single - 0.5) + 0.25 * mortar))
    base = np.asarray(house.wall, np.float32)
    albedo = np.asarray(tone[:, None] * base, np.float32)
    emission = np.zeros((n, 3), np.float32)
    temperature = np.asarray(
        8.6 + house.warmth + 0.25 * stains + 0.10 * y * ramp(y, 0.0, 3.0) / 3.0, np.float32
    )

    # Bands between storeys, a plinth, a cornice.
    level = np.asarray((y - 0.5) / house.storey, np.float32)
    floor = np.floor(level)
    v = (level - floor) * house.storey
    band = ramp(v, 0.22, 0.18) + ramp(y, house.height - 0.55, house.height - 0.5)
    albedo *= (1.0 + 0.22 * np.clip(band, 0.0, 1.0))[:, None]
    under = ramp(np.abs(v - house.storey + 0.08), 0.14, 0.0)
    albedo *= (1.0 - 0.35 * under)[:, None]
    albedo *= (1.0 - 0.35 * ramp(y, 0.62, 0.55))[:, None]
    temperature += 0.5 * np.clip(band, 0.0, 1.0)

    bays = max(2, round((house.z1 - house.z0) / house.bay))
    bay = (house.z1 - house.z0) / bays
    column = np.floor(s / bay)
    u = s - (column + 0.5) * bay
    top = house.height - 0.9
    windows = (y < top) & (floor >= (1 if house.shop else 0)) & (v > 0.75) & (v < house.storey - 0.35)
    if house.shop:
        _shop(house, s, y, albedo, emission, temperature)
    _windows(house, np.asarray(windows), u, v, column, floor, bay, albedo, emission, temperature)
    if not house.shop:
        _door(house, bays // 2, column, u, y, albedo, emission, temperature)
    return Material(np.asarray(albedo, np.float32), emission, apparent(temperature, 0.95))


def _windows(
    house: Building,
    rows: Bools,
    u: Floats,
    v: Floats,
    column: Floats,
    floor: Floats,
    bay: float,
    albedo: Floats,
    emission: Floats,
    temperature: Floats,
) -> None:
    """Windows: sash and glass, some with a lit room and curtains behind."""
    half = min(0.62, bay * 0.29)
    low, high = 0.85, house.storey - 0.45
    sill = rows & (np.abs(u) < half + 0.16) & (v < low + 0.02) & (v > low - 0.12)
    albedo[sill] = 0.42
    surround = rows & (np.abs(u) < half + 0.10) & (v > low) & (v < high + 0.10)
    albedo[surround] = albedo[surround] * 0.6 + 0.14
    glass = rows & (np.abs(u) < half) & (v > low) & (v < high)
    if not glass.any():
        return
    gu, gv = u[glass] / half, (v[glass] - low) / (high - low)
    c, f = column[glass], floor[glass]
    lit = hash01(house.number * 7 + 1, c, f)
    tint = hash01(house.number * 7 + 2, c, f)
    drawn = hash01(house.number * 7 + 3, c, f)
    on = lit < 0.36
    warm = np.asarray((0.30, 0.68, 1.00), np.float32)
    cool = np.asarray((0.85, 0.95, 0.92), np.float32)
    blue = np.asarray((1.00, 0.70, 0.45), np.float32)
    color = np.where((tint < 0.72)[:, None], warm, np.where((tint < 0.90)[:, None], cool, blue))
    # A lamp below the ceiling, dark corners, curtains at both sides or across.
    room = 0.45 + 0.55 * np.exp(-((gu * 0.9 + 0.5 * (drawn - 0.5)) ** 2) - (gv - 0.8) ** 2 * 3.0)
    open_ = 0.30 + 0.45 * tint
    fold = 0.5 + 0.5 * np.sin(gu * 26.0 + drawn * 9.0)
    curtain = np.abs(gu) > open_
    across = drawn > 0.62
    level = np.where(across, 0.34 + 0.06 * fold, np.where(curtain, 0.25 + 0.10 * fold, room))
    level *= (0.26 + 0.60 * hash01(house.number * 7 + 4, c, f)) * on
    reveal = ramp(np.asarray(1.0 - gv, np.float32), 0.0, 0.10) * 0.7 + 0.3
    bars = (np.abs(gu) < 0.06) | (np.abs(gv - 0.66) < 0.025) | (np.abs(gu) > 0.92) | (gv < 0.04) | (gv > 0.96)
    emission[glass] = np.where(bars[:, None], 0.0, color * (level * reveal)[:, None])
    sky = 0.0022 * (0.4 + gv)
    emission[glass] += np.where(bars | on, 0.0, sky)[:, None] * np.asarray((1.3, 1.0, 0.8), np.float32)
    albedo[glass] = np.where(bars, 0.34, 0.025)[:, None]
    # Glass is opaque in the long-wave infrared: it emits by its surface and reflects the sky, lit or not.
    leak = hash01(house.number * 7 + 5, c, f)
    temperature[glass] = np.where(bars, temperature[glass] + 1.6, temperature[glass] + 2.6 * leak - 1.5)


def _door(
    house: Building,
    where: int,
    column: Floats,
    u: Floats,
    y: Floats,
    albedo: Floats,
    emission: Floats,
    temperature: Floats,
) -> None:
    """A panelled front door below a small lit fanlight."""
    frame = (column == where) & (np.abs(u) < 0.66) & (y < 2.75)
    leaf = (column == where) & (np.abs(u) < 0.54) & (y < 2.15)
    fan = (column == where) & (np.abs(u) < 0.54) & (y > 2.25) & (y < 2.65)
    emission[frame] = 0.0
    albedo[frame] = 0.40
    panel = (np.abs(np.abs(u) - 0.27) < 0.17) & (np.abs(np.mod(y, 0.7) - 0.35) < 0.26)
    paints = ((0.20, 0.06, 0.04), (0.05, 0.16, 0.05), (0.04, 0.04, 0.22))
    color = np.asarray(paints[house.number % 3], np.float32)
    albedo[leaf] = np.where(panel[leaf, None], color * 0.7, color)
    emission[fan] = np.asarray((0.12, 0.26, 0.38), np.float32)
    temperature[leaf] += 1.6


def _shop(
    house: Building, s: Floats, y: Floats, albedo: Floats, emission: Floats, temperature: Floats
) -> None:
    """A shop on the ground floor: lit windows with shelves, and a painted board above."""
    length = house.z1 - house.z0
    top = 0.5 + house.storey
    front = y < top
    albedo[front] = 0.05
    temperature[front] = 9.6 + house.warmth
    board = (y > top - 0.75) & (y < top - 0.12) & (s > 0.3) & (s < length - 0.3)
    tone = ((0.05, 0.04, 0.30), (0.16, 0.05, 0.03), (0.05, 0.18, 0.06))[house.number % 3]
    albedo[board] = np.asarray(tone, np.float32)
    emission[board] = np.asarray(tone, np.float32) * 0.5
    pane = length / max(2, round(length / 2.6))
    u = np.mod(s, pane)
    glass = front & (y > 0.55) & (y < top - 0.9) & (u > 0.09) & (u < pane - 0.09) & (s < length - 0.1)
    gs, gy = s[glass], y[glass]
    brightness = 0.14 + 0.42 * ramp(gy, 1.0, top - 0.9) ** 2
    poster = hash01(house.number + 3, np.floor(gs / 0.9), np.floor((gy - 0.6) / 0.8))
    brightness *= 0.65 + 0.35 * np.cos((gs / pane - 0.5) * 2 * np.pi) ** 2 * poster
    brightness += 0.5 * np.exp(-((np.mod(gs, 1.3) - 0.65) ** 2) * 60.0 - (gy - top + 1.2) ** 2 * 40.0)
    shelf = np.abs(np.mod(gy - 0.6, 0.55)) < 0.05
    goods = hash01(house.number, np.floor(gs / 0.23), np.floor((gy - 0.6) / 0.55))
    tall = np.mod(gy - 0.6, 0.55) < 0.12 + 0.32 * goods
    hue = hash01(house.number + 9, np.floor(gs / 0.23), np.floor((gy - 0.6) / 0.55))
    stock = np.stack([0.25 + 0.6 * hue, 0.35 + 0.4 * goods, 0.95 - 0.5 * hue], axis=1)
    color = np.where((tall & (gy < 1.8))[:, None], stock * 0.55, np.asarray((0.50, 0.78, 1.0), np.float32))
    color = np.where((shelf & (gy < 1.9))[:, None], color * 0.35, color)
    emission[glass] = (color * brightness[:, None] * 0.85).astype(np.float32)
    albedo[glass] = 0.03
    temperature[glass] = 10.6 + house.warmth


def gable(tex: Textures, house: Building, across: Floats, y: Floats) -> Material:
    """The windowless end wall of a house, where it is taller or further out than its neighbour."""
    stains = sample(tex.cloud, across * 10.0, y * 7.0 + house.number)
    albedo = (0.8 + 0.14 * stains)[:, None] * np.asarray(house.wall, np.float32)
    temperature = 8.2 + house.warmth + 0.2 * stains
    return Material(albedo.astype(np.float32), np.zeros_like(albedo, np.float32), apparent(temperature, 0.95))
