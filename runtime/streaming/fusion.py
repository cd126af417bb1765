"""The thread that fuses: prepared pairs → fused frames for every sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.frame import FusedFrame, read_only
from ufuser.runtime.pairing import IR_LOST, VI_LOST, FramePair
from ufuser.runtime.streaming import badge
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.prepare import Prepared
from ufuser.runtime.streaming.queues import Closed, Queue
from ufuser.runtime.streaming.sink_worker import STALE, SinkWorker

_MARKS = {IR_LOST: "NO INFRARED", VI_LOST: "NO VISIBLE"}


class FusesPairs(Protocol):
    """The part of `ufuser.Fuser` that a stream uses."""

    def fuse(self, ir: NDArray[Any], vi: NDArray[Any]) -> NDArray[Any]:
        """The fused picture in the visible's layout; both uint8, of one size."""


class Fusion:
    """Runs in its own thread until its queue is closed and empty.

    Args:
        ready: pairs to fuse.
        fuser: used in this thread only.
        workers: of the sinks that get the frames.
        grey: a single picture of the infrared camera stays H×W.
        marks: write into the picture that a camera is lost, or that the picture is old.
        context: of the stream.
    """

    def __init__(
        self,
        ready: Queue[Prepared],
        fuser: FusesPairs,
        workers: Sequence[SinkWorker],
        grey: bool,
        marks: bool,
        context: StreamContext,
    ) -> None:
        self._ready, self._fuser, self._workers = ready, fuser, workers
        self._grey, self._marks, self._context = grey, marks, context
        self._sequence = 0
        self._last: FusedFrame | None = None

    def run(self) -> None:
        """Fuse until the end, then tell the sinks that no more frames come."""
        try:
            while True:
                prepared = self._ready.get(None)
                if prepared is None:
                    continue
                frame = (
                    self._repeated(prepared)
                    if prepared.pair is None
                    else self._fused(prepared.pair, prepared)
                )
                if frame is not None:
                    for worker in self._workers:
                        worker.offer(frame)
        except Closed:
            pass
        finally:
            for worker in self._workers:
                worker.end(discard=False)

    def _fused(self, pair: FramePair, prepared: Prepared) -> FusedFrame:
        ir, vi = (None if frame is None else read_only(frame.image) for frame in (pair.ir, pair.vi))
        frame = FusedFrame(
            read_only(self._picture(ir, vi)),
            pair.stamp,
            self._sequence,
            "fused",
            pair.flags,
            prepared.arrival,
            ir,
            vi,
            None if ir is None or vi is None else pair.skew_s,
        )
        self._last = frame
        self._context.telemetry.fused(frame.flags)
        return self._numbered(frame, ", ".join(text for flag, text in _MARKS.items() if flag in frame.flags))

    def _picture(self, ir: NDArray[Any] | None, vi: NDArray[Any] | None) -> NDArray[Any]:
        if ir is not None and vi is not None:
            with self._context.telemetry.stage("fuse"):
                return self._fuser.fuse(ir, vi)
        if vi is not None:
            return vi
        if ir is None:
            raise RuntimeError("a pair has neither an infrared nor a visible frame")
        return ir if self._grey else np.asarray(cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR))

    def _repeated(self, prepared: Prepared) -> FusedFrame | None:
        if self._last is None:
            return None
        frame = replace(
            self._last, timestamp=prepared.arrival, flags=frozenset({STALE, IR_LOST, VI_LOST}), skew=None
        )
        return self._numbered(frame, f"NO SIGNAL FOR {prepared.lost_for:.0f} s")

    def _numbered(self, frame: FusedFrame, text: str) -> FusedFrame:
        """The frame with its number and, where it is wanted, the text in its picture."""
        image = read_only(badge.stamp(frame.image, text)) if text and self._marks else frame.image
        numbered = replace(frame, image=image, sequence=self._sequence)
        self._sequence += 1
        return numbered
