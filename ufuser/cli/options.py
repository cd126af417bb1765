"""The options that say what fuses, the same for every command."""

from __future__ import annotations

import argparse

from ufuser.runtime import models
from ufuser.runtime.engines import AUTO, ENGINES
from ufuser.runtime.engines.openvino import CPU_PRECISIONS
from ufuser.runtime.fuser import Fuser

AUTO_MODEL = f"{models.AUTO}: ufuser where --engine is a GPU's, else lite"


def add_fuser_options(parser: argparse.ArgumentParser, model: str) -> None:
    """Declare `--model`, with its default, `--engine`, `--threads` and `--cpu-precision`."""
    said = AUTO_MODEL if model == models.AUTO else model
    parser.add_argument("--model", default=model, help=f"shipped model or ONNX file (default: {said})")
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


def which(model: str, chosen: str) -> str:
    """A model's name for a story: where it was chosen for the user, with what else there is."""
    hint = " (--model ufuser: the full network)" if model == models.AUTO and chosen == "lite" else ""
    return f"{chosen}{hint}"


def open_fuser(args: argparse.Namespace) -> Fuser:
    """The fuser that those options ask for. Raises InputError."""
    return Fuser.open(args.model, args.engine, args.threads, args.cpu_precision)
