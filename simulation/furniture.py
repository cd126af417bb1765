"""Street furniture: lamps, trees, signs, a junction box. Drawn once; it hides what passes behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ufuser.simulation.geometry import Floats, Pinhole, Vec3
from ufuser.simulation.illumination import AMBIENT, SODIUM, Lamp, lamp_field
from ufuser.simulation.layout import FRONT_RIGHT, KERB_RIGHT, POST_HEIGHT, Layout, Post, Tree
from ufuser.simulation.paint import Canvas, Patch


@dataclass(frozen=True, slots=True)
class Fixture:
    """One object for both cameras: the same outline, two values."""

    visible: Patch
    """(h, w, 3) BGR radiance."""
    thermal: Patch
    """(h, w, 1) degrees Celsius."""


_Polygon = tuple[Floats, tuple[float, float, float], float]
"""World points (n, 3), BGR radiance, degrees Celsius."""


def fixtures(layout: Layout, pinhole: Pinhole) -> tuple[Fixture, ...]:
    """Everything that stands on the pavements, far to near."""
    built: list[Fixture | None] = []
    built += [_post(layout.lamps, p, pinhole) for p in layout.posts]
    built += [_tree(layout.lamps, t, pinhole) for t in layout.trees]
    built += [_sign(z, text, color, pinhole) for z, text, color in layout.signs]
    built.append(_junction_box(layout.lamps, pinhole))
    built += [_traffic_sign(layout.lamps, x, z, pinhole) for x, z in ((2.75, 27.6), (-9.2, 32.8))]
    return tuple(sorted((f for f in built if f is not None), key=lambda f: -f.visible.depth))


def _lit(lamps: tuple[Lamp, ...], at: Vec3, albedo: Vec3) -> tuple[float, float, float]:
    irradiance = lamp_field(lamps, np.asarray(at, np.float32), None) + np.asarray(AMBIENT, np.float32)
    return (
        float(albedo[0] * irradiance[0]),
        float(albedo[1] * irradiance[1]),
        float(albedo[2] * irradiance[2]),
    )


def _from_polygons(polygons: list[_Polygon], depth: float, pinhole: Pinhole) -> Fixture | None:
    pixels = [pinhole.project(p)[0] for p, _, _ in polygons]
    everything = np.concatenate(pixels)
    frame = (pinhole.width, pinhole.height)
    visible, thermal = Canvas(everything, frame, 3), Canvas(everything, frame, 1)
    if visible.empty:
        return None
    for flat, (_, color, temperature) in zip(pixels, polygons, strict=True):
        visible.shape(flat, color)
        thermal.shape(flat, (temperature,))
    return Fixture(visible.patch(depth), thermal.patch(depth))


def _bar(a: Vec3, b: Vec3, wa: float, wb: float) -> Floats:
    """A flat bar facing the camera from a to b with half widths wa and wb: (4, 3)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    n = math.hypot(dx, dy) + 1e-9
    ox, oy = -dy / n, dx / n
    return np.asarray(
        [
            (a[0] + ox * wa, a[1] + oy * wa, a[2]),
            (b[0] + ox * wb, b[1] + oy * wb, b[2]),
            (b[0] - ox * wb, b[1] - oy * wb, b[2]),
            (a[0] - ox * wa, a[1] - oy * wa, a[2]),
        ],
        np.float32,
    )


def _post(lamps: tuple[Lamp, ...], post: Post, pinhole: Pinhole) -> Fixture | None:
    polygons: list[_Polygon] = []
    joints = [(post.x, y, post.z) for y in (0.0, 1.2, 2.6, 4.2, 5.8)]
    for k in range(1, 6):
        f = k / 5
        joints.append(
            (
                post.x + post.reach * (1 - math.cos(f * math.pi / 2)) * 0.85,
                5.8 + (POST_HEIGHT - 5.7) * math.sin(f * math.pi / 2),
                post.z,
            )
        )
    head_x = post.x + post.reach
    joints.append((head_x, POST_HEIGHT + 0.1, post.z))
    for k, (a, b) in enumerate(pairwise(joints)):
        w = 0.075 if k < 5 else 0.05
        color = _lit(lamps, (a[0] - 0.3, a[1], a[2] - 0.5), (0.20, 0.21, 0.20))
        polygons.append((_bar(a, b, w, w), color, 7.6))
        shine = _bar((a[0] + w * 0.4, a[1], a[2]), (b[0] + w * 0.4, b[1], b[2]), w * 0.25, w * 0.25)
        polygons.append((shine, (color[0] * 2, color[1] * 2, color[2] * 2), 7.8))
    base = _bar((post.x, 0.0, post.z), (post.x, 0.9, post.z), 0.12, 0.11)
    polygons.append((base, _lit(lamps, (post.x, 0.5, post.z - 0.5), (0.16, 0.17, 0.16)), 9.5))
    d = math.copysign(1.0, post.reach)
    y = POST_HEIGHT
    shell = [(-0.42, 0.04), (-0.34, 0.15), (0.20, 0.18), (0.40, 0.07), (0.42, 0.0), (-0.42, 0.0)]
    points = np.asarray([(head_x + px * d, y + py, post.z) for px, py in shell], np.float32)
    polygons.append((points, (0.012, 0.018, 0.022), 30.0))
    bowl = [(-0.34, 0.0), (0.36, 0.0), (0.26, -0.09), (-0.22, -0.10)]
    points = np.asarray([(head_x + px * d, y + py, post.z) for px, py in bowl], np.float32)
    polygons.append((points, (SODIUM[0] * 26, SODIUM[1] * 26, SODIUM[2] * 26), 38.0))
    return _from_polygons(polygons, post.z, pinhole)


def _tree(lamps: tuple[Lamp, ...], tree: Tree, pinhole: Pinhole) -> Fixture | None:
    rng = np.random.default_rng((tree.seed, 5))
    trunk_h = tree.height * 0.36
    crown = np.asarray((tree.x, tree.height * 0.66, tree.z), np.float32)
    size = np.asarray((tree.height * 0.24, tree.height * 0.34, tree.height * 0.24), np.float32)
    # Leaves in clumps around the ends of branches: an irregular outline with gaps.
    clumps = rng.normal(size=(26, 3))
    clumps /= np.linalg.norm(clumps, axis=1, keepdims=True)
    clumps = crown + size * clumps * rng.uniform(0.35, 0.95, (26, 1))
    count = int(np.clip(60_000 / tree.z, 500, 2600))
    leaves = clumps[rng.integers(0, 26, count)] + rng.normal(size=(count, 3)) * size * 0.20
    leaves = np.asarray(leaves[np.argsort(-leaves[:, 2])], np.float32)
    irradiance = lamp_field(lamps, np.asarray(leaves, np.float32), None) + np.asarray(AMBIENT, np.float32)
    depth_in = np.linalg.norm((leaves - crown) / size, axis=1)
    shade = np.clip(0.35 + 0.65 * depth_in, 0.3, 1.2) * rng.uniform(0.6, 1.3, count)
    colors = irradiance * np.asarray((0.035, 0.13, 0.085), np.float32) * shade[:, None]
    temperatures = 7.4 + rng.normal(size=count) * 0.35 + 0.5 * (1 - depth_in)

    bark = _lit(lamps, (tree.x, 1.5, tree.z - 0.5), (0.07, 0.09, 0.11))
    wood: list[_Polygon] = [
        (_bar((tree.x, 0, tree.z), (tree.x, trunk_h, tree.z), 0.20, 0.13), bark, 9.2),
    ]
    for clump in clumps[:12]:
        end = (float(clump[0]), float(clump[1]), float(clump[2]))
        start = (tree.x, trunk_h * float(rng.uniform(0.8, 1.0)), tree.z)
        wood.append((_bar(start, end, 0.09, 0.02), bark, 8.6))
    edge = 0.16 * (2000 / count) ** 0.5
    angle = rng.uniform(0, 2 * math.pi, count)
    axis = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1) * edge
    across = np.stack([-np.sin(angle), np.cos(angle), np.zeros(count)], axis=1) * edge * 0.5
    quads = np.stack([leaves + axis, leaves + across, leaves - axis, leaves - across], axis=1)
    pixels, _ = pinhole.project(quads.astype(np.float32))
    stems = [pinhole.project(points)[0] for points, _, _ in wood]
    everything = np.concatenate([pixels.reshape(-1, 2), *stems])
    frame = (pinhole.width, pinhole.height)
    visible, thermal = Canvas(everything, frame, 3), Canvas(everything, frame, 1)
    if visible.empty:
        return None
    for flat, (_, color, temperature) in zip(stems, wood, strict=True):
        visible.polygon(flat, color)
        thermal.polygon(flat, (temperature,))
    outlines = visible.fixed(pixels)  # valid for both canvases, which lie around the same points
    for outline, color, temperature in zip(outlines, colors.tolist(), temperatures.tolist(), strict=True):
        visible.fill(outline, color)
        thermal.fill(outline, (temperature,))
    return Fixture(visible.patch(tree.z), thermal.patch(tree.z))


def _sign(z: float, text: str, color: Vec3, pinhole: Pinhole) -> Fixture | None:
    """A lit box with letters at a facade; only the visible camera sees the letters."""
    width = min(0.20 * len(text) + 0.25, 1.9)
    x1 = FRONT_RIGHT - 0.10
    x0, y0, y1 = x1 - width, 3.35, 3.85
    box = np.asarray([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], np.float32)
    arm = _bar((x0, y1 + 0.06, z), (FRONT_RIGHT, y1 + 0.06, z), 0.025, 0.025)
    inner = box + np.asarray(
        [(0.04, 0.04, 0), (-0.04, 0.04, 0), (-0.04, -0.04, 0), (0.04, -0.04, 0)], np.float32
    )
    pixels = pinhole.project(box)[0]
    everything = np.concatenate([pixels, pinhole.project(arm)[0]])
    frame = (pinhole.width, pinhole.height)
    visible, thermal = Canvas(everything, frame, 3), Canvas(everything, frame, 1)
    if visible.empty:
        return None
    glow = [0.10 * c + 0.01 for c in color]
    for canvas, dark, face in ((visible, (0.01, 0.01, 0.01), glow), (thermal, (8.5,), [11.5])):
        canvas.polygon(pinhole.project(arm)[0], dark)
        canvas.polygon(pixels, dark)
        canvas.polygon(pinhole.project(inner)[0], face)
    visible.text(text, pixels[3], pixels[1], [2.6 * c + 0.25 for c in color])
    return Fixture(visible.patch(z), thermal.patch(z))


def _junction_box(lamps: tuple[Lamp, ...], pinhole: Pinhole) -> Fixture | None:
    """A power cabinet on the pavement: dark in the visible picture, warm in the thermal one."""
    x0, x1, z, top = KERB_RIGHT + 0.35, KERB_RIGHT + 1.15, 13.2, 1.15
    color = _lit(lamps, (x0, 0.7, z - 0.4), (0.06, 0.08, 0.065))
    dark = (color[0] * 0.5, color[1] * 0.5, color[2] * 0.5)
    front = np.asarray([(x0, 0, z), (x1, 0, z), (x1, top, z), (x0, top, z)], np.float32)
    side = np.asarray([(x0, 0, z), (x0, 0, z + 0.4), (x0, top, z + 0.4), (x0, top, z)], np.float32)
    middle = (x0 + x1) / 2
    polygons: list[_Polygon] = [(side, dark, 14.0), (front, color, 17.0)]
    for a, b in ((x0 + 0.06, middle - 0.03), (middle + 0.03, x1 - 0.06)):
        door = np.asarray([(a, 0.1, z), (b, 0.1, z), (b, top - 0.1, z), (a, top - 0.1, z)], np.float32)
        polygons.append((door, (color[0] * 1.25, color[1] * 1.25, color[2] * 1.25), 18.5))
    for k in range(4):
        y = 0.80 + 0.05 * k
        polygons.append((_bar((x0 + 0.12, y, z), (middle - 0.1, y, z), 0.012, 0.012), dark, 23.0))
    return _from_polygons(polygons, z, pinhole)


def _traffic_sign(lamps: tuple[Lamp, ...], x: float, z: float, pinhole: Pinhole) -> Fixture | None:
    """A retroreflective pedestrian-crossing sign."""
    pole = _bar((x, 0.0, z), (x, 2.9, z), 0.03, 0.03)
    irradiance = _lit(lamps, (x, 2.5, z - 2.0), (1.0, 1.0, 1.0))
    grey = (irradiance[0] * 0.2, irradiance[1] * 0.2, irradiance[2] * 0.2)
    blue = (0.06 + irradiance[0] * 0.6, 0.02 + irradiance[1] * 0.15, 0.004 + irradiance[2] * 0.03)
    white = (0.08 + irradiance[0] * 0.7, 0.08 + irradiance[1] * 0.7, 0.08 + irradiance[2] * 0.7)
    plate = np.asarray(
        [(x - 0.3, 2.3, z), (x + 0.3, 2.3, z), (x + 0.3, 2.9, z), (x - 0.3, 2.9, z)], np.float32
    )
    tri = np.asarray([(x - 0.22, 2.36, z), (x + 0.22, 2.36, z), (x, 2.82, z)], np.float32)
    man = _bar((x, 2.42, z), (x, 2.66, z), 0.05, 0.03)
    polygons: list[_Polygon] = [
        (pole, grey, 7.5),
        (plate, blue, 6.2),
        (tri, white, 6.1),
        (man, (0.004, 0.004, 0.004), 6.2),
    ]
    return _from_polygons(polygons, z, pinhole)
