"""Two cameras → a fused stream: the threads and queues between the parts.

    ir camera ─┐                                                  ┌─ sink
               ├─ inbox ─ thermal, pair, align ─ queue ─ fuse ────┤
    vi camera ─┘                                                  └─ sink

A thread per camera, one that prepares, one that fuses and one per sink. Between live cameras and the fusion
a queue that is full drops its oldest; files make wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import Frame, FusedFrame
from ufuser.runtime.pairing import IR_LOST, SIDES, VI_LOST, PairingConfig, Side
from ufuser.runtime.sinks.stream import StreamSink
from ufuser.runtime.sources.camera import Camera
from ufuser.runtime.streaming import badge
from ufuser.runtime.streaming.flow import Closed, Lanes, Queue
from ufuser.runtime.streaming.intake import Intake, Patience
from ufuser.runtime.streaming.outlet import STALE, Outlet
from ufuser.runtime.streaming.prepare import Aligner, Preparation, Prepared
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.thermal import ThermalConfig, ThermalPipeline

_INBOX, _READY = 3, 1
"""Frames that wait of each camera, and pairs that wait for the fusion."""
_GRACE, _LAST = 1.0, 0.7
"""Real seconds that stopping waits for a picture being fused and for frames that wait for a sink; and, after that,
for sinks to finish their files."""
_SHOW = 0.02
"""Real seconds a window may keep the main thread waiting."""
_WORDS = {IR_LOST: "NO INFRARED", VI_LOST: "NO VISIBLE"}


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a stream is run. Seconds are of the stream's clock."""

    pairing: PairingConfig = field(default_factory=PairingConfig)
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    patience: Patience = field(default_factory=Patience)
    grey: bool = False
    """Fuse luma alone: the pictures are H×W."""
    marks: bool = False
    """Write into the picture that a camera is lost or the picture old, beside the flags."""
    duration: float | None = None
    """Ends after so many seconds; None runs until the sources end or somebody stops it."""


class CameraPair(Protocol):
    """Opens the two cameras; `ufuser.runtime.sources.opening.Cameras` does it by URIs."""

    @property
    def live(self) -> bool:
        """Whether they come at their own pace."""

    def start(self) -> None:
        """The stream begins now."""

    def name(self, side: Side) -> str:
        """What a camera is called, credentials masked."""

    def open(self, side: Side) -> Camera:
        """Open a camera, for the first time or again. Raises InputError."""


class FusesPairs(Protocol):
    """What `ufuser.Fuser` is to a stream."""

    def fuse(self, ir: NDArray[Any], vi: NDArray[Any]) -> NDArray[Any]:
        """The fused picture in the visible's layout; both uint8, of one size."""


class Stream:
    """A running stream. A context manager: entering starts it, leaving stops it.

    Args:
        cameras: the two cameras, opened on starting.
        fuser: used in one thread.
        sinks: open; the stream finishes them.
        config: how.
        aligner: brings infrared onto the visible camera's pixels; None scales it to the same size.
        clock: all times are of it.
        say: takes a line about what happened; credentials masked. Called from several threads.
    """

    def __init__(
        self,
        cameras: CameraPair,
        fuser: FusesPairs,
        sinks: Sequence[StreamSink] = (),
        config: StreamConfig | None = None,
        aligner: Aligner | None = None,
        clock: Clock | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.config, self.clock = config or StreamConfig(), clock or Clock()
        self._cameras, self._fuser, self._aligner = cameras, fuser, aligner
        self._user_say = say
        self.telemetry = Telemetry({side: cameras.name(side) for side in SIDES}, self.clock)
        self.outlets = [Outlet(sink, cameras.live, self.clock, self.telemetry, self._say) for sink in sinks]
        self._stop = threading.Event()
        self._fused = threading.Event()
        """No more fused frames come."""
        self._inbox: Lanes[Frame | None] = Lanes(SIDES, _INBOX, drop_oldest=cameras.live)
        self._ready: Queue[Prepared] = Queue(_READY, drop_oldest=cameras.live)
        self._threads: list[threading.Thread] = []
        self._sinks: list[threading.Thread] = []
        self._sequence = 0
        self._last: FusedFrame | None = None
        self.error: BaseException | None = None
        """What ended the stream, if it was a failure."""

    def __enter__(self) -> Stream:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Open both cameras and start the threads. Raises InputError if a camera cannot be opened."""
        self._cameras.start()
        opened: dict[Side, Camera] = {}
        try:
            for side in SIDES:
                opened[side] = self._cameras.open(side)
        except BaseException:
            for camera in opened.values():
                camera.close()
            for outlet in self.outlets:
                outlet.finish()
            raise
        preparation = self._preparation()
        for side in SIDES:
            self._threads.append(self._spawn(f"{side} camera", self._intake(side, opened[side]).run))
        self._threads.append(self._spawn("prepare", preparation.run))
        self._threads.append(self._spawn("fuse", self._fuse))
        for outlet in self.outlets:
            if not outlet.sink.in_main_thread:
                self._sinks.append(self._spawn(f"sink {outlet.sink.name}", outlet.run))

    def wait(self, timeout: float) -> bool:
        """Wait until the stream has ended by itself; in the main thread, also show windows.

        Args:
            timeout: real seconds.

        Returns:
            Whether it has ended, sinks included.

        Raises:
            Whatever a thread died of: InputError, such as for a file that cannot be read on.
        """
        shown = [outlet for outlet in self.outlets if outlet.sink.in_main_thread and not outlet.done]
        for outlet in shown:
            outlet.step(min(timeout, _SHOW))
        if not shown:
            self._fused.wait(timeout)
        if any(outlet.end_wanted for outlet in self.outlets):
            self._stop_sources()
        if self.error is not None:
            raise self.error
        if self.outlets and all(outlet.error for outlet in self.outlets):
            self._stop_sources()
        if self._fused.is_set() and self._sinks:
            self._sinks[0].join(timeout)
        return self._fused.is_set() and not any(thread.is_alive() for thread in self._sinks)

    def stop(self) -> None:
        """End it now, within two seconds: what is being fused is finished, what waits for a sink is written if
        time allows, and every sink is finished. A second call does nothing more."""
        self._stop_sources()
        deadline = time.monotonic() + _GRACE
        for thread in (*self._threads, *self._sinks):
            thread.join(max(deadline - time.monotonic(), 0.0))
        for outlet in self.outlets:
            outlet.close(discard=True)
        deadline += _LAST
        for thread in self._sinks:
            thread.join(max(deadline - time.monotonic(), 0.0))
        for outlet in self.outlets:
            # A sink that hangs is left to its thread: what it has written so far is whole without its end.
            if outlet.sink.in_main_thread or not self._sinks:
                outlet.finish()

    def _stop_sources(self) -> None:
        self._stop.set()
        self._inbox.close(discard=True)
        self._ready.close(discard=True)

    # Threads

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as e:
                self._fail(e)

        thread = threading.Thread(target=guarded, name=f"ufuser {name}", daemon=True)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self._stop_sources()

    def _say(self, text: str) -> None:
        self.telemetry.event(text)
        if self._user_say is not None:
            self._user_say(text)

    def _intake(self, side: Side, camera: Camera) -> Intake:
        return Intake(
            side,
            camera,
            lambda: self._cameras.open(side),
            self._inbox,
            self.clock,
            self.telemetry,
            self._stop,
            self._say,
            self.config.patience,
        )

    def _preparation(self) -> Preparation:
        return Preparation(
            self._inbox,
            self._ready,
            self._cameras.live,
            self.config.pairing,
            ThermalPipeline(self.config.thermal),
            self._aligner,
            self.config.grey,
            self.config.duration,
            self.clock,
            self.telemetry,
            self._say,
        )

    def _fuse(self) -> None:
        try:
            while True:
                prepared = self._ready.get(None)
                if prepared is None:
                    continue
                frame = self._repeated(prepared) if prepared.pair is None else self._fresh(prepared)
                if frame is not None:
                    for outlet in self.outlets:
                        outlet.offer(frame)
        except Closed:
            pass
        finally:
            self._stop_sources()
            for outlet in self.outlets:
                outlet.close(discard=False)
            self._fused.set()

    def _fresh(self, prepared: Prepared) -> FusedFrame:
        pair = prepared.pair
        assert pair is not None
        ir, vi = (None if frame is None else frame.image for frame in (pair.ir, pair.vi))
        if ir is not None and vi is not None:
            with self.telemetry.stage("fuse"):
                image = self._fuser.fuse(ir, vi)
        elif vi is not None:
            image = vi
        else:
            assert ir is not None  # a pair has at least one side
            image = ir if self.config.grey else np.asarray(cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR))
        skew = pair.skew_s if ir is not None and vi is not None else None
        frame = FusedFrame(
            image, pair.stamp, self._sequence, "fused", pair.flags, prepared.arrival, ir, vi, skew
        )
        self._last = frame
        self.telemetry.fused(frame.flags)
        words = [word for flag, word in _WORDS.items() if flag in frame.flags]
        return self._numbered(frame, ", ".join(words))

    def _repeated(self, prepared: Prepared) -> FusedFrame | None:
        if self._last is None:
            return None
        frame = replace(
            self._last, timestamp=prepared.arrival, flags=frozenset({STALE, IR_LOST, VI_LOST}), skew=None
        )
        return self._numbered(frame, f"NO SIGNAL FOR {prepared.lost_for:.0f} s")

    def _numbered(self, frame: FusedFrame, words: str) -> FusedFrame:
        image = badge.stamp(frame.image, words) if words and self.config.marks else frame.image
        numbered = replace(frame, image=image, sequence=self._sequence)
        self._sequence += 1
        return numbered
