"""`ufuser demo`: a simulated pair of cameras drives the whole runtime, without hardware or downloads."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ufuser.cli.options import add_fuser_options, open_fuser, which
from ufuser.runtime import models
from ufuser.runtime.command import Parser
from ufuser.runtime.contact_sheet import Row, contact_sheet
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, require_writable, write_bytes
from ufuser.runtime.frame import Frame
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.images import write_image
from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.progress import Progress
from ufuser.runtime.sinks import VideoSink
from ufuser.runtime.sources import open_pair
from ufuser.runtime.telemetry import Durations

_FPS = 12
_MOMENTS = 4
"""Rows of the contact sheet."""


@dataclass(slots=True)
class _Stages:
    """Seconds of every frame, by stage."""

    render: list[float] = field(default_factory=list)
    fuse: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse what a simulated thermal and a simulated visible camera see in a street at night: "
        "writes a video, a contact sheet and a report.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("ufuser-demo"), metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", type=int, default=36, metavar="N", help=f"frames, {_FPS} a second (default: %(default)s)"
    )
    parser.add_argument("--size", default="640x480", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the street (default: %(default)s)")
    add_fuser_options(parser, models.AUTO)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the demonstration and print where its files are. Raises InputError."""
    began = time.perf_counter()
    if args.frames < 1:
        raise InputError(f"--frames {args.frames}: expected at least 1")
    if re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", args.size) is None:
        raise InputError(f"--size {args.size}: expected WIDTHxHEIGHT in pixels, such as 640x480")
    folder: Path = args.out
    video, sheet, report_file = (folder / name for name in ("fused.mp4", "contact-sheet.png", "report.json"))
    stages, moments = _Stages(), _moments(args.frames)
    rows: list[Row] = []
    with ExitStack() as stack:
        fuser = open_fuser(args)
        query = f"fps={_FPS}&size={args.size}&seed={args.seed}"
        ir, vi = open_pair(f"sim://thermal?{query}", f"sim://visible?{query}")
        _prepare(stack, folder)
        for path in (sheet, report_file):
            require_writable(path)
        sink = stack.enter_context(VideoSink(video, vi.size, _FPS))
        progress = stack.enter_context(Progress("fused", args.frames))
        pairs = zip(iter(ir), iter(vi), strict=True)
        for number in range(args.frames):
            heat, light, fused = _one(pairs, fuser, sink, stages)
            if number in moments:
                rows.append(Row((heat.image, light.image, fused.image), f"t = {light.timestamp:.1f} s"))
            progress.step()
    write_image(sheet, contact_sheet(("Infrared", "Visible", "Fused"), rows))
    fusing = Durations.of(stages.fuse)
    report = {
        "frames": args.frames,
        "size": list(vi.size),
        "seconds": time.perf_counter() - began,
        "fps": fusing.fps,
        "p50_ms": fusing.p50_ms,
        "p95_ms": fusing.p95_ms,
        "stages": {name: asdict(Durations.of(seconds)) for name, seconds in asdict(stages).items()},
        "model": fuser.model,
        "model_metadata": dict(fuser.engine.metadata),
        "engine": fuser.engine.name,
        "threads": args.threads,
        "machine": asdict(Machine.here()),
        "versions": versions(),
        "sources": [ir.name, vi.name],
        "paths": {"video": str(video), "contact_sheet": str(sheet), "report": str(report_file)},
    }
    text = json.dumps(report, indent=2)
    write_bytes(report_file, f"{text}\n".encode())
    print(text if args.json else _story(report, which(args.model, fuser.model)))
    return 0


def _prepare(stack: ExitStack, folder: Path) -> None:
    """Create the folder; if the run fails before anything is in it, it goes again."""
    if make_folder(folder):
        stack.callback(lambda: None if any(folder.iterdir()) else folder.rmdir())


def _moments(frames: int) -> set[int]:
    """Frame numbers for the contact sheet, spread evenly, first and last included."""
    count = min(_MOMENTS, frames)
    return {round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)}


def _one(
    pairs: Iterator[tuple[Frame, Frame]], fuser: Fuser, sink: VideoSink, stages: _Stages
) -> tuple[Frame, Frame, Frame]:
    """Take one frame the whole way, timing each stage. Gives infrared, visible, fused."""
    clock = time.perf_counter
    start = clock()
    ir, vi = next(pairs)
    rendered = clock()
    fused = replace(vi, image=fuser.fuse(ir.image, vi.image))
    done = clock()
    sink.write(fused)
    stages.render.append(rendered - start)
    stages.fuse.append(done - rendered)
    stages.encode.append(clock() - done)
    return ir, vi, fused


def _story(report: dict[str, Any], model: str) -> str:
    """The report in a few lines for people."""
    width, height = report["size"]
    stages, machine, paths = report["stages"], report["machine"], report["paths"]
    threads = "" if report["threads"] is None else f", {report['threads']} threads"
    each = ", ".join(f"{name} {stage['p50_ms']:.1f} ms" for name, stage in stages.items())
    return "\n".join(
        (
            f"Fused {report['frames']} frames of {width}x{height} from a simulated street at night "
            f"in {report['seconds']:.1f} s.",
            f"Fusing alone: {report['fps']:.1f} fps, {report['p50_ms']:.1f} ms p50, "
            f"{report['p95_ms']:.1f} ms p95, {model} on {report['engine']} "
            f"({machine['cpu']}, {machine['cores']} cores{threads}).",
            f"A frame's way (p50): {each}.",
            f"  video          {paths['video']}",
            f"  contact sheet  {paths['contact_sheet']}",
            f"  report         {paths['report']}",
        )
    )
