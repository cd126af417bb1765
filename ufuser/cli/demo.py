"""`ufuser demo`: fuse two simulated cameras, without hardware or downloads."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from numpy.typing import NDArray

from ufuser.cli.options import add_flags, model_shown, open_fuser, options_of
from ufuser.runtime.clock import Clock
from ufuser.runtime.command import Parser
from ufuser.runtime.console import print_json
from ufuser.runtime.contact_sheet import Row, contact_sheet
from ufuser.runtime.files import make_folder, require_writable, write_bytes
from ufuser.runtime.frame import Frame
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.images import write_image
from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.options import FuserOptions
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.progress import Progress
from ufuser.runtime.sinks import VideoSink
from ufuser.runtime.sources import Cameras, frames
from ufuser.runtime.telemetry import Durations

_FPS = 12
_MOMENTS = 4
"""Rows of the contact sheet."""


@dataclass(slots=True)
class _Stages:
    """Seconds per frame, by stage."""

    render: list[float] = field(default_factory=list)
    fuse: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)


class DemoOptions(FuserOptions, frozen=True, kw_only=True):
    """Options of `ufuser demo`."""

    out: Annotated[str, Meta(description="folder", extra={"metavar": "DIR"})] = "ufuser-demo"
    frames: Annotated[int, Meta(ge=1, description=f"frames, {_FPS} per second", extra={"metavar": "N"})] = 36
    size: Annotated[
        str,
        Meta(
            pattern="^[0-9]{1,5}x[0-9]{1,5}$",
            description="width and height, pixels",
            extra={"metavar": "WxH", "expected": "WIDTHxHEIGHT, such as 640x480"},
        ),
    ] = "640x480"
    seed: Annotated[int, Meta(description="selects the street", extra={"metavar": "N"})] = 0


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse a simulated thermal and a simulated visible camera on a street at night: writes a video, a "
        "contact sheet and a report.",
    )
    add_flags(parser, DemoOptions)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the demonstration and print where its files are. Raises InputError."""
    began = time.perf_counter()
    options = options_of(args, DemoOptions)
    width, height = map(int, options.size.split("x"))
    folder = Path(options.out)
    video, sheet, report_file = (folder / name for name in ("fused.mp4", "contact-sheet.png", "report.json"))
    check_outputs({"out": (video, sheet, report_file)}, (options.model,))
    stages, moments = _Stages(), _moments(options.frames)
    rows: list[Row] = []
    with ExitStack() as stack:
        # In this order: outputs that cannot be written are reported before a model is loaded and a street is built.
        query = f"fps={_FPS}&size={width}x{height}&seed={options.seed}"
        cameras = Cameras(f"sim://thermal?{query}", f"sim://visible?{query}", Clock(), paced=False)
        _prepare(stack, folder)
        for path in (sheet, report_file):
            require_writable(path)
        sink = stack.enter_context(VideoSink(video, _FPS))
        fuser = stack.enter_context(open_fuser(options))
        progress = stack.enter_context(Progress("fused", options.frames))
        for index, (ir, vi) in enumerate(_frames(cameras, options.frames, stages)):
            fused = _fused(ir, vi, fuser, sink, stages)
            if index in moments:
                rows.append(Row((ir.image, vi.image, fused), f"t = {vi.timestamp:.1f} s"))
            progress.step()
    write_image(sheet, contact_sheet(("Infrared", "Visible", "Fused"), rows))
    fusing = Durations.of(stages.fuse)
    report = {
        "frames": options.frames,
        "size": [width, height],
        "seconds": time.perf_counter() - began,
        "fps": fusing.fps,
        "p50_ms": fusing.p50_ms,
        "p95_ms": fusing.p95_ms,
        "stages": {name: asdict(Durations.of(seconds)) for name, seconds in asdict(stages).items()},
        "model": fuser.model,
        "model_metadata": dict(fuser.engine.metadata),
        "engine": fuser.engine.name,
        "threads": options.threads,
        "machine": asdict(Machine.here()),
        "versions": versions(),
        "seed": options.seed,
        "paths": {"video": str(video), "contact_sheet": str(sheet), "report": str(report_file)},
    }
    write_bytes(report_file, f"{json.dumps(report, indent=2)}\n".encode())
    if args.json:
        print_json(report)
    else:
        print(_summary(report, model_shown(options.model, fuser.model)))
    return 0


def _frames(cameras: Cameras, count: int, stages: _Stages) -> Iterator[tuple[Frame, Frame]]:
    """Rendered pairs, infrared first."""
    ir, vi = frames(cameras.open("ir")), frames(cameras.open("vi"))
    for _ in range(count):
        began = time.perf_counter()
        pair = next(ir), next(vi)
        stages.render.append(time.perf_counter() - began)
        yield pair


def _prepare(stack: ExitStack, folder: Path) -> None:
    """Create the folder; remove it again if the run fails before anything is in it."""
    if make_folder(folder):
        stack.callback(lambda: None if any(folder.iterdir()) else folder.rmdir())


def _moments(frames: int) -> set[int]:
    """Frame numbers for the contact sheet, spread evenly, first and last included."""
    count = min(_MOMENTS, frames)
    return {round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)}


def _fused(ir: Frame, vi: Frame, fuser: Fuser, sink: VideoSink, stages: _Stages) -> NDArray[Any]:
    """Fuse and encode one pair, timing both."""
    began = time.perf_counter()
    fused = replace(vi, image=fuser.fuse(ir.image, vi.image))
    done = time.perf_counter()
    sink.write(fused)
    stages.fuse.append(done - began)
    stages.encode.append(time.perf_counter() - done)
    return fused.image


def _summary(report: dict[str, Any], model: str) -> str:
    """The report as text."""
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
            f"Per frame (p50): {each}.",
            f"  video          {paths['video']}",
            f"  contact sheet  {paths['contact_sheet']}",
            f"  report         {paths['report']}",
        )
    )
