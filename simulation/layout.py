"""The plan of the street, in metres: everything that does not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufuser.simulation.geometry import Vec3
from ufuser.simulation.illumination import LED, SHOP, SODIUM, Lamp

KERB_LEFT, KERB_RIGHT = -8.9, 2.4
PARKING_LEFT, PARKING_RIGHT = -6.8, -0.4
LANE_LINE = -3.6
LANE_ONCOMING, LANE_OUTGOING = -5.2, -2.0
FRONT_LEFT, FRONT_RIGHT = -12.2, 5.3
CROSSING = (28.5, 32.0)
"""The zebra crossing's near and far edge along the street."""
STREET_END = 150.0

WALLS: tuple[Vec3, ...] = (
    (0.16, 0.20, 0.34),
    (0.26, 0.33, 0.42),
    (0.30, 0.36, 0.40),
    (0.36, 0.38, 0.38),
    (0.22, 0.28, 0.40),
    (0.34, 0.33, 0.28),
)
"""Albedo, BGR: brick, sandstone, plaster."""


@dataclass(frozen=True, slots=True)
class Building:
    """A house in one of the two rows."""

    side: int
    """-1 left, +1 right."""
    front: float
    """X of the facade."""
    z0: float
    z1: float
    height: float
    storey: float
    """Height of a storey."""
    bay: float
    """Distance between windows along the street."""
    wall: Vec3
    brick: bool
    shop: bool
    warmth: float
    """Degrees Celsius of the facade above the row's mean, by its insulation."""
    number: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A street tree."""

    x: float
    z: float
    height: float
    seed: int


@dataclass(frozen=True, slots=True)
class Post:
    """A street lamp: a post at the kerb and an arm over the road."""

    x: float
    z: float
    reach: float
    """Metres from the post to the lamp head, signed."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked car: `warmth` is 1 just after a drive and 0 the next morning."""

    x: float
    z: float
    toward: float
    kind: str
    paint: Vec3
    warmth: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The plan of one street."""

    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    posts: tuple[Post, ...]
    parked: tuple[Parked, ...]
    lamps: tuple[Lamp, ...]
    signs: tuple[tuple[float, str, Vec3], ...]
    """Hanging signs on the right: Z, text, BGR colour."""


POST_HEIGHT = 6.8

PAINTS: tuple[Vec3, ...] = (
    (0.35, 0.06, 0.03),
    (0.03, 0.03, 0.42),
    (0.45, 0.45, 0.45),
    (0.04, 0.04, 0.04),
    (0.10, 0.22, 0.06),
    (0.60, 0.60, 0.58),
)


def plan(seed: int) -> Layout:
    """The street of one seed: houses, colours and gaps vary, the proportions stay."""
    rng = np.random.default_rng((seed, 1))
    buildings = _row(rng, -1) + _row(rng, +1)
    trees = tuple(
        Tree(x + float(rng.uniform(-0.2, 0.2)), z, float(rng.uniform(6.0, 8.0)), int(rng.integers(1 << 30)))
        for x, z in ((-10.3, 24.0), (-10.3, 41.0), (-10.3, 60.0), (3.4, 35.0), (3.4, 53.0), (3.4, 84.0))
    )
    posts = tuple(Post(2.75, z, -1.9) for z in (30.0, 53.0, 77.0, 101.0)) + tuple(
        Post(-9.25, z, 1.9) for z in (40.0, 64.0, 89.0, 114.0)
    )
    lamps = [Lamp((p.x + p.reach, POST_HEIGHT - 0.1, p.z), SODIUM, 58.0, True) for p in posts]
    for building in buildings:
        if building.shop and building.z0 < 70:
            z = (building.z0 + building.z1) / 2
            lamps.append(Lamp((building.front - building.side * 0.8, 1.9, z), SHOP, 1.6, False))
    text = str(rng.choice(np.asarray(["CAFE", "HOTEL", "BAR", "NOODLES", "BOOKS"])))
    color: Vec3 = ((0.9, 0.25, 1.0), (0.25, 0.35, 1.0), (1.0, 0.75, 0.15))[int(rng.integers(3))]
    lamps.append(Lamp((4.7, 3.9, 15.0), color, 0.8, False))
    paint = [PAINTS[int(i)] for i in rng.permutation(len(PAINTS))]
    parked = (
        Parked(1.25, 21.5, 1.0, "hatch", paint[0], 0.0),
        Parked(1.25, 36.0, 1.0, "sedan", paint[1], 0.2),
        Parked(-7.85, 17.5, -1.0, "sedan", (0.03, 0.03, 0.03), 1.0),
        Parked(-7.85, 25.0, -1.0, "van", paint[2], 0.0),
        Parked(-7.85, 37.0, -1.0, "hatch", paint[3], 0.5),
        Parked(-7.85, 50.0, -1.0, "sedan", paint[4], 0.0),
    )
    lamps.append(Lamp((-3.0, 5.0, STREET_END - 6.0), LED, 60.0, False))
    signs = ((15.6, text, color), (23.5, "PHARMACY", (0.35, 1.0, 0.30)))
    return Layout(buildings, trees, posts, parked, tuple(lamps), signs)


def _row(rng: np.random.Generator, side: int) -> tuple[Building, ...]:
    row: list[Building] = []
    z = 1.0
    number = 0 if side < 0 else 100
    while z < STREET_END:
        width = float(rng.uniform(9.0, 15.0))
        storey = float(rng.uniform(3.0, 3.5))
        floors = int(rng.integers(2, 6))
        front = FRONT_LEFT if side < 0 else FRONT_RIGHT
        row.append(
            Building(
                side=side,
                front=front + side * float(rng.choice(np.asarray([0.0, 0.0, 0.5, 0.9]))),
                z0=z,
                z1=z + width,
                height=0.5 + storey * floors + 0.8,
                storey=storey,
                bay=float(rng.uniform(1.9, 2.7)),
                wall=WALLS[int(rng.integers(len(WALLS)))],
                brick=bool(rng.random() < 0.5),
                shop=bool(number % 3 == (1 if side > 0 else 2)),
                warmth=float(rng.uniform(-1.0, 1.6)),
                number=number,
            )
        )
        z += width
        # A passage between some houses.
        if rng.random() < 0.3:
            z += float(rng.uniform(1.5, 3.0))
        number += 1
    return tuple(row)
