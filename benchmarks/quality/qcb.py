"""Qcb: preservation of the sources' local contrast, after a model of human vision."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ufuser.benchmarks.quality.images import WHITE, Float, Grey, Image, as_triple, require_side

# Contrast-sensitivity function: a difference of Gaussians over frequency, exp(−(r/F0)²) − A·exp(−(r/F1)²).
F0, F1, A = 15.387, 1.3456, 0.7622
# The port takes 30 pixels for one degree of the visual field.
PIXELS_PER_DEGREE = 30
# Masked contrast C^P / (C^Q + Z).
P, Q, Z = 3, 2, 1e-4
CENTRE_SIGMA, SURROUND_SIGMA, RADIUS = 2.0, 4.0, 15


def _sensitivity(height: int, width: int) -> Float:
    """Contrast sensitivity on the half plane of ``numpy.fft.rfft2``."""
    # The port scales the axes to ±1 at the Nyquist frequency, hence the factor 2.
    v = np.fft.fftfreq(height) * 2 * (height / PIXELS_PER_DEGREE)
    u = np.fft.rfftfreq(width) * 2 * (width / PIXELS_PER_DEGREE)
    squared = v[:, None] ** 2 + u[None, :] ** 2
    return np.asarray(np.exp(-squared / F0**2) - A * np.exp(-squared / F1**2), dtype=np.float64)


def _gaussian(sigma: float) -> Float:
    """31 samples of the Gaussian density; not renormalised, as in the port."""
    x = np.arange(-RADIUS, RADIUS + 1, dtype=np.float64)
    return np.asarray(np.exp(-(x * x) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma), dtype=np.float64)


def _stretched(image: Grey) -> Float:
    """Levels stretched to 0..255 and rounded; a constant picture has no contrast and becomes black."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest == highest:
        return np.zeros(image.shape)
    return np.asarray(np.floor((image - lowest) / (highest - lowest) * WHITE + 0.5), dtype=np.float64)


def _masked_contrast(image: Grey, sensitivity: Float) -> Float:
    spectrum = np.fft.rfft2(_stretched(image)) * sensitivity
    perceived = np.fft.irfft2(spectrum, s=image.shape)
    centre, surround = (
        cv2.sepFilter2D(perceived, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
        for kernel in (_gaussian(CENTRE_SIGMA), _gaussian(SURROUND_SIGMA))
    )
    # Nothing against nothing is no contrast.
    ratio = np.divide(centre, surround, out=np.ones_like(centre), where=surround != 0)
    contrast = np.abs(ratio - 1)
    return np.asarray(contrast**P / (contrast**Q + Z), dtype=np.float64)


def _ratio(a: Float, b: Float) -> Float:
    """Smaller over larger, 0..1; 1 where both are 0, since no contrast is then fully kept."""
    larger = np.maximum(a, b)
    return np.divide(np.minimum(a, b), larger, out=np.ones_like(larger), where=larger > 0)


def contrast_preservation(ir: Image, vi: Image, fused: Image) -> float:
    """Qcb, 0..1: preservation of local contrast, weighted by the squared contrast of the sources.

    Symmetric in the sources. Inputs are stretched to 0..255, filtered by the contrast-sensitivity function,
    and compared by the contrast of a σ 2 against a σ 4 Gaussian; zeros around the picture. 1 for three
    identical pictures. Constant pictures count as without contrast; where neither source has any, both weigh
    half.

    Needs 2 pixels a side; raises ValueError otherwise and as ``images.as_triple`` says.

    Source: Chen, Blum, "A new automated quality assessment algorithm for image fusion", Image Vis. Comput.
    2009, in the port of VIFB (Zhang, Ye, Xiao, CVPRW 2020), with p = 3, q = 2, Z = 1e-4.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    require_side(result, 2, "Qcb")
    sensitivity = _sensitivity(*result.shape)
    contrast_ir, contrast_vi, contrast_fused = (
        _masked_contrast(image, sensitivity) for image in (infrared, visible, result)
    )
    power_ir, power_vi = contrast_ir**2, contrast_vi**2
    power = power_ir + power_vi
    weight = np.divide(power_ir, power, out=np.full_like(power, 0.5), where=power > 0)
    quality = weight * _ratio(contrast_ir, contrast_fused) + (1 - weight) * _ratio(
        contrast_vi, contrast_fused
    )
    return float(np.mean(quality))
