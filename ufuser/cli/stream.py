"""`ufuser stream`: two cameras in, one fused stream out, until it is stopped."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ufuser.cli.options import AUTO_MODEL, which
from ufuser.cli.shutdown import UNFINISHED, Shutdown, exit_without_teardown
from ufuser.runtime.command import BAD_INPUT, Parser
from ufuser.runtime.engines import AUTO, ENGINES
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.pairing import MODES
from ufuser.runtime.progress import Progress
from ufuser.runtime.streaming.options import StreamOptions, read_toml
from ufuser.runtime.streaming.session import session
from ufuser.runtime.streaming.stream import Stream
from ufuser.runtime.telemetry.events import Event
from ufuser.runtime.uri import seconds

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
        "camera. Sinks: window:, a file (.mp4, .mkv, .avi), folder:DIR, mjpeg://127.0.0.1:8080, rtsp://…, null:. "
        "docs/stream.md tells their options.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML file with these options; flags override it")
    add("--ir", metavar="URI", help="infrared camera")
    add("--vi", metavar="URI", help="visible camera")
    add("--out", action="append", metavar="URI", help="where to; may be given several times")
    add("--model", metavar="M", help=f"shipped model or ONNX file (default: {AUTO_MODEL})")
    add("--engine", metavar="E", help=f"what runs it: {', '.join((AUTO, *ENGINES))} (default: {AUTO})")
    add("--threads", type=int, metavar="N", help="CPU threads of the engine (default: one a core)")
    add("--cpu-precision", metavar="P", help="what OpenVINO computes in: fp32 or bf16 (default: fp32)")
    add("--sync", choices=MODES, help="pair each frame once, or hold infrared (default: nearest)")
    add("--max-skew", type=_time, metavar="S", help="nearest: largest distance in time (default: 0.1)")
    add("--max-age", type=_time, metavar="S", help="hold: oldest infrared shown again (default: 0.25)")
    add(
        "--ir-offset",
        type=_time,
        metavar="S",
        help="infrared's stamps are ahead by, such as 12ms (default: the calibration's)",
    )
    add("--vi-offset", type=_time, metavar="S", help="the visible's stamps are ahead by (default: 0)")
    add("--lost-after", type=_time, metavar="S", help="a silent camera is lost after (default: 1)")
    add("--calibration", metavar="FILE", help="written by `ufuser calibrate`")
    add(
        "--agc",
        metavar="MODE",
        help="thermal tone mapping: linear, plateau, clahe, fixed, or auto: plateau for raw counts, "
        "8 bits as they come (default: auto)",
    )
    add("--grey", action="store_true", help="fuse luma alone, without colour")
    add("--no-marks", dest="marks", action="store_false", help="write no 'NO INFRARED' into the picture")
    add("--report", metavar="FILE", help="write the figures there at the end, JSON")
    add("--metrics", type=int, metavar="PORT", help="serve /metrics, /healthz, /report.json")
    add("--bind", metavar="ADDR", help="address of metrics and page (default: 127.0.0.1; else needs --token)")
    add(
        "--token",
        metavar="SECRET",
        help="asked of whoever looks; in --config it is not seen in a process list",
    )
    add("--duration", type=_time, metavar="S", help="end after so many seconds")
    add("--speed", type=float, metavar="X", help="run simulated or played cameras so many times faster")
    add("--json", action="store_true", default=False, help="print the report as JSON")
    parser.set_defaults(run=run)
    return parser


def _time(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text}: {e}") from None


def run(args: argparse.Namespace) -> int:
    """Stream until the end.

    Returns:
        0; 1 if an output failed on the way or something was left unfinished.

    Raises:
        InputError: a bad option, or an input that cannot be opened or read any further.
    """
    options = options_of(args)
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
        print(json.dumps(report, indent=2) if args.json else _story(report), flush=True)
    return SINK_FAILED if report["failed_outputs"] or report["unfinished"] else 0


def options_of(args: argparse.Namespace) -> StreamOptions:
    """Flags over the TOML file over the defaults. Raises InputError."""
    given = vars(args)
    values = read_toml(given["config"]) if "config" in given else {}
    names = {f.name for f in fields(StreamOptions)}
    values |= {name: tuple(v) if name == "out" else v for name, v in given.items() if name in names}
    missing = [f"--{side}" for side in ("ir", "vi") if side not in values]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: expected a camera, such as --ir sim://thermal")
    if not values.get("out") and values.get("metrics") is None and not values.get("report"):
        raise InputError(
            "no --out: expected where the stream goes, such as --out mjpeg://127.0.0.1:8080 or null:"
        )
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
        "ended": ended,
        "failed_outputs": failed,
        "unfinished": list(stream.unfinished),
    }


def _story(report: dict[str, Any]) -> str:
    """The report in a few lines for people."""
    fused, latency, skew = report["fused"], report["capture_to_output_ms"], report["skew_ms"]
    lines = [
        f"Fused {fused['frames']} frames in {report['seconds']:.1f} s ({fused['fps']:.1f} fps), "
        f"{which(report['options']['model'], report['model'])} on {report['engine']}.",
    ]
    for called, side in (("infrared", "ir"), ("visible", "vi")):
        at = report["cameras"][side]
        lines.append(
            f"  {called:<9} {at['frames']} frames, {at['fps']:.1f} fps, {at['stalls']} stalls, "
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
