"""The empty street: one ray per pixel against the ground, the house rows and the sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ufuser.simulation.facades import facade, gable
from ufuser.simulation.geometry import CAMERA_HEIGHT, Bools, Floats, Pinhole
from ufuser.simulation.illumination import AMBIENT, lamp_field
from ufuser.simulation.layout import STREET_END, Building, Layout
from ufuser.simulation.surfaces import AIR, Material, Textures, ground, sky
from ufuser.simulation.texture import ramp

_OVERSAMPLE = 2
_BAND = 96
"""Rows shaded at a time: bounds the memory a large picture needs."""


@dataclass(frozen=True, slots=True)
class Backdrop:
    """Static layers at frame resolution."""

    radiance: Floats
    """(H, W, 3) BGR linear radiance towards the camera."""
    albedo: Floats
    """(H, W, 3) BGR, which moving headlights illuminate."""
    temperature: Floats
    """(H, W) apparent temperature, degrees Celsius."""
    coarse_points: Floats
    """(h, w, 3) world position on a coarse grid, for the headlights."""
    coarse_normals: Floats
    """(h, w, 3) unit normals on the coarse grid; zero in the sky."""


class _Samples:
    """The surfaces under a block of rays."""

    def __init__(self, us: Floats, vs: Floats, materials: bool) -> None:
        shape = (vs.size, us.size)
        self.points = np.zeros((*shape, 3), np.float32)
        self.normals = np.zeros((*shape, 3), np.float32)
        self.materials = materials
        if materials:
            self.albedo = np.zeros((*shape, 3), np.float32)
            self.emission = np.zeros((*shape, 3), np.float32)
            self.temperature = np.zeros(shape, np.float32)

    def put(
        self,
        where: tuple[slice, slice],
        mask: Bools,
        points: Floats,
        normal: tuple[float, float, float],
    ) -> None:
        self.points[where][mask] = points
        self.normals[where][mask] = normal

    def cover(
        self,
        where: tuple[slice, slice],
        mask: Bools,
        material: Material,
    ) -> None:
        self.albedo[where][mask] = material.albedo
        self.emission[where][mask] = material.emission
        self.temperature[where][mask] = material.temperature


def _cast(
    layout: Layout, tex: Textures, pinhole: Pinhole, us: Floats, vs: Floats, materials: bool
) -> _Samples:
    """Rays through columns `us` and rows `vs` (pixels), nearest surface wins."""
    out = _Samples(us, vs, materials)
    du = (us - pinhole.cx) / pinhole.focal
    dv = (vs - pinhole.cy) / pinhole.focal
    step = float(vs[1] - vs[0]) / pinhole.focal if vs.size > 1 else 1.0 / pinhole.focal

    everything = (slice(0, vs.size), slice(0, us.size))
    grid_u, grid_v = np.meshgrid(du, dv)
    grid_u, grid_v = grid_u.astype(np.float32), grid_v.astype(np.float32)
    above = grid_v < 1e-4
    if above.any() and materials:
        out.cover(everything, above, sky(tex, grid_u[above], -grid_v[above]))
    # Far, but finite: the headlights are computed for these points, too.
    out.points[above] = (0.0, 50.0, 500.0)
    below = ~above
    if below.any():
        gu, gv = grid_u[below], grid_v[below]
        z = np.minimum(CAMERA_HEIGHT / gv, 2000.0)
        x = gu * z
        out.put(everything, below, np.stack([x, np.zeros_like(x), z], axis=1), (0.0, 1.0, 0.0))
        if materials:
            out.cover(everything, below, ground(tex, x, z, z * z * step / CAMERA_HEIGHT))
    _end_of_street(out, tex, layout, du, dv)
    for house in sorted(layout.buildings, key=lambda b: -b.z0):
        _gable(out, tex, house, du, dv)
        _front(out, tex, house, du, dv, step)
    return out


def _span(values: Floats, low: float, high: float) -> slice:
    return slice(int(np.searchsorted(values, low)), int(np.searchsorted(values, high, side="right")))


def _end_of_street(out: _Samples, tex: Textures, layout: Layout, du: Floats, dv: Floats) -> None:
    """A house across the far end, which closes the view."""
    end = Building(1, 0.0, 0.0, 26.0, 17.0, 3.3, 2.4, (0.30, 0.34, 0.38), False, False, 0.3, 400)
    where = (
        _span(dv, (CAMERA_HEIGHT - end.height) / STREET_END, CAMERA_HEIGHT / STREET_END),
        _span(du, -16.0 / STREET_END, 10.0 / STREET_END),
    )
    gu, gv = np.meshgrid(du[where[1]] * STREET_END, CAMERA_HEIGHT - dv[where[0]] * STREET_END)
    if not gu.size:
        return
    x, y = gu.ravel().astype(np.float32), gv.ravel().astype(np.float32)
    mask = np.ones(gu.shape, np.bool_)
    out.put(where, mask, np.stack([x, y, np.full_like(x, STREET_END)], axis=1), (0.0, 0.0, -1.0))
    if out.materials:
        out.cover(where, mask, facade(tex, end, x + 16.0, y, np.full_like(x, 0.3)))


def _front(out: _Samples, tex: Textures, house: Building, du: Floats, dv: Floats, step: float) -> None:
    near, far = house.front / house.z0, house.front / house.z1
    columns = _span(du, min(near, far), max(near, far))
    z = house.front / du[columns]
    tallest = house.height + 1.5
    rows = _span(dv, (CAMERA_HEIGHT - tallest) / house.z0, CAMERA_HEIGHT / house.z0)
    if not z.size or not dv[rows].size:
        return
    y = CAMERA_HEIGHT - dv[rows][:, None] * z[None, :]
    s = np.broadcast_to(z - house.z0, y.shape)
    stacks = np.mod(house.number, 3) + 1
    roof = np.full(z.shape, house.height)
    for k in range(int(stacks)):
        middle = house.z0 + (k + 0.6) * (house.z1 - house.z0) / (stacks + 0.2)
        roof = np.where(np.abs(z - middle) < 0.5, house.height + 1.3, roof)
    mask = (y >= 0.0) & (y < roof[None, :])
    if not mask.any():
        return
    ym, sm = y[mask].astype(np.float32), s[mask].astype(np.float32)
    zm = sm + np.float32(house.z0)
    where = (rows, columns)
    points = np.stack([np.full_like(ym, house.front), ym, zm], axis=1)
    out.put(where, mask, points, (float(-house.side), 0.0, 0.0))
    if out.materials:
        footprint = np.maximum(zm * zm * step / abs(house.front), zm * step)
        out.cover(where, mask, facade(tex, house, sm, ym, footprint))


def _gable(out: _Samples, tex: Textures, house: Building, du: Floats, dv: Floats) -> None:
    edges = sorted((house.front / house.z0, (house.front + house.side * 14.0) / house.z0))
    where = (
        _span(dv, (CAMERA_HEIGHT - house.height) / house.z0, CAMERA_HEIGHT / house.z0),
        _span(du, edges[0], edges[1]),
    )
    gu, gv = np.meshgrid(du[where[1]] * house.z0, CAMERA_HEIGHT - dv[where[0]] * house.z0)
    if not gu.size:
        return
    x, y = gu.ravel().astype(np.float32), gv.ravel().astype(np.float32)
    mask = np.ones(gu.shape, np.bool_)
    out.put(where, mask, np.stack([x, y, np.full_like(x, house.z0)], axis=1), (0.0, 0.0, -1.0))
    if out.materials:
        out.cover(where, mask, gable(tex, house, x, y))


def _sheen(layout: Layout, points: Floats, normals: Floats) -> Floats:
    """Reflections of the lamps in the damp road: (..., 3) BGR radiance."""
    total = np.zeros(points.shape, np.float32)
    on_ground = normals[..., 1] > 0.5
    p = points[on_ground]
    view = np.asarray((0.0, CAMERA_HEIGHT, 0.0), np.float32) - p
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    grazing = (1.0 - view[:, 1]) ** 4
    streaks = np.zeros_like(p)
    for lamp in layout.lamps:
        to = np.asarray(lamp.position, np.float32) - p
        d2 = (to * to).sum(axis=1)
        half = view + to / np.sqrt(d2)[:, None]
        cosine = half[:, 1] / np.linalg.norm(half, axis=1)
        lobe = np.clip(cosine, 0.0, 1.0) ** 110 * grazing * (0.32 * lamp.power / (d2 + 8.0))
        streaks += lobe[:, None] * np.asarray(lamp.color, np.float32)
    # Dry in front of the camera, where the streaks of all lamps would meet.
    total[on_ground] = streaks * ramp(p[:, 2], 11.0, 30.0)[:, None]
    return total


def render_backdrop(layout: Layout, tex: Textures, pinhole: Pinhole) -> Backdrop:
    """Shade the empty street at twice the resolution, then average it down."""
    w, h = pinhole.width, pinhole.height
    radiance = np.empty((h, w, 3), np.float32)
    albedo = np.empty((h, w, 3), np.float32)
    temperature = np.empty((h, w), np.float32)
    us = ((np.arange(w * _OVERSAMPLE) + 0.5) / _OVERSAMPLE).astype(np.float32)
    u1 = (np.arange(w) + 0.5).astype(np.float32)
    for top in range(0, h, _BAND):
        n = min(_BAND, h - top)
        vs = (top + (np.arange(n * _OVERSAMPLE) + 0.5) / _OVERSAMPLE).astype(np.float32)
        fine = _cast(layout, tex, pinhole, us, vs, materials=True)
        v1 = (top + np.arange(n) + 0.5).astype(np.float32)
        rough = _cast(layout, tex, pinhole, u1, v1, materials=False)
        irradiance = lamp_field(layout.lamps, rough.points, rough.normals) + np.asarray(AMBIENT, np.float32)
        # Irradiance changes slowly across a surface: one sample per pixel is enough, materials need four.
        irradiance_fine = cv2.resize(irradiance, (us.size, vs.size), interpolation=cv2.INTER_LINEAR)
        shaded = fine.albedo * irradiance_fine + fine.emission
        glints = _sheen(layout, rough.points, rough.normals)
        rows = slice(top, top + n)
        radiance[rows] = cv2.resize(shaded, (w, n), interpolation=cv2.INTER_AREA) + glints
        albedo[rows] = cv2.resize(fine.albedo, (w, n), interpolation=cv2.INTER_AREA)
        temperature[rows] = cv2.resize(fine.temperature, (w, n), interpolation=cv2.INTER_AREA)
        _haze(rough.points, radiance[rows], temperature[rows])
    step = max(1, round(w / 160))
    cw, ch = -(-w // step), -(-h // step)
    uc = ((np.arange(cw) + 0.5) * w / cw).astype(np.float32)
    vc = ((np.arange(ch) + 0.5) * h / ch).astype(np.float32)
    coarse = _cast(layout, tex, pinhole, uc, vc, materials=False)
    return Backdrop(radiance, albedo, temperature, coarse.points, coarse.normals)


def _haze(points: Floats, radiance: Floats, temperature: Floats) -> None:
    """Haze by distance: scattered lamp light for one camera, the temperature of the air for the other."""
    far = points[..., 2]
    solid = far < 499.0
    clear = np.where(solid, np.exp(-far / 260.0), 1.0).astype(np.float32)
    radiance *= clear[..., None]
    radiance += (1.0 - clear)[..., None] * np.asarray((0.006, 0.008, 0.011), np.float32)
    temperature += np.where(solid, (1.0 - np.exp(-far / 400.0)) * (AIR - temperature), 0.0).astype(np.float32)
