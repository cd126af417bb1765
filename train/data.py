"""Infrared-visible pairs from two folders, and the patches that training sees.

A patch is a function of (seed, step, its place in the batch) alone: a resumed run sees the patches of an unbroken one,
and processes that share a batch see together those of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder
from ufuser.runtime.images import READABLE, as_float, read_grey, write_image
from ufuser.runtime.shapes import SMALLEST
from ufuser.runtime.thermal.still import is_raw, read_infrared

from .sections import DataRecipe

Image = NDArray[np.float32]
LOW_LIGHT = (0.1, 0.5)  # factor of the visible picture's level in low light


@dataclass(frozen=True)
class Pair:
    """Two registered images of one scene."""

    name: str
    ir: Path
    vi: Path
    raw: bool = False
    """The infrared picture holds raw counts of a camera."""

    @property
    def images(self) -> tuple[Path, Path]:
        """The inputs of a fusion network, in its order."""
        return self.ir, self.vi


class Example(Protocol):
    """Two or more images of one scene and size, from which patches are cut at the same place.

    The first two are from cameras and are augmented; any further ones are targets.
    """

    @property
    def name(self) -> str: ...

    @property
    def images(self) -> tuple[Path, ...]: ...


def is_picture(path: Path) -> bool:
    """Whether the suffix is one of a picture that can be read."""
    return path.suffix.lower() in READABLE


def find_pairs(root: Path) -> list[Pair]:
    """Pairs of root/ir and root/vi by file stem, in the order of their names.

    Files without a partner or with another's stem, unreadable files, pairs of different sizes and images
    under 16 pixels are reported, by name (the first five), in one InputError before training starts.
    """
    found: dict[str, dict[str, Path]] = {}
    problems = []
    for side in ("ir", "vi"):
        folder = root / side
        if not folder.is_dir():
            raise InputError(
                f"no folder {folder}: expected {root}/ir and {root}/vi with equally named images"
            )
        files = sorted(filter(is_picture, folder.iterdir()))
        found[side] = {f.stem: f for f in files}
        problems += [f"{side}/ holds more than one {f.stem}" for f in files if found[side][f.stem] != f]
    problems += [f"{stem} is only in ir/" for stem in found["ir"] if stem not in found["vi"]]
    problems += [f"{stem} is only in vi/" for stem in found["vi"] if stem not in found["ir"]]
    pairs = [Pair(s, found["ir"][s], found["vi"][s]) for s in sorted(set(found["ir"]) & set(found["vi"]))]
    for index, pair in enumerate(pairs):
        try:
            ir, vi = read_grey(pair.ir), read_grey(pair.vi)
        except InputError as e:
            problems.append(str(e))
            continue
        size = ["x".join(map(str, x.shape[::-1])) for x in (ir, vi)]
        if ir.shape != vi.shape:
            problems.append(f"{pair.name} is {size[0]} in infrared and {size[1]} in visible")
        elif min(ir.shape) < SMALLEST:
            problems.append(f"{pair.name} is {size[0]}, smaller than {SMALLEST}x{SMALLEST}")
        pairs[index] = replace(pair, raw=is_raw(ir))
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise InputError(f"{root}: {'; '.join(problems[:5])}{more}")
    if not pairs:
        raise InputError(f"no images in {root}/ir and {root}/vi (looked for {', '.join(READABLE)})")
    return pairs


def tone_mapped_pairs(pairs: list[Pair], folder: Path, write: bool) -> list[Pair]:
    """The pairs, with 8-bit pictures in the folder in place of raw counts.

    Args:
        pairs: see `find_pairs`.
        folder: for the pictures; made where it is needed.
        write: False only names the files, which another process writes.
    """
    if write and any(pair.raw for pair in pairs):
        make_folder(folder)
    found = []
    for pair in pairs:
        picture = folder / f"{pair.name}.png"
        if pair.raw and write:
            write_image(picture, read_infrared(pair.ir), durable=False)
        found.append(replace(pair, ir=picture) if pair.raw else pair)
    return found


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _low_contrast(patch: Image) -> bool:
    """The release's test: 10th to 90th percentile span under 10 % of the 90th.

    Equality counts: in a black patch both are 0, and the release's "<" takes it for one with contrast.
    """
    low, high = np.percentile(patch, (10, 90))
    return bool(high - low <= 0.1 * high)


class PatchSampler:
    """Cuts patches on the fly: shrunk, flipped, rotated by right angles, photometrically jittered."""

    def __init__(self, examples: Sequence[Example], recipe: DataRecipe, seed: int) -> None:
        self._examples, self._recipe, self._seed = examples, recipe, seed
        self._cache: dict[Path, NDArray] = {}
        self._room = recipe.cache_mib << 20

    def batch(self, step: int, size: int, part: slice = slice(None)) -> list[Image]:
        """The patches of one step: each image of the examples, B×1×crop×crop, float32 in [0, 1].

        B is `size`, or less where only a part of the batch is taken.
        """
        places = range(size)[part]
        patches = [self._patch(np.random.default_rng([self._seed, step, 3, k])) for k in places]
        return [np.ascontiguousarray(np.stack(side)[:, None]) for side in zip(*patches, strict=True)]

    def _load(self, path: Path) -> NDArray:
        if path in self._cache:
            return self._cache[path]
        image = read_grey(path)
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._cache[path] = image
        return image

    def _patch(self, rng: np.random.Generator) -> list[Image]:
        for attempt in range(20):
            patches = self._cut(rng)
            if attempt == 19 or not any(map(_low_contrast, patches[:2])):
                break
        quarter_turns, flip = int(rng.integers(4)), int(rng.integers(2))
        first, second, *targets = (np.rot90(x, quarter_turns)[:, :: 1 - 2 * flip] for x in patches)
        sources = (noisy(x, self._recipe, rng) for x in retoned(first, second, self._recipe, rng))
        return [*sources, *targets]

    def _cut(self, rng: np.random.Generator) -> list[Image]:
        example = self._examples[int(rng.integers(len(self._examples)))]
        images = [self._load(path) for path in example.images]
        crop, shape = self._recipe.crop, images[0].shape
        edge = min(self._recipe.margin, (min(shape) - SMALLEST) // 2)
        height, width = (n - 2 * edge for n in shape)
        # An image smaller than the patch is enlarged until its shorter side fills it.
        scale = max(rng.uniform(*self._recipe.scale), crop / height, crop / width)
        span = round(crop / scale)  # pixels of the source that become the patch
        top, left = (edge + rng.integers(n - span + 1) for n in (height, width))
        return [resized(as_float(x[top : top + span, left : left + span]), crop, crop) for x in images]


def resized(image: Image, height: int, width: int) -> Image:
    """By area where it shrinks, linearly where it grows."""
    if image.shape == (height, width):
        return image
    method = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    scaled: Image = cv2.resize(image, (width, height), interpolation=method)  # type: ignore[assignment]
    return scaled


def retoned(first: Image, second: Image, recipe: DataRecipe, rng: np.random.Generator) -> tuple[Image, Image]:
    """The scene as other cameras might record it, without their noise; H×W in [0, 1]."""
    if rng.random() < recipe.invert:
        first = 1 - first
    if recipe.dark and rng.random() < recipe.dark:
        second = second * np.float32(_log_uniform(rng, LOW_LIGHT))
    tone = _tone(recipe, rng)
    toned = (_toned(first, tone), _toned(second, tone if recipe.shared_jitter else _tone(recipe, rng)))
    if recipe.blur:
        a, b = (cv2.GaussianBlur(x, (0, 0), rng.uniform(1e-3, recipe.blur)) for x in toned)
        return a, b  # type: ignore[return-value]
    return toned


def noisy(image: Image, recipe: DataRecipe, rng: np.random.Generator) -> Image:
    """With a sensor's noise of a random strength up to the recipe's."""
    if not recipe.noise:
        return image
    sigma = np.float32(rng.uniform(0, recipe.noise))
    added = image + rng.standard_normal(image.shape, dtype=np.float32) * sigma
    clipped: Image = np.clip(added, 0, 1, dtype=np.float32)
    return clipped


def _tone(recipe: DataRecipe, rng: np.random.Generator) -> tuple[float, float]:
    """Exponent and factor of one image, or of both."""
    return _log_uniform(rng, recipe.gamma), _log_uniform(rng, recipe.gain)


def _toned(image: Image, tone: tuple[float, float]) -> Image:
    gamma, gain = (np.float32(x) for x in tone)
    clipped: Image = np.clip(image**gamma * gain, 0, 1, dtype=np.float32)
    return clipped
