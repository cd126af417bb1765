"""Inputs of a calibration: pairs of pictures, or the frames of two recordings, from files or cameras."""

from __future__ import annotations

import heapq
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ufuser.runtime import schemes
from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import as_uint8, read_image
from ufuser.runtime.pairer import Pairer
from ufuser.runtime.pairing import SIDES, PairingConfig, Side
from ufuser.runtime.sources import Cameras, Source, Status, frames, kind_of, pictures_in
from ufuser.runtime.thermal import ThermalPipeline

_FIRST = 10.0
"""Seconds a camera may take for its first frame."""
_SKEW = 0.1
"""Seconds between the two frames of a pair, at most."""
_ImagePair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class GrabRequest:
    """How many pairs to take, over what time."""

    pairs: int
    """At least 1, spread evenly over the time."""
    seconds: float
    """Above 0."""


class Grabbed(NamedTuple):
    """One frame of one camera."""

    side: Side
    frame: Frame
    repeats: bool
    """See `Source.repeats`."""


def grab_pairs(ir: str, vi: str, request: GrabRequest, offset: float = 0.0) -> list[_ImagePair]:
    """Take pairs of pictures of the same moments: infrared H×W uint8, visible H×W or H×W×3 uint8.

    Args:
        ir, vi: two pictures, two folders paired by file name, or two videos or cameras; paths or URIs.
        request: number and time; ignored for pictures and folders, which give all their pairs.
        offset: seconds by which infrared stamps are ahead.

    Raises:
        InputError: a side cannot be read, the two are of different kinds or sizes, or nothing pairs.
    """
    _require_different(ir, vi)
    return _of_one_size(_grabbed(ir, vi, request, offset))


def _grabbed(ir: str, vi: str, request: GrabRequest, offset: float) -> list[_ImagePair]:
    kinds = kind_of(ir), kind_of(vi)
    if kinds[0] != kinds[1] and set(kinds) <= {"image", "folder", "video"}:
        raise InputError(f"infrared {ir} is a {kinds[0]}, visible {vi} a {kinds[1]}: expected the same kind")
    if set(kinds) <= {"image", "folder"}:
        return [_toned(a, b) for a, b in _files(_path(ir), _path(vi), kinds[0])]
    return _spread(_frames(ir, vi, request.seconds), request, offset)


def grab_frames(ir: str, vi: str, seconds: float) -> Iterator[Grabbed]:
    """Read the frames of both cameras, each in order, for some seconds by their stamps.

    Raises:
        InputError: a side cannot be read, or has no stamps (pictures, folders).
    """
    _require_different(ir, vi)
    for side, name in zip(SIDES, (ir, vi), strict=True):
        if kind_of(name) in ("image", "folder"):
            raise InputError(f"{side}={name!r} has no time of its own: expected a video or a camera", side)
    return _frames(ir, vi, seconds)


def _require_different(ir: str, vi: str) -> None:
    """Raise InputError if both sources are the same."""
    if ir == vi or os.path.realpath(_path(ir)) == os.path.realpath(_path(vi)):
        raise InputError(f"{uris.mask(ir)} and {uris.mask(vi)} are the same: expected two cameras")


def _path(text: str) -> str:
    """The path of a file or folder given as a path or URI; of other sources the URI."""
    uri = schemes.parse(schemes.SOURCES, text)
    return uri.address if uri.scheme in ("", "file", "folder") else text


def _of_one_size(pairs: list[_ImagePair]) -> list[_ImagePair]:
    for pair in pairs:
        for side, image, first in zip(("infrared", "visible"), pair, pairs[0], strict=True):
            (height, width), expected = image.shape[:2], first.shape[:2]
            if (height, width) != expected:
                raise InputError(
                    f"{side} picture of {width}x{height}, expected {expected[1]}x{expected[0]} as the first"
                )
    return pairs


def _files(ir: str, vi: str, kind: str) -> list[tuple[Path, Path]]:
    if kind == "image":
        return [(Path(ir), Path(vi))]
    left, right = ({p.stem: p for p in pictures_in(Path(folder))} for folder in (ir, vi))
    common = sorted(left.keys() & right.keys())
    if not common:
        raise InputError(f"no common names in {ir} and {vi}: expected pairs that differ in suffix at most")
    return [(left[stem], right[stem]) for stem in common]


def _toned(ir: Path, vi: Path) -> _ImagePair:
    """One pair of files at 8 bits."""
    return ThermalPipeline()(Frame(read_image(ir), 0.0, 0, str(ir))).image, as_uint8(read_image(vi))


def _spread(grabbed: Iterator[Grabbed], request: GrabRequest, offset: float) -> list[_ImagePair]:
    """The first pairs after evenly spread moments; none during a flat-field correction."""
    pairer = Pairer(replace(PairingConfig(ir_offset_s=offset, max_skew_s=_SKEW), capacity=64).offline())
    tone: ThermalPipeline | None = None
    chosen: list[_ImagePair] = []
    began: float | None = None
    for side, frame, repeats in grabbed:
        if side == "ir":
            tone = tone or ThermalPipeline(repeats=repeats)
            frame = tone(frame)
        for pair in pairer.push(side, frame):
            if pair.ir is None or pair.vi is None or "frozen" in pair.flags:
                continue
            began = pair.stamp if began is None else began
            if pair.stamp - began >= len(chosen) * request.seconds / request.pairs:
                chosen.append((pair.ir.image, as_uint8(pair.vi.image)))
                if len(chosen) == request.pairs:
                    return chosen
    if not chosen:
        raise InputError(
            f"no infrared and visible frames within {_SKEW:g} s of each other: expected two recordings of the same time"
        )
    return chosen


def _frames(ir: str, vi: str, seconds: float) -> Iterator[Grabbed]:
    cameras = Cameras(ir, vi, Clock(), paced=False)
    if cameras.live:
        yield from _from_cameras(cameras, seconds)
        return
    with ExitStack() as stack:
        streams = []
        for side in SIDES:
            source = cameras.open(side)
            stack.callback(source.close)
            streams.append(_until(side, source, seconds))
        yield from heapq.merge(*streams, key=lambda grabbed: grabbed.frame.timestamp)


def _until(side: Side, source: Source, seconds: float) -> Iterator[Grabbed]:
    began: float | None = None
    for frame in frames(source):
        began = frame.timestamp if began is None else began
        if frame.timestamp - began > seconds:
            return
        yield Grabbed(side, frame, source.repeats)


def _from_cameras(cameras: Cameras, seconds: float) -> Iterator[Grabbed]:
    """Read each camera in a thread of its own. Time begins when both have given a frame."""
    clock = cameras.clock
    cameras.check()
    inbox: queue.Queue[Grabbed | InputError] = queue.Queue(maxsize=256)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_read, args=(cameras, side, inbox, stop), daemon=True) for side in SIDES
    ]
    cameras.start()
    for thread in threads:
        thread.start()
    heard: set[Side] = set()
    until = clock.now() + _FIRST
    try:
        while clock.now() < until:
            try:
                got = inbox.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(got, InputError):
                raise got
            if got.side not in heard:
                heard.add(got.side)
                if len(heard) == len(SIDES):
                    until = clock.now() + seconds
            yield got
        if len(heard) < len(SIDES):
            silent = next(side for side in SIDES if side not in heard)
            raise InputError(f"{cameras.name(silent)}: no frame within {_FIRST:g} s")
    finally:
        stop.set()
        for thread in threads:
            thread.join(3.0)
        cameras.close()


def _read(
    cameras: Cameras, side: Side, inbox: queue.Queue[Grabbed | InputError], stop: threading.Event
) -> None:
    try:
        with closing(cameras.open(side)) as camera:
            while not stop.is_set():
                reading = camera.read(0.2)
                if reading.frame is not None:
                    try:
                        inbox.put(Grabbed(side, reading.frame, camera.repeats), timeout=0.5)
                    except queue.Full:
                        continue  # drop frames that come faster than they are processed
                elif reading.status is Status.END:
                    return
                elif reading.status is Status.ERROR:
                    raise InputError(reading.detail)
    except Exception as e:  # a driver or a plug-in may raise anything
        if not stop.is_set():
            inbox.put(e if isinstance(e, InputError) else schemes.as_input_error(e, cameras.name(side)))
