"""Infrared-visible pairs from two folders, and the patches that training sees.

A patch is a function of (seed, step, its place in the batch) alone, so that a resumed run sees what an unbroken
one would have, and processes that share a batch see together what one process would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.shapes import SMALLEST

from .recipe import DataRecipe

Image = NDArray[np.float32]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"}
DARKEST = (0.1, 0.5)  # of its level, what low light leaves of a visible picture


@dataclass(frozen=True)
class Pair:
    """Two registered images of one scene."""

    name: str
    ir: Path
    vi: Path

    @property
    def images(self) -> tuple[Path, Path]:
        """What the fusion network takes, in its order."""
        return self.ir, self.vi


class Example(Protocol):
    """Two or more images of one scene and size that patches are cut from together.

    The first two are seen by cameras; any further ones are answers that go with them.
    """

    @property
    def name(self) -> str: ...

    @property
    def images(self) -> tuple[Path, ...]: ...


def read_grey(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An image's luma (BT.601) as H×W, 8 or 16 bit. Raises InputError for what can't be decoded whole."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None
    # OpenCV fills the missing part of a JPEG with grey, silently: look for the end after the last scan.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise InputError(f"{path} is truncated: the JPEG's end is missing")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, a size beyond OpenCV's limits
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"cannot read {path} as an 8- or 16-bit image")
    return image  # type: ignore[return-value]


def as_float(image: NDArray[np.uint8] | NDArray[np.uint16]) -> Image:
    """Integers to float32 in [0, 1]."""
    scaled: Image = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return scaled


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
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        found[side] = {f.stem: f for f in files}
        problems += [f"{side}/ holds more than one {f.stem}" for f in files if found[side][f.stem] != f]
    problems += [f"{stem} is only in ir/" for stem in found["ir"] if stem not in found["vi"]]
    problems += [f"{stem} is only in vi/" for stem in found["vi"] if stem not in found["ir"]]
    pairs = [Pair(s, found["ir"][s], found["vi"][s]) for s in sorted(set(found["ir"]) & set(found["vi"]))]
    for pair in pairs:
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
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise InputError(f"{root}: {'; '.join(problems[:5])}{more}")
    if not pairs:
        raise InputError(f"no images in {root}/ir and {root}/vi (looked for {', '.join(sorted(SUFFIXES))})")
    return pairs


def split_pairs(pairs: list[Pair], validation: Path) -> tuple[list[Pair], list[Pair]]:
    """(training, validation): those named in the list, one stem a line, are for validation only."""
    try:
        lines = validation.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise InputError(f"cannot read the validation list {validation}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the validation list {validation} is not UTF-8 text") from None
    names = {line.strip() for line in lines} - {""}
    absent = sorted(names - {p.name for p in pairs})
    if absent:  # a misspelt name would put its pair into training
        more = f" (and {len(absent) - 5} more)" if len(absent) > 5 else ""
        raise InputError(f"{validation} names pairs that are not there: {', '.join(absent[:5])}{more}")
    kept = [p for p in pairs if p.name in names]
    rest = [p for p in pairs if p.name not in names]
    if not kept or not rest:
        raise InputError(
            f"{validation} names {len(kept)} of the {len(pairs)} pairs: "
            "expected at least one on each side of the split"
        )
    return rest, kept


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

    def batch(self, step: int, size: int, part: slice = slice(None)) -> tuple[Image, Image]:
        """The patches of one step: both images (ir and vi), B×1×crop×crop, float32 in [0, 1].

        B is `size`, or less where only a part of the batch is asked for. Answers are further channels of the
        second image.
        """
        places = range(size)[part]
        patches = [self._patch(np.random.default_rng([self._seed, step, 3, k])) for k in places]
        return in_two([np.stack(side)[:, None] for side in zip(*patches, strict=True)])

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
        turns, flip = int(rng.integers(4)), int(rng.integers(2))
        first, second, *answers = (np.rot90(x, turns)[:, :: 1 - 2 * flip] for x in patches)
        seen = (noisy(x, self._recipe, rng) for x in retoned(first, second, self._recipe, rng))
        return [*seen, *answers]

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


def in_two(images: Sequence[Image]) -> tuple[Image, Image]:
    """B×1×H×W images as a first one and the rest, whose channels are joined."""
    first, *rest = (np.ascontiguousarray(x) for x in images)
    return first, rest[0] if len(rest) == 1 else np.concatenate(rest, axis=1)


def resized(image: Image, height: int, width: int) -> Image:
    """By area where it shrinks, linearly where it grows."""
    if image.shape == (height, width):
        return image
    way = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    scaled: Image = cv2.resize(image, (width, height), interpolation=way)  # type: ignore[assignment]
    return scaled


def retoned(first: Image, second: Image, recipe: DataRecipe, rng: np.random.Generator) -> tuple[Image, Image]:
    """What other cameras might have seen of the scene, without their noise; H×W in [0, 1]."""
    if rng.random() < recipe.invert:
        first = 1 - first
    if recipe.dark and rng.random() < recipe.dark:
        second = second * np.float32(_log_uniform(rng, DARKEST))
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
