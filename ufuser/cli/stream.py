"""`ufuser stream`: two cameras in, one fused stream out, until it is stopped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ufuser.cli.options import add_flags, model_shown
from ufuser.cli.shutdown import UNFINISHED, Shutdown, exit_without_teardown
from ufuser.runtime.command import BAD_INPUT, Parser, file_path
from ufuser.runtime.console import print_json
from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.options import from_flags, from_toml
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.progress import Progress
from ufuser.runtime.streaming.options import StreamOptions
from ufuser.runtime.streaming.session import inputs_of, outputs_of, session
from ufuser.runtime.streaming.stream import Stream
from ufuser.runtime.telemetry.events import Event

SINK_FAILED = 1
_POLL = 0.1
"""Real seconds between two updates of the progress line."""


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse two live cameras into one stream until they end or it is stopped (Ctrl-C, SIGTERM).",
        epilog="Sources: v4l2:///dev/video0?format=Y16&size=640x512&fps=30, csi://0, gst:PIPELINE, rtsp://…, a "
        "video file, folder:DIR?fps=25, sim://thermal?…, sim://visible?…; a file or folder with ?live=1 plays as a "
        "camera. Outputs: window:, a file (.mp4, .mkv, .avi), folder:DIR, mjpeg://127.0.0.1:8080, rtsp://…, null:. "
        "Times are in seconds, or as in 12ms. docs/stream.md describes all options.",
    )
    parser.add_argument(
        "--config",
        type=file_path,
        metavar="FILE",
        help="TOML file with options, named as here; flags override it",
    )
    add_flags(parser, StreamOptions, required=False)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Stream until the end.

    Returns:
        0; 1 if an output failed on the way, a file ended before its time, or something was left unfinished.

    Raises:
        InputError: a bad option, or an input that cannot be opened or read any further.
    """
    options = stream_options(args)
    check_outputs(outputs_of(options), (*inputs_of(options), args.config))
    with Progress("fused", None) as progress, Shutdown() as shutdown:
        notes = _Notes(progress)
        with session(options, notes.add) as stream:
            shutdown.graceful(stream.busy)
            error: InputError | None = None
            try:
                with stream:
                    while not shutdown.requested.is_set() and not stream.wait(_POLL):
                        notes.show(stream)
            except InputError as e:
                error = e
            notes.show(stream)
            report = _report(stream, shutdown.requested.is_set(), error)
            # A stream that never began has nothing to report.
            if options.report is not None and (error is None or report["fused"]["frames"]):
                write_bytes(Path(options.report), f"{json.dumps(report, indent=2)}\n".encode())
        if stream.unfinished:
            exit_without_teardown(BAD_INPUT if error is not None else UNFINISHED)
        if error is not None:
            raise error
        if args.json:
            print_json(report)
        else:
            print(_summary(report), flush=True)
    # A file fails once only, where it is not whole; a camera is opened again.
    truncated = not stream.live and any(side in report["failures"] for side in ("ir", "vi"))
    return SINK_FAILED if report["failed_outputs"] or report["unfinished"] or truncated else 0


def stream_options(args: argparse.Namespace) -> StreamOptions:
    """Flags over the TOML file over the defaults. Raises InputError."""
    values = {} if args.config is None else from_toml(StreamOptions, args.config)
    values |= from_flags(StreamOptions, vars(args))
    missing = [f"--{side}" for side in ("ir", "vi") if side not in values]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: expected a camera, such as --ir sim://thermal")
    if not values.get("out") and values.get("metrics") is None and not values.get("report"):
        raise InputError("--out missing: expected an output, such as --out mjpeg://127.0.0.1:8080 or null:")
    return StreamOptions(**values)


class _Notes:
    """Events of any thread, printed by the main thread, so that they do not tear the progress line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._waiting: SimpleQueue[Event] = SimpleQueue()
        self._frames = 0

    def add(self, event: Event) -> None:
        self._waiting.put(event)

    def show(self, stream: Stream) -> None:
        while not self._waiting.empty():
            self._progress.note(str(self._waiting.get()))
        frames = stream.telemetry.fused_frames
        for _ in range(frames - self._frames):
            self._progress.step()
        self._frames = frames


def _report(stream: Stream, stopped: bool, error: InputError | None) -> dict[str, Any]:
    ended = str(error) if error is not None else "stopped" if stopped else "done"
    failed = {worker.sink.name: worker.error for worker in stream.sink_workers if worker.error}
    return {
        **stream.telemetry.report(),
        "ended": KNOWN.clean(ended),
        "failed_outputs": KNOWN.clean_all(failed),
        "unfinished": KNOWN.clean_all(stream.unfinished),
    }


def _summary(report: dict[str, Any]) -> str:
    """The report as text."""
    fused, latency, skew = report["fused"], report["capture_to_output_ms"], report["skew_ms"]
    lines = [
        f"Fused {fused['frames']} frames in {report['seconds']:.1f} s ({fused['fps']:.1f} fps), "
        f"{model_shown(report['options']['model'], report['model'])} on {report['engine']}.",
    ]
    for name, side in (("infrared", "ir"), ("visible", "vi")):
        at = report["cameras"][side]
        stalls = "1 stall" if at["stalls"] == 1 else f"{at['stalls']} stalls"
        lines.append(
            f"  {name:<9} {at['frames']} frames, {at['fps']:.1f} fps, {stalls}, "
            f"{at['reconnects']} reconnects, {at['uri']}"
        )
    lines.append(
        f"  capture to output p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, p99 {latency['p99']:.0f} ms, "
        f"max {latency['max']:.0f} ms; pair skew p50 {skew['p50']:.1f} ms, p95 {skew['p95']:.1f} ms"
    )
    if report["drops"]:
        lines.append("  dropped: " + ", ".join(f"{why} {n}" for why, n in report["drops"].items()))
    lines += [f"  FAILED {name}: {why}" for name, why in report["failed_outputs"].items()]
    lines += [f"  LEFT UNFINISHED {part}" for part in report["unfinished"]]
    return "\n".join(lines)
