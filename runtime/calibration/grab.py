"""What a calibration looks at: pairs of pictures, or two recordings, from whatever the cameras or files give."""

from __future__ import annotations

import heapq
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ufuser.runtime import schemes
from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import as_uint8, read_image
from ufuser.runtime.pairing import SIDES, Pairer, PairingConfig, Side
from ufuser.runtime.sources import Cameras, Status, frames, kind_of, pictures_in
from ufuser.runtime.thermal import ThermalConfig, ThermalPipeline

_FIRST = 10.0
"""Seconds a camera may take for its first frame."""
_SKEW = 0.1


@dataclass(frozen=True, slots=True)
class Wish:
    """How much is wanted."""

    pairs: int = 4
    """Pairs, spread evenly over the time."""
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= 1000:
            raise InputError(f"pairs={self.pairs}: expected 1 to 1000", "pairs")
        if not 0 < self.seconds <= 3600:
            raise InputError(f"seconds={self.seconds:g}: expected more than 0, up to 3600", "seconds")


def grab_pairs(ir: str, vi: str, wish: Wish, offset: float = 0.0) -> list[tuple[Any, Any]]:
    """Pairs of pictures of one moment: infrared H×W uint8, visible as it comes, at 8 bits.

    Args:
        ir, vi: two pictures, two folders paired by name (all of them), or two videos or cameras; paths or URIs.
        wish: how many pairs over what time; pictures and folders ignore it.
        offset: seconds infrared stamps are ahead.

    Raises:
        InputError: a side cannot be read, the two are of different kinds or sizes, or nothing pairs.
    """
    _require_different(ir, vi)
    return _of_one_size(_grabbed(ir, vi, wish, offset))


def _grabbed(ir: str, vi: str, wish: Wish, offset: float) -> list[tuple[Any, Any]]:
    kinds = kind_of(ir), kind_of(vi)
    if kinds[0] != kinds[1] and set(kinds) <= {"image", "folder", "video"}:
        raise InputError(f"{ir} is of kind {kinds[0]}, {vi} of kind {kinds[1]}: expected the same kind")
    if set(kinds) <= {"image", "folder"}:
        return [_toned(a, b) for a, b in _files(_path(ir), _path(vi), kinds[0])]
    return _chosen(_frames(ir, vi, wish.seconds), wish, offset)


def grab_frames(ir: str, vi: str, seconds: float) -> Iterator[tuple[Side, Frame]]:
    """The frames of both sides, each in its own order, for some seconds by their stamps.

    Raises:
        InputError: a side cannot be read, or has no time (pictures, folders).
    """
    _require_different(ir, vi)
    for name in (ir, vi):
        if kind_of(name) in ("image", "folder"):
            raise InputError(f"{name} has no time of its own: expected a video or a camera")
    return _frames(ir, vi, seconds)


def _require_different(ir: str, vi: str) -> None:
    """Raise InputError if both sources are the same."""
    if ir == vi or os.path.realpath(_path(ir)) == os.path.realpath(_path(vi)):
        raise InputError(f"{uris.mask(ir)} and {uris.mask(vi)} are the same: expected two cameras")


def _path(text: str) -> str:
    """Path of a file or folder, from its path or URI; of another source the URI."""
    uri = schemes.parse(schemes.SOURCES, text)
    return uri.address if uri.scheme in ("", "file", "folder") else text


def _of_one_size(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
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


def _toned(ir: Path, vi: Path) -> tuple[Any, Any]:
    """One pair of files at 8 bits."""
    heat = Frame(read_image(ir), 0.0, 0, str(ir))
    return _tone(heat)(heat).image, as_uint8(read_image(vi))


def _tone(frame: Frame) -> ThermalPipeline:
    """Raw counts equalised, which shows the most edges; 8 bits as the camera toned them."""
    return ThermalPipeline(ThermalConfig(mode="auto" if frame.image.dtype == np.uint8 else "plateau"))


def _chosen(frames: Iterator[tuple[Side, Frame]], wish: Wish, offset: float) -> list[tuple[Any, Any]]:
    """The first pair after each of evenly spread moments."""
    pairer = Pairer(replace(PairingConfig(ir_offset_s=offset, max_skew_s=_SKEW), capacity=64).offline())
    tone: ThermalPipeline | None = None
    chosen: list[tuple[Any, Any]] = []
    began: float | None = None
    for side, frame in frames:
        if side == "ir":
            tone = tone or _tone(frame)
            frame = tone(frame)
        for pair in pairer.push(side, frame):
            if pair.ir is None or pair.vi is None or "frozen" in pair.flags:
                continue
            began = pair.stamp if began is None else began
            if pair.stamp - began >= len(chosen) * wish.seconds / wish.pairs:
                chosen.append((pair.ir.image, as_uint8(pair.vi.image)))
                if len(chosen) == wish.pairs:
                    return chosen
    if not chosen:
        raise InputError(
            f"no infrared and visible frames within {_SKEW:g} s of each other: expected two recordings of one time"
        )
    return chosen


def _frames(ir: str, vi: str, seconds: float) -> Iterator[tuple[Side, Frame]]:
    cameras = Cameras(ir, vi, Clock(), paced=False)
    if cameras.live:
        yield from _from_cameras(cameras, seconds)
        return
    with ExitStack() as stack:
        streams = []
        for side in SIDES:
            source = cameras.open(side)
            stack.callback(source.close)
            streams.append(_until(side, frames(source), seconds))
        yield from heapq.merge(*streams, key=lambda each: each[1].timestamp)


def _until(side: Side, frames: Iterator[Frame], seconds: float) -> Iterator[tuple[Side, Frame]]:
    began: float | None = None
    for frame in frames:
        began = frame.timestamp if began is None else began
        if frame.timestamp - began > seconds:
            return
        yield side, frame


def _from_cameras(cameras: Cameras, seconds: float) -> Iterator[tuple[Side, Frame]]:
    """Both cameras read by a thread each; time begins when both have given a frame."""
    clock = cameras.clock
    cameras.check()
    inbox: queue.Queue[tuple[Side, Frame] | InputError] = queue.Queue(maxsize=256)
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
            if got[0] not in heard:
                heard.add(got[0])
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
    cameras: Cameras, side: Side, inbox: queue.Queue[tuple[Side, Frame] | InputError], stop: threading.Event
) -> None:
    try:
        camera = cameras.open(side)
    except InputError as e:
        inbox.put(e)
        return
    try:
        while not stop.is_set():
            reading = camera.read(0.2)
            if reading.frame is not None:
                try:
                    inbox.put((side, reading.frame), timeout=0.5)
                except queue.Full:
                    continue  # whoever looks at them is slower: these are lost
            elif reading.status is Status.END:
                return
            elif reading.status is Status.ERROR:
                raise InputError(reading.detail)
    except InputError as e:
        if not stop.is_set():
            inbox.put(e)
    finally:
        camera.close()
