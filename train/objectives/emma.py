"""EMMA's third stage: a fusion network trained through frozen pseudo-sensing modules and the prior that
imaging is equivariant (Zhao et al., "Equivariant Multi-Modality Image Fusion", Eq. (4))."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ufuser.runtime.errors import InputError

from ..losses import DirectLoss, distance
from ..networks import Network, load_sensing_pair
from ..processes import SINGLE, Processes
from ..sections import EmmaRecipe, LossRecipe, TransformRecipe
from ..setup import Setup, digests
from ..transforms import TransformationGroup
from .objective import Task, Terms


class EmmaObjective:
    """Eq. (4) with the weights and options of the recipe, plus the direct terms that have a weight.

    Terms of weight 0 are not computed. The images are infrared and visible.

    Args:
        sensing: A_i and A_v, frozen, for images of any size; empty where no term needs them.
    """

    def __init__(
        self,
        recipe: EmmaRecipe,
        transforms: TransformRecipe,
        direct: LossRecipe,
        sensing: Sequence[Network],
        processes: Processes = SINGLE,
    ) -> None:
        if not sensing and recipe.needs_sensing:
            raise InputError(
                "the recipe's [emma] compares through pseudo-sensing modules: "
                "expected --sensing-ir A_i.safetensors and --sensing-vi A_v.safetensors"
            )
        self._recipe, self._processes, self._sensing = recipe, processes, sensing
        self._part = processes.divide(recipe.equivariant_batch, "equivariant_batch")
        self._group = TransformationGroup(transforms)
        self._direct = DirectLoss(direct)

    def train(self, network: Network, images: Sequence[Tensor], rng: np.random.Generator) -> Terms:
        return self._terms(network, images, rng, self._processes)[0]

    def validate(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Terms, list[Tensor]]:
        terms, shown = self._terms(network, images, rng, SINGLE)
        return terms, [*images, *shown]

    def _sense(self, x: Tensor) -> list[Tensor]:
        return [a(x) for a in self._sensing]

    def _terms(
        self, network: Network, images: Sequence[Tensor], rng: np.random.Generator, processes: Processes
    ) -> tuple[Terms, list[Tensor]]:
        """The loss's terms; the fused image, and what A_i and A_v sense in it where a term needs that."""
        r = self._recipe
        ir, vi = images
        fused = network(ir, vi)
        sensed: list[Tensor] = []
        terms: Terms = {}
        if r.alpha0 or r.alpha1:
            sensed = self._sense(fused) if r.sensing else []
            seen_ir, seen_vi = sensed or (fused, fused)
            terms["sensing_ir"] = r.alpha0 * distance(seen_ir, ir, r.gradient)
            terms["sensing_vi"] = r.alpha1 * distance(seen_vi, vi, r.gradient)
        if r.alpha2:
            terms["equivariance"] = r.alpha2 * self._equivariance(network, fused, sensed, rng, processes)
        terms |= self._direct.weighted(fused, ir, vi)
        return terms, [fused, *sensed]

    def _equivariance(
        self,
        network: Network,
        fused: Tensor,
        sensed: list[Tensor],
        rng: np.random.Generator,
        processes: Processes,
    ) -> Tensor:
        """L(T f, F(A_i(T f), A_v(T f))), T f's border of rotations left out."""
        r = self._recipe
        part = slice(self._part or len(fused))
        target, valid = self._group.apply(fused[part], rng, processes)
        source = target if r.input_gradient else target.detach()
        seen = self._sense(source)
        if self._group.full:  # the identity belongs to the set; A_i and A_v of it may be known already
            plain = fused[part] if r.input_gradient else fused[part].detach()
            known = [x[part] for x in sensed] if sensed and r.input_gradient else self._sense(plain)
            seen = [torch.cat(parts) for parts in zip(known, seen, strict=True)]
            target = torch.cat((fused[part], target))
            valid = torch.cat((torch.ones_like(fused[part]), valid))
        refused = network(*seen)
        return distance(refused, target if r.target_gradient else target.detach(), r.gradient, valid)


def prepare(setup: Setup, section: EmmaRecipe, args: argparse.Namespace) -> Task:
    """Train by Eq. (4)."""
    recipe = setup.recipe
    sensing = load_sensing_pair(args.sensing_ir, args.sensing_vi, recipe.optim.precision, setup.device)
    objective = EmmaObjective(section, recipe.transforms, recipe.loss, sensing, setup.processes)
    return setup.task(objective, origin=digests(sensing_ir=args.sensing_ir, sensing_vi=args.sensing_vi))
