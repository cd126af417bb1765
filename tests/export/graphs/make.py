"""Makes the small graphs in this folder: `python tests/export/graphs/make.py` from the repository's root.

FNet and DAE-Fuse with few channels and blocks, exported in fp32 and fp16, kept because tracing takes
half a minute each. To be made again where a rewrite or an island changes what is computed: `test_precision.py` tells.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from ufuser.export.exporter import trace
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import with_parts
from ufuser.train.models.daefuse import DAEFuse, DAEFuseOptions
from ufuser.train.models.fnet import FNet
from ufuser.train.models.sparse_coding import SparseCoding

HERE = Path(__file__).parent
MODELS = ("fnet", "daefuse")
PRECISIONS = ("fp32", "fp16")


def network(model: str) -> nn.Module:
    """The network whose graph is kept: seeded weights of a trained one's size."""
    torch.manual_seed(11)
    if model == "fnet":
        made: nn.Module = FNet(SparseCoding(iterations=1))
        scale, least = 0.3, 0.02  # some begin as zeros
    else:
        made = DAEFuse(DAEFuseOptions(width=16, heads=4, vit_dim=16, vit_blocks=1, vit_heads=4))
        scale, least = 0.5, 0.0
    with torch.no_grad():
        for p in made.parameters():
            if p.numel() > 1:
                p.add_(scale * p.std().clamp_min(least) * torch.randn(p.shape))
    return made.eval().requires_grad_(False)


def path(model: str, precision: str) -> Path:
    """Where a graph is kept."""
    return HERE / f"{model}_{precision}.onnx"


def main() -> None:
    """Write all of them."""
    for model in MODELS:
        rewritten = rewrite(network(model))
        for precision in PRECISIONS:
            proto = trace(with_parts(to_half(rewritten) if precision == "fp16" else rewritten), 20)
            notes = {"model": model, "precision": precision, "shape_multiple": "8"}
            onnx.helper.set_model_props(proto, notes)
            onnx.checker.check_model(proto, full_check=True)
            onnx.save(proto, path(model, precision))


if __name__ == "__main__":
    main()
