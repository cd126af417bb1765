"""Losses on images B×1×H×W in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sections import LossRecipe


def sobel(x: Tensor) -> Tensor:
    """Horizontal and vertical Sobel gradient, B×2×H×W; a unit step gives 1. Reflected borders.

    By differences of shifted maps: a convolution of one channel takes a CPU four times as long.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat((across, down), dim=1) / 4


def stronger_gradient(ir: Tensor, vi: Tensor) -> Tensor:
    """At each pixel the gradient, signed, of the source where it is longer."""
    gi, gv = sobel(ir), sobel(vi)
    longer = gi.square().sum(1, keepdim=True) > gv.square().sum(1, keepdim=True)
    return torch.where(longer, gi, gv)


def _variances(x: Tensor, y: Tensor, window: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of x, of y and their covariance in uniform windows (valid part only)."""

    def mean(t: Tensor) -> Tensor:
        # Sums of shifted maps; average pooling takes a CPU ten times as long.
        height, width = (n - window + 1 for n in t.shape[-2:])
        rows = torch.stack([t[..., k : k + height, :] for k in range(window)]).sum(0)
        return torch.stack([rows[..., k : k + width] for k in range(window)]).sum(0) / window**2

    mx, my = mean(x), mean(y)
    return (mean(x * x) - mx * mx).clamp_min(0), (mean(y * y) - my * my).clamp_min(0), mean(x * y) - mx * my


def structure_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM's contrast and structure factors (Wang et al. 2004, C2 for a data range of 1).

    The luminance factor is left out: the intensity term sets the level, and a loss on both sources' levels would give
    their grey mean.
    """
    var_x, var_y, covariance = _variances(x, y)
    c2 = 0.03**2
    return (2 * covariance + c2) / (var_x + var_y + c2)


def intensity_target(ir: Tensor, vi: Tensor, recipe: LossRecipe) -> Tensor:
    """The target level of each pixel, in [0, 1].

    "lift", v + i^p (i − v)₊: the pixel maximum for p = 0. For p > 0, bright infrared lifts the visible
    picture more than dark: bright targets stay bright, and the mid-grey background of a thermal picture no longer turns
    the black of a night scene into haze.

    "contrast", v + warm (i − m)₊ − cold (m − i)₊ with the image's median m of infrared: parts warmer than most become
    brighter, colder ones darker. The target is infrared's contrast and not its level, which depends on the camera's
    gain control; so a nearly black thermal background does not darken the scene.
    """
    if recipe.target == "contrast":
        deviation = ir - ir.flatten(1).median(1).values[:, None, None, None]
        return (vi + recipe.warm * deviation.clamp_min(0) + recipe.cold * deviation.clamp_max(0)).clamp(0, 1)
    lift = (ir - vi).clamp_min(0)
    return vi + lift if recipe.infrared_exponent == 0 else vi + ir.pow(recipe.infrared_exponent) * lift


class DirectLoss(nn.Module):
    """Fused image against both sources: intensity, gradient and structure."""

    def __init__(self, recipe: LossRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, fused: Tensor, ir: Tensor, vi: Tensor) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is the loss."""
        r = self.recipe
        intensity = F.l1_loss(fused, intensity_target(ir, vi, r))
        gradient = F.l1_loss(sobel(fused), stronger_gradient(ir, vi))
        var_i, var_v, _ = _variances(ir, vi)
        # In each window the source with more structure weighs more.
        weight = (var_i + 1e-6) / (var_i + var_v + 2e-6)
        likeness = weight * structure_map(fused, ir) + (1 - weight) * structure_map(fused, vi)
        return {
            "intensity": r.intensity * intensity,
            "gradient": r.gradient * gradient,
            "ssim": r.ssim * (1 - likeness.mean()),
        }

    def weighted(self, fused: Tensor, ir: Tensor, vi: Tensor) -> dict[str, Tensor]:
        """Only the terms with a weight above 0."""
        if not self.recipe.has_terms:
            return {}
        return {k: v for k, v in self(fused, ir, vi).items() if getattr(self.recipe, k)}


def distance(x: Tensor, y: Tensor, gradient: float, valid: Tensor | None = None) -> Tensor:
    """L of EMMA's Eq. (4): L1, plus `gradient` times the L1 of Sobel gradients, over the valid pixels.

    The release weighs the gradients by 1 and has Sobel kernels half as large: that is a `gradient` of 0.5.
    A gradient counts where all nine pixels that it comes from are valid.
    """
    difference = x - y
    total = masked_mean(difference.abs(), valid)
    if gradient:
        whole = None if valid is None else -F.max_pool2d(-valid, 3, stride=1, padding=1)
        total = total + gradient * masked_mean(sobel(difference).abs(), whole)  # the gradient is linear
    return total


def masked_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of B×C×H×W over the pixels where B×1×H×W is 1; an image without any counts as 0.

    It is the mean of the images' means, so that processes can share a batch without changing it.
    """
    if valid is None:
        return x.mean()
    axes = (1, 2, 3)
    return ((x * valid).sum(axes) / (valid.sum(axes) * x.shape[1]).clamp_min(1)).mean()
