"""SSIM: structural similarity, in the three conventions of published tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ufuser.benchmarks.quality.images import Float, Grey, Image, as_triple, require_side

K1, K2 = 0.01, 0.03
GAUSSIAN_SIGMA = 1.5


@dataclass(frozen=True)
class SSIMConvention:
    """Settings that make SSIM values comparable."""

    window: Literal["uniform", "gaussian"]
    """uniform: 7×7, sample covariance (scikit-image); gaussian: 11×11, σ 1.5 (Wang et al. 2004)."""

    data_range: float
    """L of the paper in C1 = (0.01·L)², C2 = (0.03·L)²."""

    @property
    def size(self) -> int:
        """Side of the window in pixels."""
        return 7 if self.window == "uniform" else 11

    def __str__(self) -> str:
        """Text for a report."""
        return f"{self.window} {self.size}x{self.size} window, data range {self.data_range:g}"


CONVENTIONS = {
    "uniform": SSIMConvention("uniform", 255),
    # A library's default range for float pictures; the published tables use it.
    "printed": SSIMConvention("uniform", 2),
    "wang": SSIMConvention("gaussian", 255),
}
DEFAULT = CONVENTIONS["uniform"]


def _local_mean(image: Float, convention: SSIMConvention) -> Float:
    """Weighted mean in each window that lies inside the picture."""
    half = convention.size // 2
    if convention.window == "uniform":
        mean = cv2.blur(image, (convention.size, convention.size))
    else:
        kernel = cv2.getGaussianKernel(convention.size, GAUSSIAN_SIGMA, cv2.CV_64F)
        mean = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)
    return np.asarray(mean[half:-half, half:-half], dtype=np.float64)


def _similarity(source: Grey, fused: Grey, convention: SSIMConvention) -> float:
    x, y = source.astype(np.float64), fused.astype(np.float64)
    mean_x, mean_y = _local_mean(x, convention), _local_mean(y, convention)
    count = convention.size**2
    # n/(n-1) turns the population covariance of the uniform window into the sample covariance.
    correction = count / (count - 1) if convention.window == "uniform" else 1.0
    variance_x = correction * np.maximum(_local_mean(x * x, convention) - mean_x * mean_x, 0)
    variance_y = correction * np.maximum(_local_mean(y * y, convention) - mean_y * mean_y, 0)
    covariance = correction * (_local_mean(x * y, convention) - mean_x * mean_y)
    c1, c2 = (K1 * convention.data_range) ** 2, (K2 * convention.data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def structural_similarity(ir: Image, vi: Image, fused: Image, convention: SSIMConvention = DEFAULT) -> float:
    """SSIM(ir, fused) + SSIM(vi, fused), -2..2; 2 for three identical pictures, constant ones included.

    Mean over the windows that lie inside the picture. Needs 7 (gaussian: 11) pixels per side; raises ValueError
    otherwise and as ``images.as_triple`` says.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Trans. Image Process. 2004; the sum over both sources is the convention of the fusion
    tables.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    require_side(result, convention.size, "SSIM")
    return _similarity(infrared, result, convention) + _similarity(visible, result, convention)
