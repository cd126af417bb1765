"""Distillation: a small network learns the pictures of a large one.

The teacher runs once, before training: on each pair and on variants of it with other tones, polarity, illumination and
size. Training sees patches of those, with noise on the sources only.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, write_bytes
from ufuser.runtime.images import as_float, as_uint8, read_grey, write_image
from ufuser.runtime.progress import Progress
from ufuser.runtime.structs import load_json

from ..checkpoint import digest, find_checkpoint, load_model
from ..data import Image, Pair, resized, retoned
from ..losses import DirectLoss, sobel
from ..models import shape_multiple
from ..networks import Network, at_any_size, load_sensing_pair
from ..processes import SINGLE, Processes, first_alone
from ..recipe import Recipe
from ..sections import DataRecipe, DistillRecipe, LossRecipe, Section
from ..setup import Setup, digests
from .objective import Task, Terms

MIN_EDGE = 128
"""Pixels of the shorter edge below which a variant is not shrunk."""
_KEY_FILE = "taught.json"


@dataclass(frozen=True)
class DistillExample:
    """A pair, or a variant of one, and the teacher's picture of it."""

    name: str
    ir: Path
    vi: Path
    target: Path

    @property
    def images(self) -> tuple[Path, Path, Path]:
        """The student's inputs and its target."""
        return self.ir, self.vi, self.target


class DistillObjective:
    """A student against its teacher's picture, and against the sources by the direct terms that have a weight.

    The images are infrared, visible and the teacher's picture.

    Args:
        sensing: EMMA's A_i and A_v, frozen, where the recipe's `sensing` is above 0.
    """

    def __init__(
        self,
        recipe: DistillRecipe,
        direct: LossRecipe,
        processes: Processes = SINGLE,
        sensing: Sequence[Network] = (),
    ) -> None:
        if bool(recipe.sensing) != bool(sensing):
            given = "modules are" if sensing else "no module is"
            raise InputError(
                f"[distill] 'sensing' is {recipe.sensing:g} and {given} given: "
                "expected --sensing-ir and --sensing-vi where it is above 0, and only there"
            )
        self._recipe = recipe
        self._processes = processes
        self._direct = DirectLoss(direct)
        self._sensing = sensing

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        return self._terms(network, images, rng, self._processes)[0]

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        terms, fused = self._terms(network, images, rng, SINGLE)
        return terms, [*images, fused]

    def _terms(
        self,
        network: Network,
        images: Sequence[Tensor],
        rng: np.random.Generator,
        processes: Processes,
    ) -> tuple[Terms, Tensor]:
        ir, vi, target = images
        fused = network(ir, vi)
        difference = fused - target
        terms = {
            "level": self._recipe.level * difference.abs().mean(),
            "detail": self._recipe.gradient * sobel(difference).abs().mean(),  # the gradient is linear
        }
        if self._recipe.steady:
            noisy = [x + noise_like(x, self._recipe.shake, rng, processes) for x in (ir, vi)]
            gain = noise_passed_on(fused, network(*noisy), self._recipe.shake)
            terms["steady"] = self._recipe.steady * gain
        for name, module, source in zip(("sensing_ir", "sensing_vi"), self._sensing, (ir, vi), strict=False):
            terms[name] = self._recipe.sensing * (module(fused) - source).abs().mean()
        return terms | self._direct.weighted(fused, ir, vi), fused


def noise_like(x: Tensor, sigma: float, rng: np.random.Generator, processes: Processes) -> Tensor:
    """Gaussian noise for B×C×H×W; the same whether one process holds the batch or several share it."""
    shape = len(x) * processes.world_size, *x.shape[1:]
    drawn = rng.standard_normal(shape, dtype=np.float32)[processes.part] * np.float32(sigma)
    return torch.from_numpy(drawn).to(x.device, x.dtype)


def noise_passed_on(fused: Tensor, noisy: Tensor, sigma: float) -> Tensor:
    """Mean change of the fused picture by noise on both sources, as a multiple of that noise's own mean; B×1×H×W.

    The mean of both sources gives 0.71, either of them 1, their sum 1.4.
    """
    return (noisy - fused).abs().mean() / (sigma * math.sqrt(2 / math.pi))


def find_teacher(wanted: str) -> tuple[nn.Module, str]:
    """A fusion network by the name of its shipped weights or by a checkpoint, and the checkpoint's digest.

    Raises InputError for anything else.
    """
    path = find_checkpoint(Path(wanted), "teacher", "fusion")
    model, _ = load_model(path)
    return model, digest(path)


def student_data(data: DataRecipe) -> DataRecipe:
    """The augmentation that is left for patches: tones and sizes are in the teacher's pictures already."""
    return msgspec.structs.replace(
        data, gamma=(1.0, 1.0), gain=(1.0, 1.0), scale=(1.0, 1.0), invert=0.0, dark=0.0, blur=0.0
    )


class PicturesKey(Section, frozen=True):
    """Everything that the teacher's pictures depend on beside the pairs."""

    teacher: str
    """Digest of its checkpoint."""
    seed: int
    scale: tuple[float, float]
    gamma: tuple[float, float]
    gain: tuple[float, float]
    shared_jitter: bool
    invert: float
    dark: float
    blur: float


@dataclass(frozen=True)
class TeacherPictures:
    """The teacher's pictures, in a folder; written once, and reused by later runs with the same key."""

    folder: Path
    recipe: Recipe
    teacher: nn.Module
    digest: str
    """Of the teacher's checkpoint."""
    device: torch.device

    def write(
        self, pairs: Sequence[Pair], variants: int, print_line: Callable[[str], None]
    ) -> list[DistillExample]:
        """Each pair and its variants, with the teacher's picture; files that exist are kept.

        Raises:
            InputError: a folder with the pictures of another teacher or recipe; one that cannot be written.
        """
        self._claim()
        network = at_any_size(self.teacher.to(self.device), shape_multiple(self.teacher))
        wanted = [(self._example(pair, k), pair, k) for pair in pairs for k in range(variants)]
        missing = [job for job in wanted if not all(path.is_file() for path in job[0].images)]
        if missing:
            print_line(f"{len(missing)} pictures of the teacher to make in {self.folder}")
        with Progress("teacher's pictures", len(missing)) as progress:
            for example, pair, k in missing:
                ir, vi = self._variant(pair, k)
                with torch.no_grad():
                    inputs = (torch.from_numpy(x)[None, None].to(self.device) for x in (ir, vi))
                    target = network(*inputs)[0, 0].cpu().numpy()
                # The teacher's picture comes last: where it exists, the others are whole.
                for path, image in zip(example.images, (ir, vi, target), strict=True):
                    write_image(path, _as_8bit(image), durable=False)
                progress.step()
        return [example for example, _, _ in wanted]

    def _example(self, pair: Pair, k: int) -> DistillExample:
        ir, vi, target = (self.folder / f"{pair.name}_{k}_{side}.png" for side in ("ir", "vi", "taught"))
        return DistillExample(pair.name, ir, vi, target)

    def _variant(self, pair: Pair, k: int) -> tuple[Image, Image]:
        """The k-th variant as the files will hold it, in 256 levels; the 0th is the pair itself."""
        ir, vi = (as_float(read_grey(path)) for path in (pair.ir, pair.vi))
        if k:
            data = self.recipe.data
            seed = int.from_bytes(hashlib.sha256(pair.name.encode()).digest()[:8], "little")
            rng = np.random.default_rng([self.recipe.seed, seed, k])
            scale = max(rng.uniform(*data.scale), min(1.0, MIN_EDGE / min(ir.shape)))
            size = [round(n * scale) for n in ir.shape]
            ir, vi = retoned(resized(ir, *size), resized(vi, *size), data, rng)
        a, b = (as_float(_as_8bit(x)) for x in (ir, vi))
        return a, b

    def _claim(self) -> None:
        """Check that the folder has this key, or give it to an empty one."""
        data = {name: getattr(self.recipe.data, name) for name in PicturesKey.__struct_fields__[2:]}
        key = PicturesKey(self.digest, self.recipe.seed, **data)
        key_file = self.folder / _KEY_FILE
        if key_file.is_file():
            if load_json(key_file, PicturesKey) != key:
                raise InputError(
                    f"{self.folder} holds pictures of another teacher or recipe: give another --teacher-pictures"
                )
            return
        make_folder(self.folder)
        if any(self.folder.iterdir()):
            raise InputError(
                f"{self.folder} holds other files: give an empty or new folder as --teacher-pictures"
            )
        write_bytes(key_file, msgspec.json.format(msgspec.json.encode(key)))


def _as_8bit(image: Image) -> np.ndarray:
    return as_uint8(np.clip(image, 0, 1))


def prepare(setup: Setup, section: DistillRecipe, args: argparse.Namespace) -> Task:
    """Have the teacher make its pictures, and train the student on them."""
    recipe = setup.recipe
    sensing = load_sensing_pair(args.sensing_ir, args.sensing_vi, recipe.optim.precision, setup.device)
    objective = DistillObjective(section, recipe.loss, setup.processes, sensing)
    teacher, teacher_digest = find_teacher(args.teacher)
    folder = args.teacher_pictures or args.out / "teacher"
    pictures = TeacherPictures(folder, recipe, teacher, teacher_digest, setup.device)
    with first_alone(setup.processes):
        training = pictures.write(setup.training, section.variants, setup.print)
        validation = pictures.write(setup.validation, 1, setup.print)
    modules = digests(sensing_ir=args.sensing_ir, sensing_vi=args.sensing_vi)
    origin = {"teacher": teacher_digest, **modules}
    return setup.task(objective, training, validation, student_data(recipe.data), origin)
