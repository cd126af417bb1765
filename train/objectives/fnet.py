"""FNet's two-stage training (seed paper "l0-Regularized Sparse Coding-based Interpretable Network for Multi-Modal
Image Fusion", section III-D). Stage I: FNet and IFNet together, so that both sources can be recovered from the fused
image. Stage II: FNet alone, against both sources.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import sobel
from ..networks import Network
from ..sections import FNetRecipe
from ..setup import Setup
from .direct import DirectObjective
from .objective import Objective, Task, Terms


class RecoveryObjective:
    """Stage I, Eq. (25): both sources recovered from the fused image, in L1 and in L1 of gradients.

    The network's output is the fused image and the recovered infrared and visible ones, B×3×H×W (`FNetPair`).
    """

    def __init__(self, recipe: FNetRecipe) -> None:
        self._recipe = recipe

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        return self.validate(network, images, rng)[0]

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        ir, vi = images
        output = network(ir, vi)
        return self._terms(output, ir, vi), [ir, vi, *output.chunk(3, dim=1)]

    def _terms(self, output: Tensor, ir: Tensor, vi: Tensor) -> Terms:
        terms: Terms = {}
        for name, source, recovered in (("ir", ir, output[:, 1:2]), ("vi", vi, output[:, 2:3])):
            difference = recovered - source
            terms[f"recovery_{name}"] = self._recipe.intensity * difference.abs().mean()
            terms[f"recovery_gradient_{name}"] = (
                self._recipe.gradient * unnormalised_sobel(difference).abs().mean()
            )
        return {name: value for name, value in terms.items() if _weighs(self._recipe, name)}


def _weighs(recipe: FNetRecipe, term: str) -> bool:
    return bool(recipe.gradient if "gradient" in term else recipe.intensity)


class FusionLoss:
    """Stage II, Eq. (26), after SwinFusion: intensity, gradient and structure of a fused image."""

    def __init__(self, recipe: FNetRecipe) -> None:
        self._recipe = recipe

    def __call__(self, fused: Tensor, ir: Tensor, vi: Tensor) -> Terms:
        """The terms with a weight over 0, weighted, by name."""
        r = self._recipe
        terms: Terms = {}
        strengths = [gradient_strength(x) for x in (ir, vi)]
        if r.intensity:
            terms["intensity"] = r.intensity * F.l1_loss(fused, torch.maximum(ir, vi))
        if r.gradient:
            terms["gradient"] = r.gradient * F.l1_loss(gradient_strength(fused), torch.maximum(*strengths))
        if r.ssim:
            means = [s.mean(dim=(1, 2, 3)) for s in strengths]
            weight = (means[0] + 1e-6) / (means[0] + means[1] + 2e-6)
            likeness = weight * ssim(fused, ir) + (1 - weight) * ssim(fused, vi)
            terms["ssim"] = r.ssim * (1 - likeness).mean()
        return terms


def unnormalised_sobel(x: Tensor) -> Tensor:
    """Sobel gradient with the kernels 1-2-1, B×2×H×W; a unit step gives 4. The paper's weights are for these."""
    return 4 * sobel(x)


def gradient_strength(x: Tensor) -> Tensor:
    """|∇x| as in SwinFusion: the horizontal and the vertical one's magnitudes added, B×1×H×W."""
    return unnormalised_sobel(x).abs().sum(dim=1, keepdim=True)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image of two batches B×1×H×W in [0, 1], B values.

    11×11 Gaussian window of σ = 1.5 (valid part only, so images must have at least 11×11 pixels), C1 = 0.01²,
    C2 = 0.03² (Wang et al. 2004).
    """
    places = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    bell = torch.exp(-places.square() / (2 * 1.5**2))
    bell = bell / bell.sum()

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, bell[None, None, None]), bell[None, None, :, None])

    # In one batch: five small convolutions cost more than one larger one.
    mx, my, xx, yy, xy = blur(torch.cat((x, y, x * x, y * y, x * y))).chunk(5)
    covariance, variances = xy - mx * my, xx - mx * mx + yy - my * my
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean(dim=(1, 2, 3))


def objective_of(recipe: FNetRecipe) -> Objective:
    """The objective of the recipe's stage."""
    if recipe.stage == 1:
        return RecoveryObjective(recipe)
    return DirectObjective(FusionLoss(recipe))


def prepare(setup: Setup, section: FNetRecipe, args: argparse.Namespace) -> Task:
    """Train a stage."""
    return setup.task(objective_of(section))
