"""Metrics on pixel differences and linear correlation with the sources: CC, SCD, MSE, PSNR.

All functions raise ValueError as ``images.as_triple`` says.
"""

from __future__ import annotations

import math

import numpy as np

from ufuser.benchmarks.quality.images import Float, Image, as_grey, as_triple


def _pearson(a: Float, b: Float) -> float:
    """Pearson's correlation, -1..1; 0 where either side is constant."""
    centred_a, centred_b = a - a.mean(), b - b.mean()
    # vdot over a flattened view: sums of products without a temporary picture.
    power = float(np.vdot(centred_a, centred_a)) * float(np.vdot(centred_b, centred_b))
    if a.max() == a.min() or b.max() == b.min():
        return 0.0
    return float(np.clip(float(np.vdot(centred_a, centred_b)) / math.sqrt(power), -1.0, 1.0))


def _floats(ir: Image, vi: Image, fused: Image) -> tuple[Float, Float, Float]:
    infrared, visible, result = as_triple(ir, vi, fused)
    return infrared.astype(np.float64), visible.astype(np.float64), result.astype(np.float64)


def correlation(ir: Image, vi: Image, fused: Image) -> float:
    """CC, mean over both sources of Pearson's correlation with fused, -1..1; a constant one counts 0.

    Source: convention of the field (Deshmukh, Bhosale, "Image fusion and image quality assessment of fused
    images", Int. J. Image Process. 2010).
    """
    infrared, visible, result = _floats(ir, vi, fused)
    return (_pearson(infrared, result) + _pearson(visible, result)) / 2


def sum_of_correlations_of_differences(ir: Image, vi: Image, fused: Image) -> float:
    """SCD = corr(ir, fused − vi) + corr(vi, fused − ir), -2..2; a correlation with a constant counts 0.

    Source: Aslantas, Bendes, "A new image quality metric for image fusion: the sum of the correlations of
    differences", AEÜ 2015.
    """
    infrared, visible, result = _floats(ir, vi, fused)
    return _pearson(infrared, result - visible) + _pearson(visible, result - infrared)


def mean_squared_error(ir: Image, vi: Image, fused: Image) -> float:
    """MSE in squared grey levels, averaged over both sources; lower is better; 0 if all are identical."""
    infrared, visible, result = _floats(ir, vi, fused)
    return (float(np.mean((infrared - result) ** 2)) + float(np.mean((visible - result) ** 2))) / 2


def peak_signal_to_noise_ratio(ir: Image, vi: Image, fused: Image) -> float:
    """PSNR = 10·log10(max(fused)² / MSE) in dB, with the MSE averaged over both sources.

    The peak is the fused picture's own maximum, as in the scripts that made the published tables. Infinite
    where all three pictures are identical; minus infinite for a black fused picture of sources that are not
    black.
    """
    error = mean_squared_error(ir, vi, fused)
    peak = int(as_grey(fused, "fused").max())
    if error == 0:
        return math.inf
    if peak == 0:
        return -math.inf
    return 10 * math.log10(peak**2 / error)
