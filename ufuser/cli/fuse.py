"""`ufuser fuse`: fuse two pictures, two folders or two videos."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ufuser.cli.inputs import Inputs, frames_left, open_inputs
from ufuser.cli.medical import arrange
from ufuser.cli.options import add_flags, open_fuser, options_of
from ufuser.runtime import schemes
from ufuser.runtime.color import luma
from ufuser.runtime.command import Parser
from ufuser.runtime.console import print_json
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame, FusedFrame
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.images import READABLE, depth_kept
from ufuser.runtime.options import FuserOptions
from ufuser.runtime.outputs import check_outputs, of_sink, of_source
from ufuser.runtime.progress import Progress
from ufuser.runtime.sinks import FolderSink, ImageSink, Sink, SinkContext, VideoSink, finished
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.sources import VIDEOS, VideoSource, frames
from ufuser.runtime.telemetry import Durations
from ufuser.runtime.thermal.still import is_raw, tone_mapped
from ufuser.runtime.uri import Uri

_PATH = {"metavar": "PATH"}
_EPILOG = """\
--task medical fuses MRI with CT, PET or SPECT by the same networks; the pictures must be registered. The picture with
colour (PET, SPECT) takes the visible role, given as --ir or --vi: its luma is fused and its chroma kept. Two grey
pictures (MRI with CT) give a grey one; pass CT as --ir, and MRI, whose tissue levels should be kept, as --vi. Two
coloured pictures are an error. Videos are not supported.
"""


class FuseOptions(FuserOptions, frozen=True, kw_only=True):
    """Options of `ufuser fuse`."""

    ir: Annotated[str, Meta(description="infrared: a picture, folder or video", extra=_PATH)]
    vi: Annotated[str, Meta(description="visible: of the same kind", extra=_PATH)]
    out: Annotated[
        str,
        Meta(
            description="a picture (.png, .jpg, .tif, .bmp), a folder (a .png each), or a video (.mp4 H.264, "
            ".mkv FFV1 lossless, .avi MJPEG)",
            extra=_PATH,
        ),
    ]
    model: Annotated[str, Meta(description="shipped model or ONNX file", extra={"metavar": "M"})] = "ufuser"
    task: Annotated[
        Literal["infrared-visible", "medical"], Meta(description="what the pictures are, see below")
    ] = "infrared-visible"
    grey: Annotated[bool, Meta(description="write the fused luma only, without colour")] = False
    stretch: Annotated[bool, Meta(description="stretch the contrast of each picture, for stills")] = False
    resize: Annotated[bool, Meta(description="scale infrared to the visible picture's size")] = False


@dataclass(frozen=True, slots=True)
class Result:
    """Summary of a run, which `--json` prints."""

    frames: int
    fps: float
    """Frames per second of the whole run, with reading and writing."""
    seconds: float
    p50_ms: float
    p95_ms: float
    max_ms: float
    """Milliseconds of fusing one pair."""
    size: tuple[int, int] | None
    """Width and height, pixels; None if the pictures of a folder differ."""
    model: str
    engine: str
    out: str
    left_ir: int
    left_vi: int
    """Frames that one video still had when the other ended."""
    unpaired_ir: tuple[str, ...]
    unpaired_vi: tuple[str, ...]
    """Names of pictures in a folder without a partner."""
    notes: tuple[str, ...]
    """Notes, as on stderr."""

    def line(self) -> str:
        """The run in one line."""
        size = f" of {self.size[0]}x{self.size[1]}" if self.size else ""
        return (
            f"{_count(self.frames)}{size} in {self.seconds:.1f} s ({self.fps:.1f} fps), fusing "
            f"{self.p50_ms:.1f} ms p50, {self.p95_ms:.1f} ms p95, {self.model} on {self.engine} -> {self.out}"
        )


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse a registered pair of pictures, two folders paired by file name, or two videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, FuseOptions)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Fuse, and print the result. Raises InputError."""
    options = options_of(args, FuseOptions)
    target, medical = schemes.parse(schemes.SINKS, options.out), options.task == "medical"
    out = Path(target.address)
    check_outputs(
        {"out": of_sink(options.out)}, (of_source(options.ir), of_source(options.vi), options.model)
    )
    with ExitStack() as stack:
        inputs = open_inputs(options.ir, options.vi, stack)
        if medical and inputs.kind == "video":
            raise InputError(
                f"task='medical': {options.ir} is a video, expected two pictures or two folders", "task"
            )
        # Before the model, so that an output that cannot be written is reported at once.
        sink = stack.enter_context(finished(_open_sink(inputs, target)))
        fuser = stack.enter_context(open_fuser(options))
        progress = stack.enter_context(Progress("fused", inputs.total()))
        began = time.perf_counter()
        stored_as = out if inputs.kind == "image" else Path("fused.png")
        work = _Work(fuser, inputs, progress, stored_as, options)
        for frame in work:
            sink.write(frame)
            progress.step()
        left_ir, left_vi = work.left
    # After the sink has finished its file.
    seconds = time.perf_counter() - began
    durations = Durations.of(work.durations)
    result = Result(
        frames=durations.frames,
        fps=durations.frames / seconds,
        seconds=seconds,
        p50_ms=durations.p50_ms,
        p95_ms=durations.p95_ms,
        max_ms=durations.max_ms,
        size=work.sizes.pop() if len(work.sizes) == 1 else None,
        model=options.model,
        engine=fuser.engine.name,
        out=options.out,
        left_ir=left_ir,
        left_vi=left_vi,
        unpaired_ir=inputs.unpaired_ir,
        unpaired_vi=inputs.unpaired_vi,
        notes=tuple(work.notes),
    )
    if args.json:
        print_json(asdict(result))
    else:
        print(result.line())
    return 0


def _open_sink(inputs: Inputs, target: Uri) -> Sink:
    if target.scheme not in ("", "file", "folder"):
        sink = open_sink(target.text, SinkContext())
        if not sink.every_frame:
            sink.abort()
            raise InputError(
                f"{target.name} shows the newest frame only: `ufuser stream` writes to it", "out"
            )
        return sink
    target.read({})
    out = Path(target.address)
    if inputs.kind == "image":
        return ImageSink(out)
    if inputs.kind == "folder":
        if out.suffix.lower() in (*READABLE, *VIDEOS) and not out.is_dir():
            raise InputError(
                f"out={out} is the name of a file, but the inputs are folders: expected a folder", "out"
            )
        return FolderSink(out, ".png", named_by_source=True)
    fps = inputs.rates[1]
    if fps is None and isinstance(inputs.vi, VideoSource):
        raise InputError(f"{inputs.vi.name} has no frame rate: expected a video with one; re-encode it")
    return VideoSink(out, fps)


class _Work:
    """Iterates over the fused frames and collects figures and notes for the result."""

    def __init__(
        self,
        fuser: Fuser,
        inputs: Inputs,
        progress: Progress,
        stored_as: Path,
        options: FuseOptions,
    ) -> None:
        self._fuser, self._inputs, self._progress, self._stored_as = fuser, inputs, progress, stored_as
        self._options, self._medical = options, options.task == "medical"
        self.durations: list[float] = []
        """Seconds of each fusion."""
        self.sizes: set[tuple[int, int]] = set()
        self.notes: list[str] = []
        self.left = (0, 0)
        """Frames that infrared and visible still had when the other ended."""

    def __iter__(self) -> Iterator[FusedFrame]:
        for note in self._inputs.notes():
            self._note(note)
        raw_noted = depth_noted = False
        for ir, vi in self._pairs():
            raw = [side for side in ((ir, vi) if self._medical else (ir,)) if is_raw(side.image)]
            if raw and not raw_noted:
                raw_noted = True
                self._note(
                    f"{raw[0].source}: 16 bits with a maximum of {raw[0].image.max()} look like raw counts"
                    + (" and will be dark: scale them first" if self._medical else ": tone mapped to 8 bits")
                )
            if raw and not self._medical:
                ir = replace(ir, image=tone_mapped(ir.image))
            fused = self._fuse(ir, vi)
            if not depth_noted and not depth_kept(self._stored_as, fused.dtype):
                depth_noted = True
                self._note(f"{self._stored_as.suffix} cannot hold {fused.dtype}: written with fewer bits")
            yield FusedFrame(fused, vi.timestamp, vi.sequence, vi.source)

    def _pairs(self) -> Iterator[tuple[Frame, Frame]]:
        inputs = self._inputs
        irs, vis = frames(inputs.ir), frames(inputs.vi)
        while True:
            ir, vi = next(irs, None), next(vis, None)
            if ir is None or vi is None:
                break
            yield ir, vi
        left_ir = frames_left(inputs.ir) + (ir is not None)
        left_vi = frames_left(inputs.vi) + (vi is not None)
        self.left = (left_ir, left_vi)
        for ended, other, left in (("visible", "infrared", left_ir), ("infrared", "visible", left_vi)):
            if left:
                fused = len(self.durations)
                self._note(f"{ended} ended after {_count(fused)}: {_count(left)} of {other} left unfused")

    def _fuse(self, ir: Frame, vi: Frame) -> NDArray[Any]:
        options = self._options
        try:
            first, second = self._of_one_size(ir.image, vi.image), vi.image
            began = time.perf_counter()
            if self._medical:
                first, second = arrange(first, second)
            if options.grey:
                second = luma(second)
            fused = self._fuser.fuse(first, second, stretch=options.stretch)
        except InputError as e:
            if self._inputs.kind == "folder":
                raise InputError(f"{Path(vi.source).name}: {e}") from None
            raise
        self.durations.append(time.perf_counter() - began)
        self.sizes.add((fused.shape[1], fused.shape[0]))
        return fused

    def _of_one_size(self, ir: NDArray[Any], vi: NDArray[Any]) -> NDArray[Any]:
        """Infrared, scaled to the visible picture's size. Raises InputError without `resize`."""
        size, wanted = (ir.shape[1], ir.shape[0]), (vi.shape[1], vi.shape[0])
        if size == wanted:
            return ir
        if not self._options.resize:
            raise InputError(
                f"the picture of --ir is {size[0]}x{size[1]}, that of --vi {wanted[0]}x{wanted[1]}: expected the same "
                f"size (--resize scales the first)"
            )
        shrinks = size[0] * size[1] > wanted[0] * wanted[1]
        return np.asarray(
            cv2.resize(ir, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._progress.note(f"note: {text}")


def _count(frames: int) -> str:
    return f"{frames} frame" if frames == 1 else f"{frames} frames"
