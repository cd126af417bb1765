"""The options that say what fuses, the same for every command."""

from __future__ import annotations

import argparse

from runtime.engines import AUTO, ENGINES
from runtime.engines.openvino import CPU_PRECISIONS
from runtime.fuser import Fuser


def add_fuser_options(parser: argparse.ArgumentParser) -> None:
    """Declare `--model`, `--engine`, `--threads` and `--cpu-precision`."""
    parser.add_argument("--model", default="ufuser", help="shipped model or ONNX file (default: %(default)s)")
    parser.add_argument(
        "--engine",
        default=AUTO,
        metavar="E",
        help=f"what runs it: {', '.join((AUTO, *ENGINES))} (default: %(default)s, the fastest that is installed)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument(
        "--cpu-precision",
        default=CPU_PRECISIONS[0],
        metavar="P",
        help=f"what OpenVINO computes in: {' or '.join(CPU_PRECISIONS)}, where the CPU has it (default: %(default)s)",
    )


def open_fuser(args: argparse.Namespace) -> Fuser:
    """The fuser that those options ask for. Raises InputError."""
    return Fuser.open(args.model, args.engine, args.threads, args.cpu_precision)
