"""VIF: visual information fidelity in the pixel domain, by separable filters."""

from __future__ import annotations

import cv2
import numpy as np

from ufuser.benchmarks.quality.images import Float, Grey, Image, as_triple, require_side

WINDOWS = (17, 9, 5, 3)
NOISE_VARIANCE = 2.0
# Below this a variance is rounding error of a flat patch.
EPSILON = 1e-10
# 41 is the smallest side that leaves a pixel after four valid filters and three halvings.
SMALLEST_SIDE = 41


def _blur(image: Float, window: int) -> Float:
    """Gaussian of σ = window/5 as two 1-D passes, cut to where the window lies inside the picture."""
    kernel = cv2.getGaussianKernel(window, window / 5, cv2.CV_64F)
    half = window // 2
    # Pixels that saw a border are cut off, so the border mode does not matter.
    blurred = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)[half:-half, half:-half]
    return np.asarray(blurred, dtype=np.float64)


def _fidelity(reference: Grey, distorted: Grey) -> float:
    """Share of the information in ``reference`` that ``distorted`` preserves."""
    a, b = reference.astype(np.float64), distorted.astype(np.float64)
    kept = held = 0.0
    for scale, window in enumerate(WINDOWS):
        if scale:
            a, b = (np.ascontiguousarray(_blur(image, window)[::2, ::2]) for image in (a, b))
        mean_a, mean_b = _blur(a, window), _blur(b, window)
        variance_a = np.maximum(_blur(a * a, window) - mean_a * mean_a, 0)
        variance_b = np.maximum(_blur(b * b, window) - mean_b * mean_b, 0)
        covariance = _blur(a * b, window) - mean_a * mean_b

        # b = gain·a + noise of variance `noise`, by patch; a flat or inverted patch carries nothing.
        gain = covariance / (variance_a + EPSILON)
        noise = variance_b - gain * covariance
        flat_a, flat_b = variance_a < EPSILON, variance_b < EPSILON
        noise[flat_a] = variance_b[flat_a]
        variance_a[flat_a] = 0
        noise[flat_b] = 0
        inverted = gain < 0
        noise[inverted] = variance_b[inverted]
        gain[flat_a | flat_b | inverted] = 0
        np.maximum(noise, EPSILON, out=noise)

        kept += float(np.sum(np.log10(1 + gain * gain * variance_a / (noise + NOISE_VARIANCE))))
        held += float(np.sum(np.log10(1 + variance_a / NOISE_VARIANCE)))
    return kept / held if held > 0 else 1.0


def visual_information_fidelity(ir: Image, vi: Image, fused: Image) -> float:
    """VIF(ir, fused) + VIF(vi, fused): 2 for three identical pictures, 0 where nothing is kept.

    Four scales with Gaussian windows 17, 9, 5, 3 (σ = window/5), σ_n² = 2, base-10 logarithms; filters
    without padding. A constant source has no information to lose and counts 1.
    Amplified contrast can push the value above 2.

    Needs 41 pixels a side; raises ValueError otherwise and as ``images.as_triple`` says.

    Source: Sheikh, Bovik, "Image information and visual quality", IEEE Trans. Image Process. 2006
    (pixel-domain version, vifp_mscale); the sum over both sources is the convention of the published fusion
    tables.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    require_side(result, SMALLEST_SIDE, "VIF")
    return _fidelity(infrared, result) + _fidelity(visible, result)
