"""Audit of the printed costs: recompute them and explain the differences.

The published networks are counted by PyTorch's FLOP counter on their definitions, the deployed ones by
`ufuser.benchmarks.cost` on their ONNX graphs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ufuser.benchmarks import published
from ufuser.benchmarks.cost import cost_of
from ufuser.benchmarks.results import Audited
from ufuser.benchmarks.sizes import Size, parse_size

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 0.05
"""Largest relative difference at which a printed figure counts as confirmed."""
PARAMETERS, MACS, FLOPS = "parameters (K)", "MACs (G)", "FLOPs (G)"


@dataclass(frozen=True, slots=True)
class Counted:
    """Counted cost of a network at one size."""

    macs: int
    padded_by_name: int
    """MACs in convolutions that are called with padding='same'."""
    multiplied: int
    """Elementwise multiplications."""


@dataclass(frozen=True, slots=True)
class _Defined:
    """A published network that this package defines."""

    method: str  # its name in the table
    definition: str
    network: nn.Module


def audit(models: Sequence[tuple[str, Path]], sizes: Sequence[Size]) -> list[Audited]:
    """Recompute every printed figure that can be recomputed.

    Args:
        models: name and ONNX file of deployed networks. Those whose metadata names U-Fuser or FNet are compared
            with the printed figure; the papers print none for the others.
        sizes: a size other than the table's is compared with the printed figure scaled by the number of pixels.
    """
    from ufuser.train.models.fnet import FNet
    from ufuser.train.models.ufuser import UFuser

    rows: list[Audited] = []
    defined = {
        "ufuser": _Defined("EMMA", "U-Fuser as published", UFuser()),
        "fnet": _Defined("FNet", "FNet as published", FNet()),
    }
    for size in sizes:
        counted = {name: count(known.network, size) for name, known in defined.items()}
        for name, known in defined.items():
            rows += _of_definition(known, counted[name], size)
        for name, path in models:
            network = _network(path)
            if network in defined:
                rows += _of_graph(name, path, size, defined[network], counted[network])
    return rows


def count(network: nn.Module, size: Size) -> Counted:
    """Count a fusion network for one pair with PyTorch's counter, on shapes only."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    class Calls(TorchFunctionMode):
        """Counts at the level of function calls, as a tracing profiler does."""

        padded_by_name = multiplied = 0

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            result = func(*args, **kwargs)
            name = getattr(func, "__name__", "")
            if name == "conv2d" and "same" in (*args, *kwargs.values()):
                weight = args[1] if len(args) > 1 else kwargs["weight"]
                self.padded_by_name += result.numel() * prod(weight.shape[1:])
            elif name in ("mul", "__mul__", "__rmul__"):
                self.multiplied += result.numel()
            return result

    shapes = copy.deepcopy(network).to("meta")
    pictures = [torch.empty(1, 1, *size, device="meta") for _ in range(2)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, Calls() as calls:
        shapes(*pictures)
    return Counted(int(counter.get_total_flops()) // 2, calls.padded_by_name, calls.multiplied)


def weights_used(row: dict[str, str], size: Size) -> float:
    """Printed operations per weight and pixel: 1 if every weight is used once per pixel.

    Networks at lower resolutions have less; networks that reuse weights have more.
    """
    return float(row["flops_g"]) * 1e9 / (float(row["params_k"]) * 1e3 * prod(size))


def weights(network: nn.Module) -> int:
    """Number of learned parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def _of_definition(known: _Defined, counted: Counted, size: Size) -> list[Audited]:
    method, definition, learned = known.method, known.definition, weights(known.network)
    printed, scaled = _printed(method, size)
    reasons = _reasons(printed * 1e9, counted, learned, size)
    rows = [
        Audited(method, definition, MACS, size, printed, scaled, counted.macs / 1e9, reasons[MACS]),
        Audited(method, definition, FLOPS, size, printed, scaled, 2 * counted.macs / 1e9, reasons[FLOPS]),
    ]
    parameters = published.load("fnet_1_cost").value("params_k", method=method)
    reason = "" if _agree(learned / 1e3, parameters) else "not the published network"
    return [
        Audited(method, definition, PARAMETERS, size, parameters, False, learned / 1e3, reason),
        *rows,
    ]


def _reasons(printed: float, counted: Counted, learned: int, size: Size) -> dict[str, str]:
    """Try the known explanations of a difference from the MACs and from the FLOPs."""
    if _agree(counted.macs, printed):
        return {MACS: "", FLOPS: "the printed figure counts multiply-accumulates, one each, not operations"}
    if _agree(2 * counted.macs, printed):
        return {MACS: "the printed figure counts two operations for each multiply-accumulate", FLOPS: ""}
    unexplained = (
        f"not explained: the network as defined here has {counted.macs / (learned * prod(size)):.2f} "
        f"multiply-accumulates for each weight and pixel, the printed figure {printed / (learned * prod(size)):.3f}"
    )
    if counted.padded_by_name and _agree(counted.macs - counted.padded_by_name + counted.multiplied, printed):
        share = counted.padded_by_name / counted.macs
        unexplained = (
            f"{share:.0%} of the multiply-accumulates are in convolutions with padding='same', which a tracing "
            f"profiler without a rule for them skips; what it still sees are {counted.multiplied / 1e9:.3f} G "
            f"multiplications element by element, within {TOLERANCE:.0%} of the printed figure"
        )
    return {MACS: unexplained, FLOPS: "as for its MACs, and two operations for each multiply-accumulate"}


def _of_graph(name: str, path: Path, size: Size, known: _Defined, plain: Counted) -> list[Audited]:
    """A deployed network compared with the printed figure of the same network."""
    cost = cost_of(path, *size)
    printed, scaled = _printed(known.method, size)
    parameters = published.load("fnet_1_cost").value("params_k", method=known.method)
    saved = 1 - cost.macs / plain.macs
    rewritten = (
        "" if abs(saved) <= TOLERANCE else f"rewritten exactly, the same answer with {-saved:+.0%} MACs"
    )
    folded = "" if _agree(cost.parameters / 1e3, parameters) else "weights stored; folded kernels are fewer"
    if _agree(plain.macs, printed * 1e9):
        macs, flops = rewritten, "the printed figure counts multiply-accumulates"
    else:
        macs = flops = f"the printed figure is not that of {known.definition} either"
        macs = "; ".join(filter(None, (rewritten, macs)))
    flops = "; ".join(filter(None, (rewritten, flops)))
    definition = f"{path.name}, as exported"
    return [
        Audited(name, definition, PARAMETERS, size, parameters, False, cost.parameters / 1e3, folded),
        Audited(name, definition, MACS, size, printed, scaled, cost.macs / 1e9, macs),
        Audited(name, definition, FLOPS, size, printed, scaled, cost.flops / 1e9, flops),
    ]


def _network(path: Path) -> str:
    """Name of the network in the metadata of an exported file; empty for a foreign file."""
    metadata = onnx.load(str(path), load_external_data=False).metadata_props
    return next((entry.value for entry in metadata if entry.key == "model"), "")


def _printed(method: str, size: Size) -> tuple[float, bool]:
    """The printed figure at a size, in G, and whether it is scaled."""
    table = published.load("fnet_1_cost")
    own = parse_size(table.resolution)
    return table.value("flops_g", method=method) * prod(size) / prod(own), size != own


def _agree(a: float, b: float) -> bool:
    return abs(a / b - 1) <= TOLERANCE
