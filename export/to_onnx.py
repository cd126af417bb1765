"""`ufuser export` or `python export/to_onnx.py`: a checkpoint as an ONNX file, checked against PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ufuser.export.tolerances import CROPS, INT8_TARGETS, LEAST_CROPS, OPSETS, PRECISIONS
from ufuser.runtime.command import Parser, file_path, run_command
from ufuser.runtime.console import print_json
from ufuser.runtime.outputs import check_outputs, folders_of
from ufuser.runtime.progress import timed_printer

if TYPE_CHECKING:
    from ufuser.export.exporter import Exported


def get_parser(prog: str = "ufuser export") -> Parser:
    """The command line, apart from its execution."""
    first, last = OPSETS
    parser = Parser(
        prog=prog, description="Export a trained checkpoint to ONNX and check it against PyTorch."
    )
    parser.add_argument(
        "--checkpoint",
        type=file_path,
        required=True,
        metavar="NAME|FILE",
        help="shipped weights, such as ufuser, or the safetensors file of a training",
    )
    parser.add_argument("--out", type=file_path, required=True, metavar="FILE.onnx")
    parser.add_argument("--model", help="the network that the checkpoint must hold (default: any)")
    parser.add_argument(
        "--opset", type=int, default=last, help=f"ONNX opset, {first} to {last} (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the graph (default: %(default)s)"
    )
    parser.add_argument(
        "--calibration",
        type=file_path,
        metavar="DIR",
        help="real pairs DIR/ir, DIR/vi: int8 is calibrated with them, fp16 is compared over them",
    )
    parser.add_argument(
        "--validation",
        type=file_path,
        metavar="FILE",
        help="stems, one a line, of the pairs of --calibration that the result is compared over",
    )
    parser.add_argument(
        "--int8-for",
        choices=INT8_TARGETS,
        default="cpu",
        help="where int8 will run (default: %(default)s)",
    )
    parser.add_argument(
        "--crops",
        type=int,
        default=CROPS,
        help=f"crops to calibrate int8 with, {LEAST_CROPS} or more (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    from ufuser.export.exporter import export
    from ufuser.export.lowering import Lowering
    from ufuser.train.checkpoint import find_checkpoint

    check_outputs({"out": args.out}, (args.checkpoint, *folders_of(args.calibration), args.validation))
    lowering = Lowering(args.precision, args.calibration, args.validation, args.int8_for, args.crops)
    checkpoint = find_checkpoint(args.checkpoint, "checkpoint", "fusion")
    exported = export(checkpoint, args.out, args.model, args.opset, timed_printer(), lowering)
    if args.json:
        print_json(exported.__dict__ | {"out": str(exported.out)})
    else:
        print(summary(exported))
    return 0


def summary(exported: Exported) -> str:
    """One line about the file."""
    error = f"largest difference {exported.largest_error:.1e}"
    compared = (
        f"{error} from PyTorch"
        if exported.psnr_db is None
        else f"{exported.psnr_db:.1f} dB against fp32, {error}"
    )
    return (
        f"{exported.out}: {exported.precision}, {exported.nodes} nodes, {exported.size / 1e6:.1f} MB, "
        f"{exported.macs_per_pixel * 264 * 400 / 1e9:.2f} GMACs at 264x400, {compared}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
