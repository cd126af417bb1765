"""The street at night: static layers, people and vehicles at any moment, for both cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufuser.simulation import vehicles
from ufuser.simulation.actors import Cast
from ufuser.simulation.backdrop import render_backdrop
from ufuser.simulation.furniture import Fixture, fixtures
from ufuser.simulation.geometry import NEAR_Z, Floats, Pinhole
from ufuser.simulation.illumination import beams_at, lamps_at
from ufuser.simulation.layout import plan
from ufuser.simulation.paint import Patch, composite
from ufuser.simulation.people import Person
from ufuser.simulation.surfaces import Textures
from ufuser.simulation.vehicles import Vehicle

STREET_TEMPERATURE = 11.5
"""Degrees Celsius of the road below parked cars."""


@dataclass(frozen=True, slots=True)
class Box:
    """Ground truth: position of an object in the picture."""

    name: str
    """Stable over time: "dark" is the person who crosses in the dark."""
    kind: str
    """"person" or "vehicle"."""
    x0: float
    y0: float
    x1: float
    y1: float
    """Pixels; may reach beyond the frame."""
    depth: float
    """Metres."""


class Scene:
    """A street of one seed at one picture size, with its static layers rendered once.

    A scene is read-only after construction: both cameras of a pair can share one.

    Args:
        seed: chooses houses, colours, people and cars.
        width, height: of the pictures, pixels.
    """

    def __init__(self, seed: int, width: int, height: int) -> None:
        self.seed = seed
        self.pinhole = Pinhole(width, height)
        self.layout = plan(seed)
        self.cast = Cast(seed, self.layout)
        drop = render_backdrop(self.layout, Textures.of(seed), self.pinhole)
        self.radiance: Floats = drop.radiance
        """(H, W, 3) BGR linear radiance of the empty street."""
        self.albedo: Floats = drop.albedo
        """(H, W, 3) BGR, which headlights illuminate."""
        self.temperature: Floats = drop.temperature[..., None]
        """(H, W, 1) apparent temperature of the empty street, degrees Celsius."""
        self.coarse_points, self.coarse_normals = drop.coarse_points, drop.coarse_normals
        standing = list(fixtures(self.layout, self.pinhole))
        for car in self.cast.parked:
            under = vehicles.underneath(car, self.pinhole, (0.0, 0.0, 0.0), 0.8)
            if under is not None:
                composite(self.radiance, under)
            warm = vehicles.underneath(car, self.pinhole, (STREET_TEMPERATURE + 1.0 + 5.0 * car.warmth,), 0.5)
            if warm is not None:
                composite(self.temperature, warm)
            place = (car.x, 1.0, car.z)
            lamps, beams = lamps_at(self.layout.lamps, place), beams_at((), place)
            visible = vehicles.visible(car, self.pinhole, lamps, beams)
            thermal = vehicles.thermal(car, self.pinhole, STREET_TEMPERATURE)
            if visible is not None and thermal is not None:
                standing.append(Fixture(visible, thermal))
        standing.sort(key=lambda f: -f.visible.depth)
        for fixture in standing:
            composite(self.radiance, fixture.visible)
            composite(self.temperature, fixture.thermal)
            dull = Patch(
                fixture.visible.x,
                fixture.visible.y,
                fixture.visible.alpha[..., None] * np.float32(0.04),
                fixture.visible.alpha,
                fixture.visible.depth,
            )
            composite(self.albedo, dull)
        self.covers: tuple[Patch, ...] = tuple(f.visible for f in standing)
        """Fixed objects that can hide moving ones."""

    def people(self, t: float) -> list[Person]:
        """People at t seconds, far to near."""
        return self.cast.people(t)

    def vehicles(self, t: float) -> list[Vehicle]:
        """Moving vehicles at t seconds, far to near; those behind the camera illuminate the street, too."""
        return self.cast.vehicles(t)

    def boxes(self, t: float) -> list[Box]:
        """Image boxes of all people and of moving vehicles wholly ahead at t seconds, far to near."""
        out = []
        for person in self.people(t):
            r, top = 0.28, person.look.height
            out.append(self._box(person.name, "person", person.x, person.z, r, top, r))
        for car in self.vehicles(t):
            if car.z - car.mesh.half_length > NEAR_Z:
                out.append(
                    self._box(car.name, "vehicle", car.x, car.z, 0.95, car.mesh.height, car.mesh.half_length)
                )
        return sorted(out, key=lambda b: -b.depth)

    def _box(self, name: str, kind: str, x: float, z: float, r: float, top: float, half: float) -> Box:
        corners = np.asarray(
            [(x + dx, y, z + dz) for dx in (-r, r) for y in (0.0, top) for dz in (-half, half)], np.float32
        )
        uv, _ = self.pinhole.project(corners)
        (x0, y0), (x1, y1) = uv.min(axis=0), uv.max(axis=0)
        return Box(name, kind, float(x0), float(y0), float(x1), float(y1), z)
