"""`ufuser bench stream`: the rate of a whole stream, with decoding and encoding, against the rate of its model.

Both use the same engine and pictures, interleaved (A B A B), so that the drift of the machine affects both equally.
The ratio is computed per round.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ufuser.runtime.clock import Clock
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable, write_bytes
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.pairing import SIDES
from ufuser.runtime.sinks import VideoSink
from ufuser.runtime.sources import Cameras, frames
from ufuser.runtime.streaming.options import StreamOptions
from ufuser.runtime.streaming.session import session


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Time a whole stream against its model alone.")
    parser.add_argument("--model", default="ufuser", help="shipped model or ONNX file (default: ufuser)")
    parser.add_argument("--engine", default="onnxruntime", help="(default: onnxruntime)")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (default: one per core)")
    parser.add_argument("--size", default="480x640", metavar="HxW", help="(default: 480x640)")
    parser.add_argument("--frames", type=int, default=20, help="per round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: 3)")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the figures to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    match = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", args.size)
    if match is None:
        raise InputError(f"--size {args.size}: expected HEIGHTxWIDTH, such as 480x640")
    if args.frames < 3 or args.rounds < 1:
        raise InputError(
            f"--frames {args.frames} --rounds {args.rounds}: expected at least 3 frames, 1 round"
        )
    check_outputs({"json": args.json}, (args.model,))
    if args.json:
        require_writable(args.json)
    height, width = int(match[1]), int(match[2])
    fuser = Fuser.open(args.model, args.engine, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        ir, vi = _record(Path(folder), height, width, args.frames)
        _model_alone(fuser, height, width, 2)  # warm-up
        alone, whole, reports = [], [], []
        for _ in range(args.rounds):
            alone.append(_model_alone(fuser, height, width, args.frames))
            report = _whole(fuser, ir, vi, Path(folder) / "fused.mp4")
            whole.append(report["fused"]["fps"])
            reports.append(report)
    ratios = [b / a for a, b in zip(alone, whole, strict=True)]
    figures = {
        "machine": asdict(Machine.here()),
        "versions": versions(),
        "engine": fuser.engine.name,
        "threads": args.threads,
        "size": [height, width],
        "frames": args.frames,
        "model_alone_fps": alone,
        "stream_fps": whole,
        "ratio": ratios,
        "ratio_median": statistics.median(ratios),
        "stages_ms": reports[-1]["stages_ms"],
        "drops": reports[-1]["drops"],
    }
    if args.json:
        write_bytes(args.json, f"{json.dumps(figures, indent=2)}\n".encode())
    for number, (a, b, ratio) in enumerate(zip(alone, whole, ratios, strict=True), 1):
        print(f"round {number}: model alone {a:.2f} fps, stream {b:.2f} fps, {100 * ratio:.1f} %")
    stages = ", ".join(f"{name} {ms['p50']:.1f}" for name, ms in figures["stages_ms"].items())
    print(
        f"median {100 * figures['ratio_median']:.1f} % of the model's own rate, {height}x{width}, {args.frames} "
        f"frames per round, {args.model} on {fuser.engine.name} (stages, ms p50: {stages})"
    )
    return 0


def _record(folder: Path, height: int, width: int, count: int) -> tuple[Path, Path]:
    """Record a simulated pair as two H.264 files."""
    query = f"fps=25&size={width}x{height}"
    cameras = Cameras(f"sim://thermal?{query}", f"sim://visible?{query}", Clock(), paced=False)
    paths = folder / "ir.mp4", folder / "vi.mp4"
    with ExitStack() as stack:
        for side, path in zip(SIDES, paths, strict=True):
            sink = stack.enter_context(VideoSink(path, 25))
            for frame in islice(frames(cameras.open(side)), count):
                sink.write(frame)
    return paths


def _model_alone(fuser: Fuser, height: int, width: int, frames: int) -> float:
    """Frames per second of the engine alone, on filled buffers."""
    fuser.engine.bind(height + -height % 8, width + -width % 8)
    began = time.perf_counter()
    for _ in range(frames):
        fuser.engine.run()
    return frames / (time.perf_counter() - began)


def _whole(fuser: Fuser, ir: Path, vi: Path, out: Path) -> dict[str, Any]:
    """Report of a stream from two files to a third. Files are never dropped, so the slowest stage sets the rate."""
    options = StreamOptions(ir=str(ir), vi=str(vi), out=(str(out),))
    with session(options, fuser=fuser) as stream, stream:
        while not stream.wait(0.2):
            pass
        return stream.telemetry.report()
