"""All metrics by their names in published tables, and the mean rank of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from ufuser.benchmarks.quality import ssim
from ufuser.benchmarks.quality.contrast import average_gradient, spatial_frequency, standard_deviation
from ufuser.benchmarks.quality.fidelity import (
    correlation,
    mean_squared_error,
    peak_signal_to_noise_ratio,
    sum_of_correlations_of_differences,
)
from ufuser.benchmarks.quality.images import Image, as_triple
from ufuser.benchmarks.quality.information import cross_entropy, entropy, mutual_information
from ufuser.benchmarks.quality.qabf import edge_preservation
from ufuser.benchmarks.quality.qcb import contrast_preservation
from ufuser.benchmarks.quality.vif import visual_information_fidelity

Metric: TypeAlias = Callable[[Image, Image, Image], float]


def _of_fused(metric: Callable[[Image], float]) -> Metric:
    """Adapt a metric of the fused picture alone to the common signature."""
    return lambda ir, vi, fused: metric(fused)


# name -> (function of ir, vi, fused; higher is better)
METRICS: dict[str, tuple[Metric, bool]] = {
    "EN": (_of_fused(entropy), True),
    "SD": (_of_fused(standard_deviation), True),
    "SF": (_of_fused(spatial_frequency), True),
    "AG": (_of_fused(average_gradient), True),
    "MI": (mutual_information, True),
    "CE": (cross_entropy, False),
    "SCD": (sum_of_correlations_of_differences, True),
    "CC": (correlation, True),
    "PSNR": (peak_signal_to_noise_ratio, True),
    "MSE": (mean_squared_error, False),
    "VIF": (visual_information_fidelity, True),
    "Qabf": (edge_preservation, True),
    "Qcb": (contrast_preservation, True),
    "SSIM": (ssim.structural_similarity, True),
}
RANKED = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")


def evaluate(
    ir: Image, vi: Image, fused: Image, *, ssim_convention: ssim.SSIMConvention = ssim.DEFAULT
) -> dict[str, float]:
    """All metrics of one fused picture.

    ``ir``, ``vi``, ``fused``: H×W, uint8 or float in 0..255 (rounded), at least 41 pixels per side. Raises
    ValueError as ``images.as_triple`` says and for smaller pictures. Infinite values are possible in PSNR
    only.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    similarity = partial(ssim.structural_similarity, convention=ssim_convention)
    return {
        name: similarity(infrared, visible, result) if name == "SSIM" else metric(infrared, visible, result)
        for name, (metric, _) in METRICS.items()
    }


def ranks(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Rank of each value, 1 for the best; equal values share their mean rank."""
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("a value to rank is NaN; leave it out")
    if higher_is_better:
        array = -array
    before = (array[None, :] < array[:, None]).sum(axis=1)
    equal = (array[None, :] == array[:, None]).sum(axis=1)
    return [float(rank) for rank in before + (equal + 1) / 2]


def mean_rank(table: Mapping[str, Mapping[str, float]], metrics: Sequence[str] = RANKED) -> dict[str, float]:
    """Mean over ``metrics`` of each method's rank among the methods, from ``{method: {metric: mean value}}``.

    Lower is better; 1 is the best. Ranks depend on the other methods: compare them within one table only.
    """
    methods = list(table)
    per_metric = [ranks([table[method][name] for method in methods], METRICS[name][1]) for name in metrics]
    return {
        method: sum(column[i] for column in per_metric) / len(metrics) for i, method in enumerate(methods)
    }
