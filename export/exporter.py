"""Export of a trained checkpoint to ONNX with dynamic batch, height and width, checked against PyTorch."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ufuser.export.fidelity import onnx_network, synthetic_pair, torch_network
from ufuser.export.lowering import Lowering, lower
from ufuser.export.onnx_file import add_metadata
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import thresholds, with_parts
from ufuser.export.simplify import constant_reshapes
from ufuser.export.tolerances import LARGEST_ERROR, OPSETS, PARITY_SHAPES
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable, write_bytes
from ufuser.runtime.shapes import MULTIPLE
from ufuser.train.checkpoint import Metadata, load_model
from ufuser.train.models.fnet import FNet

_COUNTED = (264, 400)  # height and width at which operations are counted


@dataclass(frozen=True)
class Exported:
    """An exported file and its difference from PyTorch."""

    out: Path
    nodes: int
    parameters: int
    macs_per_pixel: float
    largest_error: float
    size: int
    precision: str = "fp32"
    psnr_db: float | None = None  # against fp32; None for fp32 itself


def export(
    checkpoint: Path,
    out: Path,
    model_name: str | None,
    opset: int,
    report: Callable[[str], None],
    lowering: Lowering | None = None,
) -> Exported:
    """Export a checkpoint.

    Args:
        checkpoint: safetensors file written by `ufuser train`.
        out: ONNX file, written atomically.
        model_name: the network that the checkpoint must hold; None accepts any.
        opset: ONNX opset, 18 to 20.
        report: receives a line about each step.
        lowering: a precision below float32; None stays with float32.

    Raises:
        InputError: a checkpoint that cannot be used, a file that cannot be written, a graph whose answer differs
            from PyTorch by more than `LARGEST_ERROR`; in a lower precision, a PSNR against fp32 below `PSNR_FLOOR`.
    """
    lowering = lowering or Lowering()
    lowering.check()
    first, last = OPSETS
    if not first <= opset <= last:
        raise InputError(f"opset={opset}: expected {first} to {last}", argument="opset")
    require_writable(out)
    reference, origin = load_model(checkpoint, model_name)
    rewritten = rewrite(reference)
    parameters = sum(p.numel() for p in reference.parameters())
    report("tracing the network (half a minute or so) …")
    proto = trace(with_parts(to_half(rewritten) if lowering.precision == "fp16" else rewritten), opset)
    macs_per_pixel = count_macs(rewritten, *_COUNTED) / (_COUNTED[0] * _COUNTED[1])
    _describe(proto, checkpoint, origin, parameters, macs_per_pixel)
    if isinstance(reference, FNet):
        scale = str(reference.net_u.coding.gamma)
        add_metadata(proto, {"thresholds": json.dumps(thresholds(reference)), "feature_scale": scale})
    report("checking the graph …")
    onnx.checker.check_model(proto, full_check=True)
    largest, psnr_db = 0.0, None
    if lowering.precision != "fp16":
        largest = _checked_parity(checkpoint, reference, proto, report)
        add_metadata(
            proto, {"error_largest": f"{largest:.3e}", "error_over": "synthetic pictures, against PyTorch"}
        )
    if lowering.precision != "fp32":
        proto, difference = lower(reference, proto, lowering, report)
        largest, psnr_db = difference.largest, difference.psnr_db
    content = proto.SerializeToString()
    write_bytes(out, content)
    nodes = len(proto.graph.node)
    return Exported(
        out, nodes, parameters, macs_per_pixel, largest, len(content), lowering.precision, psnr_db
    )


def trace(model: nn.Module, opset: int) -> onnx.ModelProto:
    """Export a network with symbolic batch, height and width (multiples of 8).

    The further answers of a network with `part_names` get these names in the graph, but are no outputs of it: an
    engine need not keep them.
    """
    parts: tuple[str, ...] = getattr(model, "part_names", ())
    height, width = (MULTIPLE * torch.export.Dim(n, min=2, max=1024) for n in ("hf", "wf"))
    dims = {0: torch.export.Dim("batch", min=1, max=256), 2: height, 3: width}
    # A batch of 1 would freeze it; one tensor for both inputs would tie the second encoder to the first.
    example = torch.rand(2, 1, 96, 128), torch.rand(2, 1, 96, 128)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.onnx.export(
            torch.export.export(model, example, dynamic_shapes=(dims, dict(dims)), strict=False),
            dynamo=True,
            external_data=False,
            opset_version=opset,
            input_names=["ir", "vi"],
            output_names=["fused", *parts],
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing: expected an ONNXProgram")
    proto: onnx.ModelProto = exported.model_proto
    del proto.graph.output[1:]
    constant_reshapes(proto)
    _name_dimensions(proto)
    return proto


def _name_dimensions(proto: onnx.ModelProto) -> None:
    """Name the symbolic axes; drop intermediate shapes, which engines infer, and traces of the exporting machine."""
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]  # with stack traces
    for function_or_graph in (proto, proto.graph):
        del function_or_graph.metadata_props[:]


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates for one pair of pictures, by PyTorch's counter (which counts two operations for each)."""
    shapes = copy.deepcopy(model).to("meta")  # nothing is computed
    example = torch.empty(1, 1, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes(example, example.clone())
    return int(counter.get_total_flops()) // 2


def parity(reference: nn.Module, model: bytes) -> list[tuple[tuple[int, int, int], float]]:
    """Largest absolute difference between PyTorch and ONNX Runtime at each of the parity shapes."""
    networks = torch_network(reference), onnx_network(model)
    found = []
    for shape in PARITY_SHAPES:
        expected, given = (network(*synthetic_pair(shape)) for network in networks)
        difference = np.abs(given - expected)
        # NaN compares false with every tolerance: make it fail.
        found.append((shape, float("inf") if np.isnan(difference).any() else float(difference.max())))
    return found


def _checked_parity(
    checkpoint: Path, reference: nn.Module, proto: onnx.ModelProto, report: Callable[[str], None]
) -> float:
    """The largest difference from PyTorch. Raises InputError if it is more than rounding."""
    largest = 0.0
    for (batch, height, width), error in parity(reference, proto.SerializeToString()):
        report(f"  {batch}x1x{height}x{width}: largest difference from PyTorch {error:.2e}")
        largest = max(largest, error)
    if not largest <= LARGEST_ERROR:
        raise InputError(
            f"{checkpoint}: the exported graph differs from PyTorch by {largest:.2e}, allowed is "
            f"{LARGEST_ERROR:.0e}; nothing was written"
        )
    return largest


def _describe(
    proto: onnx.ModelProto, checkpoint: Path, origin: Metadata, parameters: int, macs_per_pixel: float
) -> None:
    notes = {
        "model": origin.model,
        "precision": "fp32",
        "toolkit_version": version("ufuser"),
        "parameters": str(parameters),
        "macs_per_pixel": f"{macs_per_pixel:.1f}",
        "shape_multiple": str(MULTIPLE),
        "value_range": "[0, 1]",
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "recipe": origin.recipe,
        "training": json.dumps(origin.notes, sort_keys=True),
    }
    onnx.helper.set_model_props(proto, notes)
