"""Distillation: a small network learns the pictures that a large one makes.

The teacher is asked once, before training: about each pair as it is and about variants of it with other tones,
polarity, light and size. What training sees are patches of those, with noise on the sources only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ufuser.runtime.errors import InputError

from .checkpoint import load_model, write_atomically
from .data import Image, Pair, as_float, read_grey, resized, retoned
from .losses import DirectLoss, sobel
from .models import shape_multiple
from .objective import Terms, at_any_size
from .precision import Network
from .processes import ALONE, Share
from .recipe import DataRecipe, DistillRecipe, LossRecipe, Recipe

SHIPPED = Path(__file__).parent / "weights"
LEAST_EDGE = 128  # pixels that shrinking leaves
_NOTES = "taught.json"


@dataclass(frozen=True)
class TaughtExample:
    """A pair, or a variant of one, and the teacher's picture of it."""

    name: str
    ir: Path
    vi: Path
    taught: Path

    @property
    def images(self) -> tuple[Path, Path, Path]:
        """What the student takes, and what it shall answer."""
        return self.ir, self.vi, self.taught


class DistillObjective:
    """A student against its teacher's picture, and against the sources by the terms that the recipe weighs.

    The first image is infrared, the second visible and, as its second channel, the teacher's picture. `sensing` are
    EMMA's A_i and A_v, frozen, where the recipe weighs what they see in the student's picture.
    """

    def __init__(
        self,
        recipe: DistillRecipe,
        direct: LossRecipe,
        share: Share = ALONE,
        sensing: tuple[Network, ...] = (),
    ) -> None:
        if bool(recipe.sensing) != bool(sensing):
            raise InputError(
                f"[distill] 'sensing' is {recipe.sensing:g} and "
                f"{'modules are' if sensing else 'no module is'} given: expected --sensing-ir and --sensing-vi "
                "where it is above 0, and only there"
            )
        self._recipe = recipe
        self._share = share
        self._direct = DirectLoss(direct)
        self._sensing = sensing

    def train(self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator) -> Terms:
        return self._terms(network, first, second, rng, self._share)[0]

    def validate(
        self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        terms, fused = self._terms(network, first, second, rng, ALONE)
        return terms, [first, second[:, :1], second[:, 1:], fused]

    def _terms(
        self, network: Network, ir: Tensor, second: Tensor, rng: np.random.Generator, share: Share
    ) -> tuple[Terms, Tensor]:
        vi, taught = second[:, :1].contiguous(), second[:, 1:].contiguous()
        fused = network(ir, vi)
        off = fused - taught
        terms = {
            "level": self._recipe.level * off.abs().mean(),
            "detail": self._recipe.gradient * sobel(off).abs().mean(),  # the gradient is linear
        }
        if self._recipe.steady:
            shaken = [x + noise_like(x, self._recipe.shake, rng, share) for x in (ir, vi)]
            gain = noise_passed_on(fused, network(*shaken), self._recipe.shake)
            terms["steady"] = self._recipe.steady * gain
        for name, module, source in zip(("sensing_ir", "sensing_vi"), self._sensing, (ir, vi), strict=False):
            terms[name] = self._recipe.sensing * (module(fused) - source).abs().mean()
        weights = vars(self._direct.recipe)
        if any(weights[name] for name in ("intensity", "gradient", "ssim")):
            terms |= {k: v for k, v in self._direct(fused, ir, vi).items() if weights[k]}
        return terms, fused


def noise_like(x: Tensor, sigma: float, rng: np.random.Generator, share: Share) -> Tensor:
    """Gaussian noise for B×C×H×W; processes that share a batch draw together what one would."""
    shape = len(x) * share.size, *x.shape[1:]
    drawn = rng.standard_normal(shape, dtype=np.float32)[share.part] * np.float32(sigma)
    return torch.from_numpy(drawn).to(x.device, x.dtype)


def noise_passed_on(fused: Tensor, shaken: Tensor, sigma: float) -> Tensor:
    """Mean change of the picture, B×1×H×W, by noise on both sources, as a multiple of that noise's own mean.

    The mean of both sources gives 0.71, either of them 1, their sum 1.4.
    """
    return (shaken - fused).abs().mean() / (sigma * math.sqrt(2 / math.pi))


def find_teacher(wanted: str) -> tuple[nn.Module, str]:
    """A fusion network by the name of its shipped weights or by a checkpoint, and the checkpoint's digest.

    Raises InputError for what is neither.
    """
    path = Path(wanted)
    if not path.suffix and len(path.parts) == 1:
        path = SHIPPED / f"{wanted}.safetensors"
        if not path.is_file():
            names = sorted(p.stem for p in SHIPPED.glob("*.safetensors"))
            raise InputError(f"--teacher {wanted}: expected one of {', '.join(names)}, or a checkpoint")
    model, _ = load_model(path)
    return model, hashlib.sha256(path.read_bytes()).hexdigest()


def learning_data(data: DataRecipe) -> DataRecipe:
    """What is left to do to patches: the tones are in the pictures that the teacher has answered to."""
    return replace(data, gamma=(1.0, 1.0), gain=(1.0, 1.0), scale=(1.0, 1.0), invert=0.0, dark=0.0, blur=0.0)


@dataclass(frozen=True)
class Lessons:
    """Pictures to learn from, in a folder; written once, and found again by a later run that asks for the same."""

    folder: Path
    recipe: Recipe
    teacher: nn.Module
    digest: str  # of the teacher's checkpoint
    device: torch.device

    def write(self, pairs: Sequence[Pair], variants: int, say: Callable[[str], None]) -> list[TaughtExample]:
        """Each pair as it is, and its variants; what is there already is not made again.

        Raises:
            InputError: a folder with the pictures of another teacher or recipe; one that can't be written.
        """
        self._claim()
        multiple = shape_multiple(self.teacher)
        network = at_any_size(self.teacher.to(self.device), multiple)
        wanted = [(pair, k) for pair in pairs for k in range(variants)]
        missing = [
            (pair, k) for pair, k in wanted if not all(p.is_file() for p in self._example(pair, k).images)
        ]
        if missing:
            say(f"{len(missing)} pictures of the teacher to make in {self.folder}")
        for pair, k in tqdm(missing, unit="picture", dynamic_ncols=True, disable=not missing):
            ir, vi = self._variant(pair, k)
            with torch.no_grad():
                images = (torch.from_numpy(x)[None, None].to(self.device) for x in (ir, vi))
                taught = network(*images)[0, 0].cpu().numpy()
            # The picture that is learnt comes last: where it is, the others are whole.
            for path, image in zip(self._example(pair, k).images, (ir, vi, taught), strict=True):
                write_atomically(path, _png(image))
        return [self._example(pair, k) for pair, k in wanted]

    def _example(self, pair: Pair, k: int) -> TaughtExample:
        ir, vi, taught = (self.folder / f"{pair.name}_{k}_{side}.png" for side in ("ir", "vi", "taught"))
        return TaughtExample(pair.name, ir, vi, taught)

    def _variant(self, pair: Pair, k: int) -> tuple[Image, Image]:
        """The k-th variant as the files will hold it, in 256 levels; the 0th is the pair itself."""
        ir, vi = (as_float(read_grey(path)) for path in (pair.ir, pair.vi))
        if k:
            data = self.recipe.data
            seed = int.from_bytes(hashlib.sha256(pair.name.encode()).digest()[:8], "little")
            rng = np.random.default_rng([self.recipe.seed, seed, k])
            scale = max(rng.uniform(*data.scale), min(1.0, LEAST_EDGE / min(ir.shape)))
            size = [round(n * scale) for n in ir.shape]
            ir, vi = retoned(resized(ir, *size), resized(vi, *size), data, rng)
        a, b = (as_float(_levels(x)) for x in (ir, vi))
        return a, b

    def _claim(self) -> None:
        """See that the folder is of this teacher and this recipe, or make it so."""
        settings = asdict(self.recipe.data)
        kept = ("scale", "gamma", "gain", "shared_jitter", "invert", "dark", "blur")
        own = {"teacher": self.digest, "seed": self.recipe.seed} | {k: settings[k] for k in kept}
        text = json.dumps(own, sort_keys=True, indent=1)
        notes = self.folder / _NOTES
        if notes.is_file():
            if notes.read_text(encoding="utf-8") != text:
                raise InputError(
                    f"{self.folder} holds pictures of another teacher or recipe: give another --lessons"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"cannot make the folder {self.folder}: {e.strerror}") from None
        if any(self.folder.iterdir()):
            raise InputError(f"{self.folder} holds other files: give an empty or new folder as --lessons")
        write_atomically(notes, text.encode())


def _levels(image: Image) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _png(image: Image) -> bytes:
    done, data = cv2.imencode(".png", _levels(image), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return data.tobytes()
