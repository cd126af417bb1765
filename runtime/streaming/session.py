"""Options → a stream with its cameras, model, outputs and servers; and `ufuser.stream`, the same for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from ufuser.runtime.alignment import Aligner, Calibration
from ufuser.runtime.clock import Clock
from ufuser.runtime.files import require_writable
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.outputs import Names, check_outputs, of_sink, of_source
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.sinks.page import PageSink
from ufuser.runtime.sinks.sink import Sink, SinkContext
from ufuser.runtime.sources.opening import Cameras
from ufuser.runtime.streaming.fusion import FusesPairs
from ufuser.runtime.streaming.options import StreamOptions
from ufuser.runtime.streaming.stream import Stream
from ufuser.runtime.telemetry.events import OnEvent
from ufuser.runtime.uri import mask
from ufuser.runtime.web.server import Access, Server

_POLL = 0.2
"""Real seconds between two looks whether a thread has failed, while a program waits for a frame."""


@contextmanager
def session(
    options: StreamOptions,
    on_event: OnEvent | None = None,
    fuser: FusesPairs | None = None,
    more_sinks: Sequence[Sink] = (),
) -> Iterator[Stream]:
    """Build a stream, not yet started; leaving the context stops it and closes everything else.

    Args:
        options: of the stream.
        on_event: takes an event, credentials masked. Called from several threads.
        fuser: instead of the one that `model` and `engine` name; it is not closed.
        more_sinks: beside those of `out`.

    Raises:
        InputError: something in the options cannot be opened.
    """
    clock = Clock(options.speed)
    access = Access(options.bind, options.token)
    check_outputs(outputs_of(options), inputs_of(options))
    with ExitStack() as stack:
        cameras = Cameras(options.ir, options.vi, clock)
        if options.report is not None:
            require_writable(Path(options.report))
        calibration = None if options.calibration is None else Calibration.load(options.calibration)
        with ExitStack() as before_the_stream:
            sinks: list[Sink] = []
            for text in options.out:
                sinks.append(open_sink(text, SinkContext(clock, access)))
                before_the_stream.callback(sinks[-1].abort)
            servers = [sink.server for sink in sinks if isinstance(sink, PageSink)]
            if options.metrics is not None and (
                options.metrics == 0 or options.metrics not in [s.port for s in servers]
            ):
                servers.append(Server(options.bind, options.metrics, access))
                stack.callback(servers[-1].close)
            stack.callback(cameras.close)
            cameras.check()
            # Last, because it takes longest: errors elsewhere are reported at once.
            model = fuser or stack.enter_context(
                Fuser.open(options.model, options.engine, options.threads, options.cpu_precision, shared=True)
            )
            stream = Stream(
                cameras,
                model,
                [*sinks, *more_sinks],
                options.config(None if calibration is None else calibration.offset_s),
                None if calibration is None else Aligner(calibration),
                clock,
                on_event,
            )
            # From here on the stream closes the sinks, each in the thread that writes to it.
            before_the_stream.pop_all()
        stack.callback(stream.stop)
        _describe(stream, options, model)
        for server in servers:
            server.telemetry = stream.telemetry
            subject = "page, metrics" if server.pictures is not None else "metrics"
            stream.context.event("info", subject, server.url)
        if isinstance(model, Fuser):
            stream.context.event("info", "fusion", f"{model.model} on {model.engine.name}")
        yield stream


def outputs_of(options: StreamOptions) -> dict[str, Names]:
    """The files and folders that a stream writes, by argument. Raises InputError for a malformed URI."""
    return {"out": [of_sink(text) for text in options.out], "report": options.report}


def inputs_of(options: StreamOptions) -> list[Path | str | None]:
    """The files and folders that a stream reads. Raises InputError for a malformed URI."""
    return [of_source(options.ir), of_source(options.vi), options.calibration, options.model]


def _describe(stream: Stream, options: StreamOptions, fuser: FusesPairs) -> None:
    """Add to the report what is not a figure."""
    engine = fuser.engine.name if isinstance(fuser, Fuser) else type(fuser).__name__
    shown = {k: v for k, v in msgspec.structs.asdict(options).items() if k != "token"}
    shown |= {"ir": mask(options.ir), "vi": mask(options.vi), "out": [mask(text) for text in options.out]}
    for name, value in (
        ("model", fuser.model if isinstance(fuser, Fuser) else options.model),
        ("engine", engine),
        ("options", shown),
        ("machine", asdict(Machine.here())),
        ("versions", versions()),
    ):
        stream.telemetry.set_field(name, value)


class _ProgramSink:
    """The sink from which a program takes frames in its own thread."""

    name, in_main_thread = "program", True

    def __init__(self, every_frame: bool) -> None:
        self.every_frame = every_frame
        self.frame: FusedFrame | None = None

    def write(self, frame: FusedFrame) -> None:
        self.frame = frame

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def stream(
    ir: str,
    vi: str,
    *,
    out: Sequence[str] | str = (),
    fuser: Fuser | None = None,
    on_event: OnEvent | None = None,
    marks: bool = False,
    **options: Any,
) -> Iterator[FusedFrame]:
    """Fused frames of two cameras, for a program of your own.

        for fused in ufuser.stream(ir="v4l2:///dev/video0?format=Y16", vi="v4l2:///dev/video2"):
            detect(fused.image, fused.timestamp, fused.flags)

    Live cameras do not wait for the program: it gets the newest frame, older ones are dropped and counted. Files
    wait. Leaving the loop, or closing the generator, releases the cameras within two seconds, whatever hangs.

    The pictures of a frame are read-only, because the stream and other sinks use them too: draw on a copy.

    Args:
        ir, vi: URIs as for `ufuser stream`.
        out: URIs of sinks that also get the frames.
        fuser: an open one, instead of `model` and `engine`; the stream does not close it.
        on_event: takes a `ufuser.runtime.telemetry.events.Event`. Called from several threads.
        marks: write into the picture that a camera is lost; the flags say so in any case.
        options: the other fields of `ufuser.runtime.streaming.options.StreamOptions`: `model`, `engine`, `sync`,
            `calibration`, `agc`, `duration`, …

    Returns:
        A generator of frames: picture, stamp, flags ("ir-lost", "vi-lost", "stale", "frozen", …), and the two
        pictures that were fused.

    Raises:
        InputError: on the call for a bad option, at the first frame for what cannot be opened.
        TypeError: an unknown option.
    """
    chosen = StreamOptions(
        ir=ir, vi=vi, out=(out,) if isinstance(out, str) else tuple(out), marks=marks, **options
    )
    return _frames(chosen, on_event, fuser)


def _frames(options: StreamOptions, on_event: OnEvent | None, fuser: Fuser | None) -> Iterator[FusedFrame]:
    own = _ProgramSink(every_frame=not Cameras(options.ir, options.vi, Clock()).live)
    with session(msgspec.structs.replace(options, report=None), on_event, fuser, [own]) as running, running:
        *others, worker = running.sink_workers
        while worker.step(_POLL):
            if running.error is not None:
                break
            for other in others:
                if other.sink.in_main_thread and not other.done:  # a window beside the program
                    other.step(0)
            if own.frame is not None:
                frame, own.frame = own.frame, None
                yield frame
        if running.error is not None:
            raise running.error
