"""The transformation group of EMMA's equivariance prior: shifts, rotations and reflections
(Zhao et al., "Equivariant Multi-Modality Image Fusion", section 3.3.4, and its released code).

Cyclic shifts, reflections, and rotations of a square image by right angles have an exact inverse. A rotation by another
angle leaves corners without image content: `valid` is 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .processes import SINGLE, Processes
from .sections import TransformRecipe


class Transformation(Protocol):
    """T_g: an image B×C×H×W to one of the same size."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def valid(self, x: Tensor) -> Tensor:
        """B×1×H×W: 1 where T_g x comes from the image, 0 where it comes from beyond the border."""
        ...


def _everywhere(x: Tensor) -> Tensor:
    return torch.ones_like(x[:, :1])


@dataclass(frozen=True)
class Shift:
    """Cyclic shift in pixels."""

    down: int
    right: int

    def __call__(self, x: Tensor) -> Tensor:
        return x.roll((self.down, self.right), (-2, -1))

    def valid(self, x: Tensor) -> Tensor:
        return _everywhere(x)


@dataclass(frozen=True)
class Reflection:
    """Left and right swapped, top and bottom, or both. Its own inverse."""

    horizontal: bool
    vertical: bool

    def __call__(self, x: Tensor) -> Tensor:
        return x.flip([axis for axis, on in ((-1, self.horizontal), (-2, self.vertical)) if on])

    def valid(self, x: Tensor) -> Tensor:
        return _everywhere(x)


@dataclass(frozen=True)
class Rotation:
    """Anti-clockwise about the centre, bilinear; beyond the border the image is mirrored.

    The release fills with black. The loss masks these corners, but the networks see them, and their attention covers
    the whole image: a mirrored corner looks like a camera's image.
    """

    degrees: float

    def __call__(self, x: Tensor) -> Tensor:
        turns = self._right_angles(x)
        if turns is not None:
            return x.rot90(turns, (-2, -1))
        grid = self._sources(x).expand(len(x), -1, -1, -1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def valid(self, x: Tensor) -> Tensor:
        if self._right_angles(x) is not None:
            return _everywhere(x)
        height, width = x.shape[-2:]
        # Pixels all of whose four neighbours are there: the grid's ±1 is half a pixel beyond the last centre.
        limit = torch.tensor([1 - 1 / width, 1 - 1 / height], device=x.device) + 1e-5
        inside = (self._sources(x).abs() <= limit).all(-1)
        return inside[:, None].to(x.dtype).expand(len(x), -1, -1, -1)

    def _right_angles(self, x: Tensor) -> int | None:
        """The number of right angles, where they keep the size: those need no interpolation."""
        turns, rest = divmod(self.degrees, 90)
        keeps_size = x.shape[-2] == x.shape[-1] or turns % 2 == 0
        return int(turns) % 4 if rest == 0 and keeps_size else None

    def _sources(self, x: Tensor) -> Tensor:
        """The source position of each pixel, 1×H×W×2, in the units of `grid_sample` (borders at ±1)."""
        height, width = x.shape[-2:]
        down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] - (height - 1) / 2
        right = torch.arange(width, device=x.device, dtype=x.dtype)[None] - (width - 1) / 2
        cosine, sine = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        across = (cosine * right - sine * down) * (2 / width)
        along = (sine * right + cosine * down) * (2 / height)
        return torch.stack((across, along), dim=-1)[None]


REFLECTIONS = (Reflection(True, False), Reflection(False, True), Reflection(True, True))


class TransformationGroup:
    """Draws transformations by the recipe and applies them to batches."""

    def __init__(self, recipe: TransformRecipe) -> None:
        self._recipe = recipe

    @property
    def full(self) -> bool:
        """Whether every image gets every transformation, the identity included, as in the release."""
        return self._recipe.mode == "full"

    def draw_full(self, height: int, width: int, rng: np.random.Generator) -> list[Transformation]:
        """The release's set without the identity: random shifts, fixed angles from 10° on, reflections."""
        r = self._recipe
        numbers = range(r.rotations)
        angles = [90 * (1 + k % 3) if r.right_angles else 10 + k * (360 // r.rotations) for k in numbers]
        return [
            *(self._shift(height, width, rng) for _ in range(r.shifts)),
            *(Rotation(a) for a in angles),
            *REFLECTIONS[: r.reflections],
        ]

    def draw_one(self, height: int, width: int, rng: np.random.Generator) -> Transformation:
        """One transformation of a random kind among those of the recipe."""
        r = self._recipe
        kinds: list[Callable[[], Transformation]] = []
        if r.shifts:
            kinds.append(lambda: self._shift(height, width, rng))
        if r.rotations:
            kinds.append(lambda: self._rotation(rng))
        if r.reflections:
            kinds.append(lambda: REFLECTIONS[int(rng.integers(r.reflections))])
        return kinds[int(rng.integers(len(kinds)))]()

    def apply(
        self, x: Tensor, rng: np.random.Generator, processes: Processes = SINGLE
    ) -> tuple[Tensor, Tensor]:
        """Transformed images and where they are valid, both N·B×1×H×W, one whole batch after the other.

        N is 9 in full mode with the release's numbers (the identity is left out), else `count`: there each
        image of the batch gets a transformation of its own, the same whether one process holds the batch or
        several share it.
        """
        height, width = x.shape[-2:]
        if self.full:
            drawn = [(t, x) for t in self.draw_full(height, width, rng)]
        else:
            drawn = []
            total = len(x) * processes.world_size
            for _ in range(self._recipe.count):
                everyone = [self.draw_one(height, width, rng) for _ in range(total)]
                drawn += zip(everyone[processes.part], x.tensor_split(len(x)), strict=True)
        return torch.cat([t(y) for t, y in drawn]), torch.cat([t.valid(y) for t, y in drawn])

    def _shift(self, height: int, width: int, rng: np.random.Generator) -> Shift:
        return Shift(int(rng.integers(1, height)), int(rng.integers(1, width)))

    def _rotation(self, rng: np.random.Generator) -> Rotation:
        if self._recipe.right_angles:
            return Rotation(90 * int(rng.integers(1, 4)))
        return Rotation(float(rng.uniform(1, 359)))
