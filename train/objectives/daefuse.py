"""DAE-Fuse's two phases (Guo et al., "DAE-Fuse: An Adaptive Discriminative Autoencoder for Multi-Modality Image
Fusion", section II-C): an autoencoder, then a fusion network, each against two discriminative blocks.

The trainer updates the network. Before each step of the network the objective updates the discriminative blocks D_M1
(infrared) and D_M2 (visible), whose state is kept with that of the run. Of the two parts of Eqs. (12) and (17), the
network's gradient comes from its own; the discriminators' part is only added to the logged loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.runtime.errors import InputError

from ..losses import sobel, structure_map
from ..models.daefuse import DAEFuse, Reconstruction
from ..models.discriminator import DiscriminativeBlock
from ..networks import Network
from ..processes import Processes
from ..sections import DaeFuseRecipe
from ..setup import Setup
from .objective import Task, Terms


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Mean over images and channels of the correlation coefficient of two B×C×h×w maps."""
    x, y = (t - t.mean(dim=(2, 3), keepdim=True) for t in (x, y))
    norms = x.square().sum(dim=(2, 3)).sqrt() * y.square().sum(dim=(2, 3)).sqrt()
    return ((x * y).sum(dim=(2, 3)) / (norms + 1e-6)).clamp(-1, 1).mean()


def decomposition(a: Reconstruction, b: Reconstruction) -> Tensor:
    """Eq. (8): high-frequency features shall differ between the modalities, low-frequency features agree."""
    return correlation(a.high, b.high).square() / (correlation(a.low, b.low) + 1.01)


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004, data range 1) of B×1×H×W, in uniform 7×7 windows, the valid part only."""
    mean_x, mean_y = (F.avg_pool2d(t, 7, stride=1) for t in (x, y))
    c1 = 0.01**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * structure_map(x, y)).mean()


def reconstruction_loss(picture: Tensor, source: Tensor) -> Tensor:
    """Eq. (9), its squared norm as the mean over pixels."""
    return F.mse_loss(picture, source) + 1 - structural_similarity(picture, source)


def texture_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """Eq. (15). |∇x| is |∂x| + |∂y| by Sobel kernels whose sides sum to 4, as in the paper that it cites."""
    strengths = (4 * sobel(x).abs().sum(1, keepdim=True) for x in (fused, ir, vi))
    own, first, second = strengths
    return F.l1_loss(own, torch.maximum(first, second))


class Discriminators:
    """D_M1 and D_M2 with their optimizer.

    A block sees sources and generated pictures as one batch. Otherwise its last batch normalisation would give both
    batches the same mean, and so the same mean logit, whatever their content.
    """

    def __init__(self, recipe: DaeFuseRecipe, device: torch.device) -> None:
        blocks = [DiscriminativeBlock(recipe.discriminator_width) for _ in range(2)]
        self._blocks = nn.ModuleList(blocks).to(device).train()
        self._optimizer = torch.optim.Adam(self._blocks.parameters(), recipe.discriminator_rate)

    def step(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> Tensor:
        """One step by Eqs. (10) and (11), or (5); the loss before it, without gradient."""
        self._blocks.requires_grad_(True)
        verdicts = self._logits(real, (fake[0].detach(), fake[1].detach()))
        losses = [F.softplus(-x).mean() + F.softplus(y).mean() for x, y in verdicts]
        loss = torch.stack(losses).sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def logits(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The logits of each block for its generated pictures; the gradient reaches only the pictures."""
        self._blocks.requires_grad_(False)
        return [of_fake for _, of_fake in self._logits(real, fake)]

    def _logits(
        self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for block, x, y in zip(self._blocks, real, fake, strict=True):
            of_real, of_fake = block(torch.cat((x, y))).split((len(x), len(y)))
            yield of_real, of_fake

    def state_dict(self) -> dict[str, Any]:
        """Weights, running statistics and the optimizer's moments."""
        return {"blocks": self._blocks.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self._blocks.load_state_dict(state["blocks"])
        self._optimizer.load_state_dict(state["optimizer"])


class _Adversarial:
    """The discriminators of both phases, and the state of a run."""

    def __init__(self, recipe: DaeFuseRecipe, device: torch.device) -> None:
        self._recipe = recipe
        self._discriminators = Discriminators(recipe, device)

    def state_dict(self) -> dict[str, Any]:
        return self._discriminators.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._discriminators.load_state_dict(state)


class AutoencoderObjective(_Adversarial):
    """Phase one, Eqs. (3) to (12): each source against its reconstruction by the autoencoder."""

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        r = self._recipe
        if not isinstance(network, DAEFuse):
            raise InputError("the autoencoder of DAE-Fuse trains in one process and in fp32")
        ir, vi = images
        a, b = network.reconstruct(ir), network.reconstruct(vi)
        verdict = self._discriminators.step((ir, vi), (a.picture, b.picture))
        logits = self._discriminators.logits((ir, vi), (a.picture, b.picture))
        # Eq. (7): log(1 − D), minimised. log(1 − sigmoid(z)) is −softplus(z).
        fooled = torch.stack([-F.softplus(z).mean() for z in logits]).sum()
        content = self._content((a.picture, b.picture), (ir, vi))
        return {
            "content": (1 - r.correlation) * content,
            "correlation": r.correlation * decomposition(a, b),
            "adversarial": r.adversarial * fooled,
            "discriminators": verdict,
        }

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        """The content term only: losses of discriminators are not comparable between steps."""
        ir, vi = images
        a, b = (network(x) for x in images)
        content = self._content((a, b), (ir, vi))
        return {"content": (1 - self._recipe.correlation) * content}, [ir, a, vi, b]

    @staticmethod
    def _content(pictures: tuple[Tensor, Tensor], sources: tuple[Tensor, Tensor]) -> Tensor:
        pairs = zip(pictures, sources, strict=True)
        return torch.stack([reconstruction_loss(x, y) for x, y in pairs]).sum()


class AdversarialFusionObjective(_Adversarial):
    """Phase two, Eqs. (5) and (13) to (17): the fused picture against both sources."""

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        ir, vi = images
        fused = network(ir, vi)
        verdict = self._discriminators.step((ir, vi), (fused, fused))
        logits = self._discriminators.logits((ir, vi), (fused, fused))
        # Eq. (14) prints −log(1 − D(F)), whose minimum is D(F) = 0: the picture that discriminators can best tell
        # from the sources. Eq. (5) requires the opposite, −log D(F), which is softplus(−z).
        fooled = torch.stack([F.softplus(-z).mean() for z in logits]).sum()
        return {
            **self._content(fused, ir, vi),
            "adversarial": self._recipe.adversarial * fooled,
            "discriminators": verdict,
        }

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        """Texture and intensity only: see phase one."""
        ir, vi = images
        fused = network(ir, vi)
        return self._content(fused, ir, vi), [ir, vi, fused]

    def _content(self, fused: Tensor, ir: Tensor, vi: Tensor) -> Terms:
        r = self._recipe
        return {
            "texture": r.texture * texture_loss(fused, ir, vi),
            "intensity": r.intensity * F.l1_loss(fused, torch.maximum(ir, vi)),
        }


def objective_of(
    recipe: DaeFuseRecipe, device: torch.device, processes: Processes
) -> AutoencoderObjective | AdversarialFusionObjective:
    """The objective of the recipe's phase.

    Raises:
        InputError: several processes, each of which would train discriminators of its own.
    """
    if processes.world_size > 1:
        raise InputError(
            f"DAE-Fuse trains in one process, got {processes.world_size}: start it without torchrun"
        )
    kind = AutoencoderObjective if recipe.phase == 1 else AdversarialFusionObjective
    return kind(recipe, device)


def prepare(setup: Setup, section: DaeFuseRecipe, args: argparse.Namespace) -> Task:
    """Train a phase."""
    return setup.task(objective_of(section, setup.device, setup.processes))
