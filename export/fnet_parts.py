"""Names of the inner tensors of an FNet's graph: the exporter writes them, `ufuser explain` reads them."""

from __future__ import annotations

PARTS = ("unique_ir", "common", "unique_vi")
"""Contributions to the fused picture, B×1×H×W, in the order of the paper's figures."""
FEATURES = ("features_ir", "features_common", "features_vi")
"""Features that each part is made from, B×64×H×W."""
