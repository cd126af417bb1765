"""`ufuser bench video`: temporal stability of models on a pair of videos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ufuser.benchmarks.quality.steadiness import grid_energy, noise_gain
from ufuser.benchmarks.quality.video import NoFlowError, flicker, warping_error
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable, write_bytes
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.models import find_model
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.progress import Progress
from ufuser.runtime.sources import VideoSource

Grey = npt.NDArray[np.uint8]
PERIODS = (2, 4, 8)
_NOISE = 0.02


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse a pair of videos with each model and measure temporal stability: warping error by the flow "
        "of each stream (use the one with high coverage), flicker of the mean level beyond the sources, noise gain "
        f"on a static first frame (sigma {_NOISE}), and block-grid lines in the spectrum.",
    )
    parser.add_argument("--ir", type=file_path, required=True, metavar="VIDEO", help="infrared")
    parser.add_argument(
        "--vi", type=file_path, required=True, metavar="VIDEO", help="visible, of the same size"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=["lite", "ufuser"],
        metavar="NAME_OR_ONNX",
        help="shipped models or ONNX files (default: lite ufuser)",
    )
    parser.add_argument(
        "--frames", type=int, default=60, metavar="N", help="frames from the beginning (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="write the rows")
    parser.set_defaults(run=run)
    return parser


def _luma(path: Path, count: int) -> list[Grey]:
    with VideoSource(path) as video:
        frames = (frame.image for frame in islice(iter(video), count))
        return [np.asarray(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) if f.ndim == 3 else f) for f in frames]


def _fused(fuser: Fuser, ir: list[Grey], vi: list[Grey], name: str) -> Iterator[Grey]:
    with Progress(name, len(ir)) as progress:
        for pair in zip(ir, vi, strict=True):
            yield fuser.fuse(*pair)
            progress.step()


def _row(ir: list[Grey], vi: list[Grey], fused: list[Grey]) -> dict[str, float]:
    warping: dict[str, float] = {}
    for name, guide in (("vi", vi), ("ir", ir)):
        try:
            found = warping_error(guide, fused)
        except NoFlowError:  # noise or smoke: no consistent flow
            continue
        warping |= {f"warping_{name}": found.error, f"coverage_{name}": found.coverage}
    grids = {
        f"grid_{period}_db": float(np.mean([grid_energy(frame, period) for frame in fused[::10]]))
        for period in PERIODS
    }
    return {**warping, "flicker": flicker(ir, vi, fused), **grids}


def measured(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of both sources, then of each model. Raises InputError."""
    if args.frames < 2:
        raise InputError(f"--frames {args.frames}: expected at least 2")
    paths = {model: find_model(model) for model in args.model}
    ir, vi = _luma(args.ir, args.frames), _luma(args.vi, args.frames)
    if ir[0].shape != vi[0].shape:
        sizes = " and ".join("x".join(map(str, x[0].shape[::-1])) for x in (ir, vi))
        raise InputError(f"{args.ir} and {args.vi} are {sizes}: expected videos of one size, registered")
    if min(ir[0].shape) < 16 * max(PERIODS):
        raise InputError(
            f"{args.ir} is smaller than {16 * max(PERIODS)} pixels per side: too small to measure"
        )
    common = min(len(ir), len(vi))
    if common < 2:
        raise InputError(f"{args.ir} and {args.vi} have {common} frames in common: expected at least 2")
    ir, vi = ir[:common], vi[:common]
    rows = {"infrared": _row(ir, vi, ir), "visible": _row(ir, vi, vi)}
    for model, path in paths.items():
        fuser = Fuser.open(path, "auto", args.threads)
        row = _row(ir, vi, list(_fused(fuser, ir, vi, model)))
        still_ir, still_vi = ((x[0] / np.float32(255)).astype(np.float32) for x in (ir, vi))
        rows[str(model)] = row | {"noise_gain": noise_gain(fuser.fuse, still_ir, still_vi, _NOISE)}
    return rows


def run(args: argparse.Namespace) -> int:
    """Fuse, measure, print. Returns 0; raises InputError for bad input."""
    check_outputs({"json": args.json}, (args.ir, args.vi, *args.model))
    if args.json is not None:
        require_writable(args.json)
    rows = measured(args)
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    width = max(map(len, rows)) + 2
    print(" " * width + "".join(f"{name:>15}" for name in columns))
    for name, row in rows.items():
        print(f"{name:<{width}}" + "".join(f"{row[c]:15.3f}" if c in row else f"{'':>15}" for c in columns))
    if args.json is not None:
        write_bytes(args.json, f"{json.dumps(rows, indent=2)}\n".encode())
        print(f"{args.json} written", file=sys.stderr)
    return 0
