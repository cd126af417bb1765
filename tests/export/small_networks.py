"""FNet and DAE-Fuse with few channels and blocks, and their graphs in fp32 and fp16."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from tests.export.export_cache import ExportCache, weights_of
from ufuser.export.exporter import trace
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import with_parts
from ufuser.train.models.daefuse import DAEFuse, DAEFuseOptions
from ufuser.train.models.fnet import FNet
from ufuser.train.models.sparse_coding import SparseCoding

MODELS = ("fnet", "daefuse")


def small_network(model: str) -> nn.Module:
    """A network with seeded weights of a trained one's magnitude."""
    torch.manual_seed(11)
    if model == "fnet":
        network: nn.Module = FNet(SparseCoding(iterations=1))
        scale, least = 0.3, 0.02  # some weights begin as zeros
    else:
        network = DAEFuse(DAEFuseOptions(width=16, heads=4, vit_dim=16, vit_blocks=1, vit_heads=4))
        scale, least = 0.5, 0.0
    with torch.no_grad():
        for p in network.parameters():
            if p.numel() > 1:
                p.add_(scale * p.std().clamp_min(least) * torch.randn(p.shape))
    return network.eval().requires_grad_(False)


class SmallGraphs:
    """Graphs of the small networks, exported once."""

    def __init__(self, cache: ExportCache) -> None:
        self._cache = cache

    def path(self, model: str, precision: str) -> Path:
        """The graph of a network in fp32 or fp16."""
        network = small_network(model)

        def export(folder: Path) -> None:
            rewritten = rewrite(network)
            graph = trace(with_parts(to_half(rewritten) if precision == "fp16" else rewritten), 20)
            notes = {"model": model, "precision": precision, "shape_multiple": "8"}
            onnx.helper.set_model_props(graph, notes)
            onnx.checker.check_model(graph, full_check=True)
            onnx.save(graph, folder / "x.onnx")

        return self._cache(f"small-{model}-{precision}", [weights_of(network)], export) / "x.onnx"
