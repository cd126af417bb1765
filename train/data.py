"""Infrared-visible pairs from two folders, and the patches that training sees.

A batch is a function of (seed, step) alone, so that a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .recipe import DataRecipe

Image = NDArray[np.float32]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"}
SMALLEST = 16  # pixels an edge: the network halves three times and reflects at the borders


@dataclass(frozen=True)
class Pair:
    """Two registered images of one scene."""

    name: str
    ir: Path
    vi: Path


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
    """The release's test: 10th to 90th percentile span under 10 % of the 90th."""
    low, high = np.percentile(patch, (10, 90))
    return bool(high - low < 0.1 * high)


class PatchSampler:
    """Cuts patches on the fly: shrunk, flipped, rotated by right angles, photometrically jittered."""

    def __init__(self, pairs: list[Pair], recipe: DataRecipe, seed: int) -> None:
        self._pairs, self._recipe, self._seed = pairs, recipe, seed
        self._cache: dict[int, tuple[NDArray, NDArray]] = {}
        self._room = recipe.cache_mib << 20

    def batch(self, step: int, size: int) -> tuple[Image, Image]:
        """The patches of one step: ir and vi, size×1×crop×crop, float32 in [0, 1]."""
        rng = np.random.default_rng([self._seed, step])
        patches = [self._patch(rng) for _ in range(size)]
        ir, vi = (np.stack(side)[:, None] for side in zip(*patches, strict=True))
        return np.ascontiguousarray(ir), np.ascontiguousarray(vi)

    def _load(self, index: int) -> tuple[NDArray, NDArray]:
        if index in self._cache:
            return self._cache[index]
        images = read_grey(self._pairs[index].ir), read_grey(self._pairs[index].vi)
        size = sum(i.nbytes for i in images)
        if size <= self._room:
            self._room -= size
            self._cache[index] = images
        return images

    def _patch(self, rng: np.random.Generator) -> tuple[Image, Image]:
        for attempt in range(20):
            ir, vi = self._cut(rng)
            if attempt == 19 or not (_low_contrast(ir) or _low_contrast(vi)):
                break
        turns, flip = int(rng.integers(4)), int(rng.integers(2))
        ir, vi = (np.rot90(x, turns)[:, :: 1 - 2 * flip] for x in (ir, vi))
        if rng.random() < self._recipe.invert:
            ir = 1 - ir
        return self._jitter(ir, rng), self._jitter(vi, rng)

    def _cut(self, rng: np.random.Generator) -> tuple[Image, Image]:
        ir, vi = self._load(int(rng.integers(len(self._pairs))))
        crop = self._recipe.crop
        height, width = ir.shape
        # An image smaller than the patch is enlarged until its shorter side fills it.
        scale = max(rng.uniform(*self._recipe.scale), crop / height, crop / width)
        span = round(crop / scale)  # pixels of the source that become the patch
        top, left = rng.integers(height - span + 1), rng.integers(width - span + 1)
        cut = (as_float(x[top : top + span, left : left + span]) for x in (ir, vi))
        way = cv2.INTER_AREA if span > crop else cv2.INTER_LINEAR
        a, b = (x if span == crop else cv2.resize(x, (crop, crop), interpolation=way) for x in cut)
        return a, b  # type: ignore[return-value]

    def _jitter(self, patch: Image, rng: np.random.Generator) -> Image:
        r = self._recipe
        patch = patch ** np.float32(_log_uniform(rng, r.gamma)) * np.float32(_log_uniform(rng, r.gain))
        sigma = rng.uniform(0, r.noise)
        patch = patch + rng.standard_normal(patch.shape, dtype=np.float32) * np.float32(sigma)
        clipped: Image = np.clip(patch, 0, 1, dtype=np.float32)
        return clipped
