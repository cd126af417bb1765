"""Moving people and cars. Everything is a function of time only, so any moment can be rendered directly.

Cars and crossings repeat every `CYCLE` seconds, on a timetable without collisions. One person crosses in the dark
between two cars: visible in infrared only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ufuser.simulation.carmesh import KINDS, Mesh, build
from ufuser.simulation.geometry import Vec3
from ufuser.simulation.layout import LANE_ONCOMING, LANE_OUTGOING, PAINTS, Layout
from ufuser.simulation.people import STRIDE, Look, Person
from ufuser.simulation.vehicles import Vehicle

CYCLE = 48.0
"""Seconds."""

_SKINS: tuple[Vec3, ...] = ((0.28, 0.36, 0.52), (0.20, 0.28, 0.42), (0.09, 0.13, 0.22), (0.16, 0.22, 0.34))
_HAIRS: tuple[Vec3, ...] = ((0.015, 0.017, 0.020), (0.03, 0.05, 0.09), (0.10, 0.16, 0.24), (0.22, 0.22, 0.22))
_JACKETS: tuple[Vec3, ...] = (
    (0.06, 0.05, 0.34),
    (0.30, 0.12, 0.05),
    (0.08, 0.30, 0.38),
    (0.12, 0.20, 0.08),
    (0.38, 0.38, 0.38),
    (0.20, 0.08, 0.22),
)
_TROUSERS: tuple[Vec3, ...] = ((0.09, 0.06, 0.04), (0.05, 0.05, 0.05), (0.13, 0.16, 0.18), (0.14, 0.09, 0.06))


@dataclass(frozen=True, slots=True)
class _Route:
    """Way points (seconds in the cycle, x, z), walked in straight lines."""

    points: tuple[tuple[float, float, float], ...]

    def at(self, t: float) -> tuple[float, float]:
        times = [p[0] for p in self.points]
        x = float(np.interp(t, times, [p[1] for p in self.points]))
        return x, float(np.interp(t, times, [p[2] for p in self.points]))

    def walked(self, t: float) -> float:
        """Metres from the start."""
        total = 0.0
        for (t0, x0, z0), (t1, x1, z1) in pairwise(self.points):
            part = min(max((t - t0) / (t1 - t0), 0.0), 1.0)
            total += part * math.hypot(x1 - x0, z1 - z0)
        return total


_OUT_OF_THE_DARK = _Route(((-3.4, -9.2, 9.2), (7.1, 5.0, 9.6), (16.0, 5.0, 9.2), (26.5, -9.2, 8.8)))
_ZEBRA = _Route(
    ((6.0, -11.9, 32.5), (8.4, -9.5, 30.6), (18.0, -9.45, 30.5), (28.4, 3.2, 30.0), (45.0, 3.9, 8.0))
)
_PASSES_ONCOMING = (8.8, 18.0, 31.0, 42.5)
"""Seconds in the cycle at which a car passes 12 m before the camera."""
_PASSES_OUTGOING = (-1.2, 12.0, 29.5, 36.5)
_FAR = 138.0


@dataclass(frozen=True, slots=True)
class _Stroller:
    """A person who walks along a pavement, endlessly."""

    look: Look
    x: float
    speed: float
    """Metres per second, negative towards the camera."""
    start: float
    """Metres along the loop at t = 0."""


@dataclass(frozen=True, slots=True)
class _Driver:
    mesh: Mesh
    paint: Vec3
    x: float
    passes: float
    speed: float


class Cast:
    """The people and cars of one seed."""

    def __init__(self, seed: int, layout: Layout) -> None:
        rng = np.random.default_rng((seed, 2))
        # The person in the dark wears dark clothes with every seed.
        self._dark = Look(
            1.80,
            _SKINS[2],
            _HAIRS[0],
            (0.046, 0.043, 0.042),
            (0.040, 0.034, 0.032),
            (0.02, 0.02, 0.02),
            24.5,
            False,
            False,
        )
        self._pair = (_look(rng), _look(rng))
        self._waiting = _look(rng)
        meshes = {kind: build(kind) for kind in KINDS}
        self._parked = tuple(
            Vehicle(f"parked{i}", meshes[p.kind], p.paint, p.x, p.z, p.toward, p.warmth, False)
            for i, p in enumerate(layout.parked)
        )
        spots = (
            (4.0, -1.28, 21.0),
            (-11.3, 1.22, 30.0),
            (-9.75, -1.36, 22.0),
            (4.35, 1.15, 26.0),
            (-11.1, -1.1, 44.0),
        )
        self._strollers = tuple(
            _Stroller(_look(rng), x, v * float(rng.uniform(0.94, 1.06)), s + float(rng.uniform(-1.5, 1.5)))
            for x, v, s in spots
        )
        kinds = np.asarray(["sedan", "hatch", "sedan", "van"])
        self._drivers = tuple(
            _Driver(
                meshes[str(kinds[(i + int(rng.integers(3))) % 4])],
                PAINTS[int(rng.integers(len(PAINTS)))],
                lane + float(rng.uniform(-0.12, 0.12)),
                float(at),
                toward * float(rng.uniform(9.0, 9.8)),
            )
            for lane, toward, times in (
                (LANE_ONCOMING, -1.0, _PASSES_ONCOMING),
                (LANE_OUTGOING, 1.0, _PASSES_OUTGOING),
            )
            for i, at in enumerate(times)
        )

    @property
    def parked(self) -> tuple[Vehicle, ...]:
        """Cars that stand at the kerbs all the time."""
        return self._parked

    def people(self, t: float) -> list[Person]:
        """People on the street at t seconds, far to near."""
        out: list[Person] = []
        phase = math.fmod(t, CYCLE)
        for name, route, look, dx, dz in (
            ("dark", _OUT_OF_THE_DARK, self._dark, 0.0, 0.0),
            ("pair0", _ZEBRA, self._pair[0], 0.0, 0.0),
            ("pair1", _ZEBRA, self._pair[1], 0.25, 0.72),
        ):
            person = _on_route(name, route, look, phase, dx, dz)
            if person is not None:
                out.append(person)
        for i, s in enumerate(self._strollers):
            z = 7.0 + math.fmod(math.fmod(s.start - 7.0 + s.speed * t, 80.0) + 80.0, 80.0)
            gait = 2 * math.pi * abs(s.speed) * t / (STRIDE * s.look.height / 1.75) + 1.7 * i
            heading = 0.0 if s.speed > 0 else math.pi
            x = s.x + 0.12 * math.sin(z * 0.35 + i)
            out.append(Person(f"stroller{i}", s.look, x, z, heading, gait, 1.0, min(1.0, (87.0 - z) / 5.0)))
        sway = 0.25 * math.sin(t * 0.7) + 0.1 * math.sin(t * 1.9)
        out.append(Person("waiting", self._waiting, 4.75, 17.0, -2.0 + sway, 0.4 * math.sin(t * 0.5), 0.12))
        return sorted((p for p in out if p.presence > 0.0), key=lambda p: -p.z)

    def vehicles(self, t: float) -> list[Vehicle]:
        """Moving vehicles at t seconds, far to near, also behind the camera; without parked cars."""
        out = []
        for i, d in enumerate(self._drivers):
            # One of its passes is within half a cycle of t.
            since = math.fmod(t - d.passes, CYCLE)
            since = since - CYCLE if since > CYCLE / 2 else since + CYCLE if since < -CYCLE / 2 else since
            z = 12.0 + d.speed * since
            toward = math.copysign(1.0, d.speed)
            # Headlights illuminate the street long before their car passes the camera from behind.
            behind = -36.0 if toward > 0 else -8.0
            if behind < z < _FAR:
                presence = min(1.0, (_FAR - z) / 12.0, (z - behind) / 20.0 if toward > 0 else 1.0)
                rolled = abs(d.speed) * since
                out.append(Vehicle(f"car{i}", d.mesh, d.paint, d.x, z, toward, 1.0, True, rolled, presence))
        return sorted(out, key=lambda v: -v.z)


def _look(rng: np.random.Generator) -> Look:
    return Look(
        height=float(rng.uniform(1.60, 1.88)),
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        hair=_HAIRS[int(rng.integers(len(_HAIRS)))],
        jacket=_JACKETS[int(rng.integers(len(_JACKETS)))],
        trousers=_TROUSERS[int(rng.integers(len(_TROUSERS)))],
        shoes=(0.03, 0.03, 0.03),
        jacket_temperature=float(rng.uniform(21.0, 25.5)),
        long_coat=bool(rng.random() < 0.4),
        bag=bool(rng.random() < 0.3),
    )


def _on_route(name: str, route: _Route, look: Look, phase: float, dx: float, dz: float) -> Person | None:
    first, last = route.points[0][0], route.points[-1][0]
    t = phase if phase <= last else phase - CYCLE
    if not first <= t <= last:
        return None
    # Differences over half a second make people turn and stop smoothly.
    x, z = route.at(t)
    xa, za = route.at(t - 0.25)
    xb, zb = route.at(t + 0.25)
    moved = math.hypot(xb - xa, zb - za)
    heading = math.atan2(xb - xa, zb - za) if moved > 1e-3 else math.pi / 2
    gait = 2 * math.pi * route.walked(t) / (STRIDE * look.height / 1.75) + 3.0 * dx
    swing = min(1.0, moved / 0.5)
    return Person(
        name, look, x + dx, z + dz, heading, gait, swing, min(1.0, (t - first) / 0.8, (last - t) / 0.5)
    )
