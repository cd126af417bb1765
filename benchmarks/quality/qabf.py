"""Qabf: preservation of the sources' edges, in strength and orientation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ufuser.benchmarks.quality.images import Float, Grey, Image, as_triple, require_side


@dataclass(frozen=True)
class Sigmoid:
    """Γ / (1 + exp(κ·(x − σ))), the paper's perceptual loss of strength or orientation."""

    gamma: float
    kappa: float
    sigma: float

    def __call__(self, x: Float) -> Float:
        """Apply elementwise."""
        return np.asarray(self.gamma / (1 + np.exp(self.kappa * (x - self.sigma))), dtype=np.float64)


STRENGTH = Sigmoid(0.9994, -15, 0.5)
ORIENTATION = Sigmoid(0.9879, -22, 0.8)
DIFFERENCE = np.array([-1.0, 0.0, 1.0])
SMOOTHING = np.array([1.0, 2.0, 1.0])


def _edges(image: Grey) -> tuple[Float, Float]:
    """Sobel strength and orientation in (−π/2, π/2], y upwards, zeros around the picture."""
    levels = image.astype(np.float64)
    zeros = cv2.BORDER_CONSTANT
    sx = cv2.sepFilter2D(levels, cv2.CV_64F, DIFFERENCE, SMOOTHING, borderType=zeros)
    sy = cv2.sepFilter2D(levels, cv2.CV_64F, SMOOTHING, -DIFFERENCE, borderType=zeros)
    vertical = sx == 0
    orientation = np.where(vertical, np.pi / 2, np.arctan(sy / np.where(vertical, 1.0, sx)))
    return np.sqrt(sx * sx + sy * sy), orientation


def edge_preservation(ir: Image, vi: Image, fused: Image) -> float:
    """Qabf, 0..0.975: edge preservation of both sources, weighted by their edge strength.

    Symmetric in the sources. Γ_g 0.9994, κ_g −15, σ_g 0.5; Γ_α 0.9879, κ_α −22, σ_α 0.8. The published
    scripts pad with zeros, so that the picture's frame counts as an edge (worth about 0.05): kept here for
    comparison's sake. They also take orientations as lines without wrapping −π/2 to π/2: kept too. Identical
    pictures reach the paper's maximum, 0.9994·0.9879 less the sigmoids' tails (about 0.975). Where both
    sources are black there is no edge to keep and the value is 0.

    Needs 2 pixels a side; raises ValueError otherwise and as ``images.as_triple`` says.

    Source: Xydeas, Petrović, "Objective image fusion performance measure", Electron. Lett. 2000.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    require_side(result, 2, "Qabf")
    fused_strength, fused_orientation = _edges(result)
    kept = total = 0.0
    for source in (infrared, visible):
        strength, orientation = _edges(source)
        stronger = np.maximum(strength, fused_strength)
        # Two absent edges agree; their weight is 0 anyway.
        ratio = np.divide(
            np.minimum(strength, fused_strength), stronger, out=np.ones_like(stronger), where=stronger > 0
        )
        agreement = 1 - np.abs(orientation - fused_orientation) * (2 / np.pi)
        kept += float(np.sum(STRENGTH(ratio) * ORIENTATION(agreement) * strength))
        total += float(np.sum(strength))
    return kept / total if total > 0 else 0.0
