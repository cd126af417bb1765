"""A trained checkpoint → an ONNX file with dynamic batch, height and width, checked against PyTorch.

Run as `ufuser-export` or `python export/to_onnx.py`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ufuser.export.fidelity import PARITY_SHAPES, synthetic_pair
from ufuser.export.lowering import Lowering, lower
from ufuser.export.onnx_file import add_metadata
from ufuser.export.precision import PRECISIONS, to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import thresholds, with_parts
from ufuser.export.simplify import constant_reshapes
from ufuser.runtime.command import Parser, run_command
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.progress import timed_printer
from ufuser.runtime.shapes import MULTIPLE
from ufuser.train.checkpoint import Metadata, load_model
from ufuser.train.models.fnet import FNet

TOLERANCE = 1e-4
FIRST_OPSET, LAST_OPSET = (
    18,
    20,
)  # PyTorch exports no lower, TensorRT 10.3 and static quantisation take no higher


@dataclass(frozen=True)
class Exported:
    """What an export made and how far it is from PyTorch."""

    out: Path
    nodes: int
    parameters: int
    macs_per_pixel: float
    largest_error: float
    size: int
    precision: str = "fp32"
    psnr_db: float | None = None  # against fp32; None for fp32 itself


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one picture pair, by PyTorch's counter (which counts two operations for each)."""
    shapes = copy.deepcopy(model).to("meta")  # nothing is computed
    example = torch.empty(1, 1, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes(example, example.clone())
    return int(counter.get_total_flops()) // 2


def trace(model: nn.Module, opset: int) -> onnx.ModelProto:
    """Export a network with symbolic batch, height and width (multiples of 8).

    A network with `part_names` answers those parts, too. They get their names in the graph, but are no outputs of it:
    no engine has to keep them.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            proto = _converted(model, opset, decompose=False)
        except torch.onnx.OnnxExporterError:  # an operator that only its decomposition can be translated of
            proto = _converted(model, opset, decompose=True)
    del proto.graph.output[1:]
    constant_reshapes(proto)
    _name_dimensions(proto)
    return proto


def _converted(model: nn.Module, opset: int, decompose: bool) -> onnx.ModelProto:
    """PyTorch's export as it comes; decomposing takes as long as all the rest (see `ufuser.export.translations`)."""
    # With ONNX Script, which takes a second to import.
    from ufuser.export.translations import TRANSLATIONS, as_it_is, without_cached_shapes

    parts: tuple[str, ...] = getattr(model, "part_names", ())
    height, width = (MULTIPLE * torch.export.Dim(n, min=2, max=1024) for n in ("hf", "wf"))
    dims = {0: torch.export.Dim("batch", min=1, max=256), 2: height, 3: width}
    # A batch of 1 would freeze it; one tensor for both inputs would tie the second encoder to the first.
    example = torch.rand(2, 1, 96, 128), torch.rand(2, 1, 96, 128)
    with without_cached_shapes():
        program = torch.export.export(model, example, dynamic_shapes=(dims, dict(dims)), strict=False)
        made = torch.onnx.export(
            program if decompose else as_it_is(program),
            dynamo=True,
            external_data=False,
            opset_version=opset,
            custom_translation_table=None if decompose else TRANSLATIONS,
            input_names=["ir", "vi"],
            output_names=["fused", *parts],
            verbose=False,
        )
    assert made is not None
    proto: onnx.ModelProto = made.model_proto
    return proto


def _name_dimensions(proto: onnx.ModelProto) -> None:
    """Call the symbolic axes what they are, and drop intermediate shapes, which engines infer themselves."""
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]  # stack traces of the exporting machine
    for function_or_graph in (proto, proto.graph):
        del function_or_graph.metadata_props[:]


def parity(reference: nn.Module, model: bytes) -> list[tuple[tuple[int, int, int], float]]:
    """Largest absolute difference between PyTorch and ONNX Runtime at each of the parity shapes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = []
    for shape in PARITY_SHAPES:
        ir, vi = synthetic_pair(shape)
        with torch.no_grad():
            expected = reference(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
        (given,) = session.run(["fused"], {"ir": ir, "vi": vi})
        difference = np.abs(given - expected)
        # NaN compares false with every tolerance: make it fail.
        found.append((shape, float("inf") if np.isnan(difference).any() else float(difference.max())))
    return found


def export(
    checkpoint: Path,
    out: Path,
    model_name: str | None,
    opset: int,
    say: Callable[[str], None],
    lowering: Lowering | None = None,
) -> Exported:
    """Export a checkpoint of ours.

    Args:
        checkpoint: safetensors written by `python -m ufuser.train`.
        out: ONNX file to write; published whole or not at all.
        model_name: the model that the checkpoint must hold; None takes what it says.
        opset: ONNX opset, 18 to 20.
        say: takes a line about each step.
        lowering: a precision below float32; None stays with float32.

    Raises:
        InputError: a checkpoint that can't be used, a place that can't be written, or an ONNX graph that
            answers otherwise than PyTorch by more than 1e-4; in a lower precision, one whose PSNR against
            fp32 is below `PSNR_FLOOR`.
    """
    lowering = lowering or Lowering()
    lowering.check()
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise InputError(f"--opset {opset}: expected {FIRST_OPSET} to {LAST_OPSET}")
    if not out.parent.is_dir() or out.is_dir():
        raise InputError(f"cannot write {out}: expected a file name in a folder that exists")
    reference, origin = load_model(checkpoint, model_name)
    rewritten = rewrite(reference)
    parameters = sum(p.numel() for p in reference.parameters())
    say("tracing the network (half a minute or so) …")
    proto = trace(with_parts(to_half(rewritten) if lowering.precision == "fp16" else rewritten), opset)
    macs_per_pixel = count_macs(rewritten, 264, 400) / (264 * 400)
    _describe(proto, checkpoint, origin, parameters, macs_per_pixel)
    if isinstance(reference, FNet):
        scale = str(reference.net_u.coding.gamma)
        add_metadata(proto, {"thresholds": json.dumps(thresholds(reference)), "feature_scale": scale})
    say("checking the graph …")
    onnx.checker.check_model(proto, full_check=True)
    largest, psnr_db = 0.0, None
    if lowering.precision != "fp16":
        largest = _checked_parity(checkpoint, reference, proto, say)
        add_metadata(
            proto, {"error_largest": f"{largest:.3e}", "error_over": "made pictures, against PyTorch"}
        )
    if lowering.precision != "fp32":
        proto, difference = lower(reference, proto, lowering, say)
        largest, psnr_db = difference.largest, difference.psnr_db
    content = proto.SerializeToString()
    write_bytes(out, content)
    return Exported(
        out,
        len(proto.graph.node),
        parameters,
        macs_per_pixel,
        largest,
        len(content),
        lowering.precision,
        psnr_db,
    )


def _checked_parity(
    checkpoint: Path, reference: nn.Module, proto: onnx.ModelProto, say: Callable[[str], None]
) -> float:
    """The largest difference from PyTorch. Raises InputError if it is more than rounding."""
    largest = 0.0
    for (batch, height, width), error in parity(reference, proto.SerializeToString()):
        say(f"  {batch}x1x{height}x{width}: largest difference from PyTorch {error:.2e}")
        largest = max(largest, error)
    if not largest <= TOLERANCE:
        raise InputError(
            f"{checkpoint}: the exported graph differs from PyTorch by {largest:.2e}, allowed is {TOLERANCE:.0e}; "
            f"nothing was written"
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


def get_parser(prog: str = "ufuser export") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog, description="Export a trained checkpoint to ONNX and check it against PyTorch."
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="safetensors written by `python -m ufuser.train`"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--model", help="the model that the checkpoint must hold (default: what it says)")
    parser.add_argument("--opset", type=int, default=LAST_OPSET, help="ONNX opset, 18 to 20 (default: 20)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the graph (default: %(default)s)"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="real pairs DIR/ir, DIR/vi: int8 is made with, fp16 judged by them",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help="of --calibration, those that only judge, a stem a line",
    )
    parser.add_argument(
        "--int8-for", choices=("cpu", "tensorrt"), default="cpu", help="what runs it (default: %(default)s)"
    )
    parser.add_argument(
        "--crops", type=int, default=48, help="to calibrate int8 with, 32 or more (default: 48)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    lowering = Lowering(args.precision, args.calibration, args.validation, args.int8_for, args.crops)
    made = export(args.checkpoint, args.out, args.model, args.opset, timed_printer(), lowering)
    if args.json:
        print(json.dumps(made.__dict__ | {"out": str(made.out)}))
        return 0
    print(
        f"{made.out}: {made.precision}, {made.nodes} nodes, {made.size / 1e6:.1f} MB, "
        f"{made.macs_per_pixel * 264 * 400 / 1e9:.2f} GMACs at 264x400, "
        + (
            f"largest difference from PyTorch {made.largest_error:.1e}"
            if made.psnr_db is None
            else f"{made.psnr_db:.1f} dB against fp32, largest difference {made.largest_error:.1e}"
        )
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
