"""Metrics on histograms of grey levels: EN, MI, CE.

A histogram has 256 bins, one for each grey level. All functions raise ValueError as ``images.as_grey`` says.
"""

from __future__ import annotations

import numpy as np

from ufuser.benchmarks.quality.images import Float, Grey, Image, as_grey, as_triple

LEVELS = 256
# Keeps the logarithm finite where the fused picture lacks a grey level that a source has.
CROSS_ENTROPY_EPSILON = 1e-7


def probabilities(image: Grey) -> Float:
    """Share of pixels at each of the 256 grey levels."""
    return np.bincount(image.ravel(), minlength=LEVELS) / image.size


def entropy(fused: Image) -> float:
    """EN, Shannon entropy in bits, 0..8; 0 for a constant picture.

    Source: Roberts, van Aardt, Ahmed, "Assessment of image fusion procedures using entropy, image quality,
    and multispectral classification", J. Appl. Remote Sens. 2008.
    """
    p = probabilities(as_grey(fused, "fused"))
    p = p[p > 0]
    # 0 minus the sum and not its negation: a constant picture has entropy 0.0, not -0.0.
    return float(0.0 - np.sum(p * np.log2(p)))


def _information(a: Grey, b: Grey) -> float:
    joint = np.bincount(a.ravel().astype(np.int64) * LEVELS + b.ravel(), minlength=LEVELS * LEVELS) / a.size
    independent = np.outer(probabilities(a), probabilities(b)).ravel()
    seen = joint > 0
    # Non-negative by Gibbs' inequality; rounding may miss that by an ulp.
    return max(float(np.sum(joint[seen] * np.log(joint[seen] / independent[seen]))), 0.0)


def mutual_information(ir: Image, vi: Image, fused: Image) -> float:
    """MI(ir, fused) + MI(vi, fused) over grey levels, in **nats**, 0..2·ln 256; 0 if fused is constant.

    Source: Qu, Zhang, Yan, "Information measure for performance of image fusion", Electron. Lett. 2002; nats,
    as scikit-learn's ``mutual_info_score`` gives them to the scripts that made the published tables.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    return _information(infrared, result) + _information(visible, result)


def cross_entropy(ir: Image, vi: Image, fused: Image) -> float:
    """CE, mean over both sources of the divergence KL(source ‖ fused), in nats; lower is better.

    Both histograms get ε = 1e-7 inside the logarithm. Non-negative up to 256·ε; 0 where the histograms agree.
    A constant fused picture gets a large but finite value.

    Source: Bulanon, Burks, Alchanatis, "Image fusion of visible and thermal images for fruit detection",
    Biosyst. Eng. 2009. Implementations disagree: VIFB leaves out grey levels that the fused picture lacks
    (and so rewards lost levels) and counts bits; the choice here comes nearest to the table of FNet's paper.
    """
    infrared, visible, result = as_triple(ir, vi, fused)
    q = probabilities(result)
    divergence = 0.0
    for source in (infrared, visible):
        p = probabilities(source)
        divergence += float(np.sum(p * np.log((p + CROSS_ENTROPY_EPSILON) / (q + CROSS_ENTROPY_EPSILON))))
    return divergence / 2
