"""EMMA's third stage: a fusion network trained through frozen pseudo-sensing modules and the prior that
imaging is equivariant (Zhao et al., "Equivariant Multi-Modality Image Fusion", Eq. (4))."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ufuser.runtime.errors import InputError

from .checkpoint import load_sensing
from .losses import DirectLoss, distance
from .models import shape_multiple
from .objective import Terms, at_any_size
from .precision import Network, in_precision
from .processes import ALONE, Share
from .recipe import EmmaRecipe, Recipe
from .transforms import TransformationGroup


def needs_sensing(recipe: EmmaRecipe) -> bool:
    """Whether any term of the loss looks through A_i and A_v."""
    return bool(recipe.alpha2) or (recipe.sensing and bool(recipe.alpha0 or recipe.alpha1))


def freeze(network: nn.Module, device: torch.device) -> nn.Module:
    """Evaluation mode (running statistics of its BatchNorms, and unchanged), no gradient to any weight."""
    moved: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved.eval().requires_grad_(False)


def frozen(sensing: Sequence[nn.Module], recipe: Recipe, device: torch.device) -> tuple[Network, ...]:
    """Pseudo-sensing modules to look through, for images of any size, in the recipe's precision."""
    return tuple(
        at_any_size(in_precision(freeze(a, device), recipe.optim.precision, device), shape_multiple(a))
        for a in sensing
    )


class EmmaObjective:
    """Eq. (4) with weights and options of the recipe, plus the direct terms that it asks for.

    Terms of weight 0 are not computed. Infrared is the first image, visible the second.
    """

    def __init__(
        self,
        recipe: Recipe,
        sensing: tuple[nn.Module, nn.Module] | None,
        device: torch.device,
        share: Share = ALONE,
    ) -> None:
        if recipe.emma is None:
            raise InputError(f"recipe {recipe.name} has no [emma] section")
        if sensing is None and needs_sensing(recipe.emma):
            raise InputError(
                f"recipe {recipe.name} compares through pseudo-sensing modules: "
                "expected --sensing-ir A_i.safetensors and --sensing-vi A_v.safetensors"
            )
        self._recipe, self._share = recipe.emma, share
        self._some = share.divide(recipe.emma.equivariant_batch, "an 'equivariant_batch'")
        self._group = TransformationGroup(recipe.transforms)
        direct = recipe.loss
        self._direct = DirectLoss(direct) if direct.intensity or direct.gradient or direct.ssim else None
        self._sensing = frozen(sensing or (), recipe, device)

    def train(self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator) -> Terms:
        return self._terms(network, first, second, rng, self._share)[0]

    def validate(
        self, network: Network, first: Tensor, second: Tensor, rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        terms, images = self._terms(network, first, second, rng, ALONE)
        return terms, [first, second, *images]

    def _sense(self, x: Tensor) -> list[Tensor]:
        return [a(x) for a in self._sensing]

    def _terms(
        self, network: Network, ir: Tensor, vi: Tensor, rng: np.random.Generator, share: Share
    ) -> tuple[Terms, list[Tensor]]:
        """The loss's terms; the fused image and what A_i and A_v make of it, where they are asked."""
        r = self._recipe
        fused = network(ir, vi)
        sensed: list[Tensor] = []
        terms: Terms = {}
        if r.alpha0 or r.alpha1:
            sensed = self._sense(fused) if r.sensing else []
            seen_ir, seen_vi = sensed or (fused, fused)
            terms["sensing_ir"] = r.alpha0 * distance(seen_ir, ir, r.gradient)
            terms["sensing_vi"] = r.alpha1 * distance(seen_vi, vi, r.gradient)
        if r.alpha2:
            terms["equivariance"] = r.alpha2 * self._equivariance(network, fused, sensed, rng, share)
        if self._direct is not None:
            weights = vars(self._direct.recipe)
            direct = self._direct(fused, ir, vi)
            terms.update({name: value for name, value in direct.items() if weights[name]})
        return terms, [fused, *sensed]

    def _equivariance(
        self,
        network: Network,
        fused: Tensor,
        sensed: list[Tensor],
        rng: np.random.Generator,
        share: Share,
    ) -> Tensor:
        """L(T f, F(A_i(T f), A_v(T f))), T f's border of rotations left out."""
        r = self._recipe
        some = slice(self._some or len(fused))
        target, valid = self._group.apply(fused[some], rng, share)
        source = target if r.input_gradient else target.detach()
        seen = self._sense(source)
        if self._group.full:  # the identity belongs to the set; what A_i and A_v make of it may be known
            plain = fused[some] if r.input_gradient else fused[some].detach()
            known = [x[some] for x in sensed] if sensed and r.input_gradient else self._sense(plain)
            seen = [torch.cat(parts) for parts in zip(known, seen, strict=True)]
            target = torch.cat((fused[some], target))
            valid = torch.cat((torch.ones_like(fused[some]), valid))
        refused = network(*seen)
        return distance(refused, target if r.target_gradient else target.detach(), r.gradient, valid)


def load_sensing_pair(ir: Path | None, vi: Path | None) -> tuple[nn.Module, nn.Module] | None:
    """A_i and A_v from checkpoints of ours, or None where neither is given."""
    if ir is None and vi is None:
        return None
    if ir is None or vi is None:
        raise InputError("expected both --sensing-ir and --sensing-vi, or neither")
    return load_sensing(ir, "ir"), load_sensing(vi, "vi")
