"""Sections of a recipe: each key with its type, its range and its default.

The section of an objective (`ObjectiveRecipe`) selects that objective; the other sections are common to all recipes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

# All numbers are finite: an upper bound refuses infinity.
Weight = Annotated[float, Meta(ge=0, le=1e12)]
Rate = Annotated[float, Meta(gt=0, le=1e12)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Factor = Annotated[float, Meta(ge=1e-3, le=1e3)]
Scale = Annotated[float, Meta(ge=1e-3, le=4)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a recipe."""


class DataRecipe(Section, frozen=True):
    """Where patches come from and how they are augmented."""

    validation: Annotated[str, Meta(min_length=1)] | None = (
        None  # a file beside the recipe: stems of pairs kept out of training; without it, a seeded tenth
    )
    validate_on: Count = 0  # validate on the first so many of them during training; 0 is all
    crop: Annotated[int, Meta(ge=16, multiple_of=8)] = 128  # edge of a patch in pixels
    cache_mib: Count = 2048  # decoded images kept in memory up to this
    scale: tuple[Scale, Scale] = (0.5, 1.0)  # random shrinking: detail as fine as the pixel grid carries
    gamma: tuple[Factor, Factor] = (1.0, 1.0)  # random exponent, each source on its own (log-uniform)
    gain: tuple[Factor, Factor] = (1.0, 1.0)  # random factor, each source on its own (log-uniform)
    noise: Weight = 0.0  # largest standard deviation of added noise, in [0, 1] units
    invert: Probability = 0.0  # of black-hot infrared
    dark: Probability = 0.0  # of a visible picture in low light: a tenth to a half of its level
    blur: Annotated[float, Meta(ge=0, le=16)] = (
        0.0  # largest standard deviation in pixels, each source on its own
    )
    shared_jitter: bool = False  # one exponent and factor for both images
    margin: Annotated[int, Meta(ge=0, le=64)] = 0  # border in pixels that no patch takes, if there is room

    def __post_init__(self) -> None:
        for key in ("scale", "gamma", "gain"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"'{key}' must be given as [lowest, highest], got [{low:g}, {high:g}]")


class LossRecipe(Section, frozen=True):
    """Weights of the direct loss's terms (`losses.DirectLoss`)."""

    intensity: Weight = 1.0
    gradient: Weight = 1.0
    ssim: Weight = 1.0
    target: Literal["lift", "contrast"] = "lift"  # of the intensity term (`losses.intensity_target`)
    infrared_exponent: Weight = 0.0  # "lift": p of v + i^p (i − v)₊; 0 is the pixel maximum
    warm: Weight = 1.0  # "contrast": weight of infrared above its median
    cold: Weight = 0.8  # "contrast": weight of infrared below its median

    @property
    def has_terms(self) -> bool:
        """Whether any term has a weight above 0."""
        return bool(self.intensity or self.gradient or self.ssim)


class TransformRecipe(Section, frozen=True):
    """The transformation group of EMMA's equivariance term (`transforms.TransformationGroup`)."""

    mode: Literal["sampled", "full"] = (
        "sampled"  # random ones for each image; or the release's ten of each image
    )
    count: Annotated[int, Meta(ge=1, le=64)] = 1  # sampled: transformations per image
    shifts: Annotated[int, Meta(ge=0, le=64)] = (
        3  # full: how many; sampled: 0 leaves the kind out, and so below
    )
    rotations: Annotated[int, Meta(ge=0, le=64)] = 3  # full: from 10° on, evenly; sampled: any angle
    reflections: Annotated[int, Meta(ge=0, le=3)] = 3  # the first n of horizontal, vertical, both
    right_angles: bool = False  # rotations by multiples of 90° only: no interpolation, no border

    def __post_init__(self) -> None:
        if not (self.shifts or self.rotations or self.reflections):
            raise ValueError("'shifts', 'rotations' and 'reflections' are all 0")


class OptimRecipe(Section, frozen=True):
    """The optimizer and its schedule."""

    steps: Positive = 10_000
    batch: Positive = 4
    learning_rate: Rate = 1e-3  # Adam's, after a linear warm-up
    warmup: Count = 200  # steps
    schedule: Literal["cosine", "halving"] = (
        "cosine"  # to a hundredth at the last step; or as paper and release
    )
    halve_every: Count = 0  # steps, counted from the first one; for "halving"
    clip: Rate = 1.0  # largest norm of the gradient
    ema: Probability = 0.999  # decay of the averaged weights, which are the ones kept
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: mixed precision, for devices with bfloat16 arithmetic

    def __post_init__(self) -> None:
        if (self.schedule == "halving") != bool(self.halve_every):
            raise ValueError(
                f"'halve_every' must be given with schedule = \"halving\", and only with it; "
                f"got {self.schedule!r} and {self.halve_every}"
            )


class CommonRecipe(Section, frozen=True, kw_only=True):
    """The keys and sections of every recipe."""

    name: str
    model: str
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    validate_every: Positive  # steps
    network: dict[str, Any] = {}  # options of the model (`models.create`)
    data: DataRecipe
    loss: LossRecipe = LossRecipe()
    transforms: TransformRecipe = TransformRecipe()
    optim: OptimRecipe = OptimRecipe()


class ObjectiveRecipe(Section, frozen=True):
    """Settings of an objective."""

    kinds: ClassVar[tuple[str, ...]] = ("fusion",)
    """Kinds of networks that the objective trains (`models.Model.kind`)."""

    def check(self, common: CommonRecipe) -> None:
        """Raise ValueError for keys that contradict each other, or the rest of the recipe."""


class DirectRecipe(ObjectiveRecipe, frozen=True):
    """Training against both sources directly: all its numbers are in [loss]."""


class SensingRecipe(ObjectiveRecipe, frozen=True):
    """A pseudo-sensing module A_i or A_v of EMMA, stage II (`objectives.sensing`)."""

    kinds: ClassVar[tuple[str, ...]] = ("sensing",)
    target: Literal["ir", "vi"] = "ir"  # "ir" for A_i, "vi" for A_v
    loss: Literal["mse", "l1"] = "mse"  # "mse" (release) or "l1" (paper)

    def check(self, common: CommonRecipe) -> None:
        if common.data.invert:
            raise ValueError(
                f"[data] 'invert' would separate a fused image from its source: expected 0, got {common.data.invert:g}"
            )


class EmmaRecipe(ObjectiveRecipe, frozen=True):
    """Weights of Eq. (4): alpha0·L(A_i f, i) + alpha1·L(A_v f, v) + alpha2·L(T f, F(A_i T f, A_v T f))."""

    alpha0: Weight = 1.0  # 1 in paper and release
    alpha1: Weight = 1.0  # 1 in paper and release
    alpha2: Weight = 0.1  # 10 in the paper, 0.1 in the release
    gradient: Weight = 0.0  # L = L1 + this · L1 of Sobel gradients; 0 is the paper's, 0.5 the release's
    sensing: bool = True  # False compares f itself with i and v (the paper's Exp. II)
    equivariant_batch: Count = 0  # images of the batch that the third term takes; 0 is all
    target_gradient: bool = True  # whether the third term pulls T f, too, towards the re-fused image
    input_gradient: bool = True  # whether it reaches f through A_i and A_v; without, only through F

    def check(self, common: CommonRecipe) -> None:
        if not (self.alpha0 or self.alpha1 or self.alpha2 or common.loss.has_terms):
            raise ValueError("every term of the loss has the weight 0")

    @property
    def needs_sensing(self) -> bool:
        """Whether a term of the loss needs A_i and A_v."""
        return bool(self.alpha2) or (self.sensing and bool(self.alpha0 or self.alpha1))


class DaeFuseRecipe(ObjectiveRecipe, frozen=True):
    """A phase of DAE-Fuse (`objectives.daefuse`). The paper gives none of these numbers, but 1, 1, 1 in Eq. (13)."""

    phase: Literal[1, 2] = 1  # 1: autoencoder, Eq. (6); 2: fusion, Eq. (13)
    adversarial: Weight = 0.0  # λ of phase one; the weight of Eq. (14) in phase two
    correlation: Probability = 0.0  # phase one: σ, and 1 − σ for the content
    texture: Weight = 0.0  # phase two: of Eq. (15)
    intensity: Weight = 0.0  # phase two: of Eq. (16)
    discriminator_rate: Rate = 1e-4  # Adam's, constant
    discriminator_width: Annotated[int, Meta(ge=1, le=1024)] = 16  # channels of the first of four layers

    def check(self, common: CommonRecipe) -> None:
        if common.model != "daefuse":
            raise ValueError(f"trains the model 'daefuse', got '{common.model}'")
        if common.optim.precision != "fp32":
            raise ValueError(f"[optim] 'precision' must be fp32, got {common.optim.precision!r}")
        if self.phase == 1 and (self.texture or self.intensity):
            raise ValueError("'texture' and 'intensity' belong to phase 2")
        if self.phase == 2 and self.correlation:
            raise ValueError("'correlation' belongs to phase 1")
        if self.phase == 2 and not (self.texture or self.intensity):
            raise ValueError("phase 2 has neither 'texture' nor 'intensity'")


class FNetRecipe(ObjectiveRecipe, frozen=True):
    """A stage of FNet's training (`objectives.fnet`): weights of Eq. (25) or Eq. (26)."""

    kinds: ClassVar[tuple[str, ...]] = ("fusion", "pair")
    stage: Literal[1, 2] = 1  # 1: FNet and IFNet recover both sources; 2: FNet against both sources
    intensity: Weight = 1.0  # 1 in stage I, 20 in stage II
    gradient: Weight = 1.0  # likewise; of Sobel kernels 1-2-1, which give 4 at a unit step
    ssim: Weight = 0.0  # 15 in stage II; stage I has no such term

    def check(self, common: CommonRecipe) -> None:
        expected = "fnet_pair" if self.stage == 1 else "fnet"
        if common.model != expected:
            raise ValueError(f"stage {self.stage} trains the model '{expected}', got '{common.model}'")
        if self.stage == 1 and self.ssim:
            raise ValueError(f"'ssim' is a term of stage 2 alone, got {self.ssim:g} in stage 1")
        if not (self.intensity or self.gradient or self.ssim):
            raise ValueError("every term of the loss has the weight 0")


class DistillRecipe(ObjectiveRecipe, frozen=True):
    """A small network trained on a teacher's pictures (`objectives.distill`)."""

    variants: Annotated[int, Meta(ge=1, le=1000)] = (
        4  # pictures per pair for the teacher: the pair, and other tones
    )
    level: Weight = 1.0  # of L1 to the teacher's picture
    gradient: Weight = 1.0  # of L1 to its Sobel gradients
    steady: Weight = (
        0.0  # of the part of the sources' noise that reaches the fused picture (`noise_passed_on`)
    )
    shake: Annotated[float, Meta(ge=1e-4, le=1)] = 0.02  # that noise's standard deviation, in [0, 1] units
    sensing: Weight = 0.0  # of L1 between each source and what A_i or A_v senses in the fused picture

    def check(self, common: CommonRecipe) -> None:
        if not (self.level or self.gradient):
            raise ValueError("'level' and 'gradient' are both 0: nothing of the teacher is learnt")
