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
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.rewrite import rewrite
from export.simplify import constant_reshapes
from train.checkpoint import load_model, write_atomically
from train.errors import InputError

SHAPE_MULTIPLE = 8
TOLERANCE = 1e-4
PARITY_SHAPES = ((1, 64, 64), (2, 72, 104), (1, 240, 320))  # batch, height, width
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


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one picture pair, by PyTorch's counter (which counts two operations for each)."""
    shapes = copy.deepcopy(model).to("meta")  # nothing is computed
    example = torch.empty(1, 1, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        shapes(example, example.clone())
    return int(counter.get_total_flops()) // 2


def trace(model: nn.Module, opset: int) -> onnx.ModelProto:
    """Export a network with symbolic batch, height and width (multiples of 8)."""
    height, width = (SHAPE_MULTIPLE * torch.export.Dim(n, min=2, max=1024) for n in ("hf", "wf"))
    dims = {0: torch.export.Dim("batch", min=1, max=256), 2: height, 3: width}
    # A batch of 1 would freeze it; one tensor for both inputs would tie the second encoder to the first.
    example = torch.rand(2, 1, 96, 128), torch.rand(2, 1, 96, 128)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            dynamic_shapes=(dims, dict(dims)),
            external_data=False,
            opset_version=opset,
            input_names=["ir", "vi"],
            output_names=["fused"],
            verbose=False,
        )
        assert program is not None
    proto: onnx.ModelProto = program.model_proto
    constant_reshapes(proto)
    _name_dimensions(proto)
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
        ir, vi = _test_pictures(shape)
        with torch.no_grad():
            expected = reference(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
        (given,) = session.run(["fused"], {"ir": ir, "vi": vi})
        difference = np.abs(given - expected)
        # NaN compares false with every tolerance: make it fail.
        found.append((shape, float("inf") if np.isnan(difference).any() else float(difference.max())))
    return found


def _test_pictures(shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two different pictures with smooth parts, edges, noise, black and white."""
    batch, height, width = shape
    rng = np.random.default_rng(shape)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pictures = []
    for phase in (0.0, 2.0):
        smooth = 0.5 + 0.5 * np.sin(6 * x + 4 * y * y + phase)
        edges = (np.sin(23 * x + phase) * np.sin(17 * y) > 0.3) * 0.6
        noise = rng.standard_normal((batch, 1, height, width)) * 0.1
        pictures.append(np.clip(smooth - edges + noise, 0, 1).astype(np.float32))
    return pictures[0], pictures[1]


def export(
    checkpoint: Path, out: Path, model_name: str | None, opset: int, say: Callable[[str], None]
) -> Exported:
    """Export a checkpoint of ours.

    Args:
        checkpoint: safetensors written by `python -m train`.
        out: ONNX file to write; published whole or not at all.
        model_name: the model that the checkpoint must hold; None takes what it says.
        opset: ONNX opset, 18 to 20.
        say: takes a line about each step.

    Raises:
        InputError: a checkpoint that can't be used, a place that can't be written, or an ONNX graph that
            answers otherwise than PyTorch by more than 1e-4.
    """
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise InputError(f"--opset {opset}: expected {FIRST_OPSET} to {LAST_OPSET}")
    if not out.parent.is_dir() or out.is_dir():
        raise InputError(f"cannot write {out}: expected a file name in a folder that exists")
    reference, origin = load_model(checkpoint, model_name)
    rewritten = rewrite(reference)
    parameters = sum(p.numel() for p in reference.parameters())
    say("tracing the network (half a minute or so) …")
    proto = trace(rewritten, opset)
    macs_per_pixel = count_macs(rewritten, 264, 400) / (264 * 400)
    _describe(proto, checkpoint, origin, parameters, macs_per_pixel)
    say("checking the graph …")
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString()
    largest = 0.0
    for (batch, height, width), error in parity(reference, content):
        say(f"  {batch}x1x{height}x{width}: largest difference from PyTorch {error:.2e}")
        largest = max(largest, error)
    if not largest <= TOLERANCE:
        raise InputError(
            f"{checkpoint}: the exported graph differs from PyTorch by {largest:.2e}, allowed is {TOLERANCE:.0e}; "
            f"nothing was written"
        )
    write_atomically(out, content)
    return Exported(out, len(proto.graph.node), parameters, macs_per_pixel, largest, len(content))


def _describe(
    proto: onnx.ModelProto, checkpoint: Path, origin: dict[str, str], parameters: int, macs_per_pixel: float
) -> None:
    notes = {
        "model": origin["model"],
        "precision": "fp32",
        "toolkit_version": version("ufuser"),
        "parameters": str(parameters),
        "macs_per_pixel": f"{macs_per_pixel:.1f}",
        "shape_multiple": str(SHAPE_MULTIPLE),
        "value_range": "[0, 1]",
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "recipe": origin.get("recipe", ""),
        "training": origin.get("notes", "{}"),
    }
    onnx.helper.set_model_props(proto, notes)


def get_parser() -> argparse.ArgumentParser:
    """The command line, apart from its execution."""
    parser = argparse.ArgumentParser(
        prog="ufuser-export", description="Export a trained checkpoint to ONNX and check it against PyTorch."
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="safetensors written by `python -m train`"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--model", help="the model that the checkpoint must hold (default: what it says)")
    parser.add_argument("--opset", type=int, default=LAST_OPSET, help="ONNX opset, 18 to 20 (default: 20)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = get_parser().parse_args(argv)
    start = time.perf_counter()

    def say(line: str) -> None:
        print(f"[{time.perf_counter() - start:5.1f} s] {line}", file=sys.stderr, flush=True)

    try:
        made = export(args.checkpoint, args.out, args.model, args.opset, say)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if args.json:
        print(json.dumps(made.__dict__ | {"out": str(made.out)}))
    else:
        print(
            f"{made.out}: {made.nodes} nodes, {made.size / 1e6:.1f} MB, "
            f"{made.macs_per_pixel * 264 * 400 / 1e9:.2f} GMACs at 264x400, "
            f"largest difference from PyTorch {made.largest_error:.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
