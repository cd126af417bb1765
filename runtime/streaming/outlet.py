"""A sink's thread and its queue: however slow the sink, who fuses does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.stream import EndWanted, SinkDown, StreamSink
from ufuser.runtime.streaming.flow import Closed, Queue
from ufuser.runtime.telemetry import Telemetry

_EVERY_FRAME, _NEWEST = 8, 2
"""Frames that wait for a sink that wants every one, and for one that shows the newest."""
STALE = "stale"
"""Flag of the last frame, given again because no camera gives another."""


class Outlet:
    """Brings frames to one sink.

    Args:
        sink: open.
        live: the frames come from cameras: rather lose one than wait. Of files none is lost on the way to a sink
            that wants every one.
        clock, telemetry: of the stream.
        say: takes a line about what happened.
    """

    def __init__(
        self, sink: StreamSink, live: bool, clock: Clock, telemetry: Telemetry, say: Callable[[str], None]
    ) -> None:
        self.sink = sink
        self.error = ""
        """Why the sink is over before its time."""
        self.done = self.end_wanted = False
        self._live = live
        self._clock, self._telemetry, self._say = clock, telemetry, say
        capacity = _EVERY_FRAME if sink.every_frame else _NEWEST
        self._queue: Queue[FusedFrame] = Queue(capacity, live or not sink.every_frame)
        self._down = False
        self._lock = threading.Lock()

    def offer(self, frame: FusedFrame) -> None:
        """Hand over a frame; waits only for files on their way to a file."""
        try:
            if self._queue.put(frame) is not None:
                self._telemetry.drop(self.sink.name, "sink-too-slow")
        except Closed:
            pass

    def run(self) -> None:
        """Write until the queue is closed and empty, or the sink is over; then finish the sink."""
        while self.step(None):
            pass

    def step(self, timeout: float | None) -> bool:
        """Write one frame that is there within `timeout` seconds; False when there will be none any more."""
        try:
            frame = self._queue.get(timeout)
        except Closed:
            self.finish()
            return False
        if frame is None:
            return True
        try:
            with self._telemetry.stage(f"write {self.sink.name}"):
                self.sink.write(frame)
        except SinkDown as e:
            self._telemetry.drop(self.sink.name, "sink-down")
            self._tell_down(str(e))
            return True
        except EndWanted:
            self.end_wanted = True
            self.finish()
            return False
        except InputError as e:
            self._give_up(str(e))
            return False
        self._tell_down("")
        self._telemetry.written(self.sink.name, self._latency(frame))
        return True

    def close(self, discard: bool) -> None:
        """No more frames come; those that wait are still written unless they are discarded."""
        self._queue.close(discard)

    def finish(self) -> None:
        """Finish the sink, whoever is first to do so."""
        with self._lock:
            self.done = True
            try:
                self.sink.close()
            except InputError as e:
                if not self.error:
                    self.error = str(e)
                    self._say(f"{self.sink.name} could not be finished: {e}")

    def _latency(self, frame: FusedFrame) -> float | None:
        if STALE in frame.flags:
            return None
        # A file's own time is not of this clock.
        return self._clock.now() - (frame.timestamp if self._live else frame.arrival)

    def _give_up(self, why: str) -> None:
        self.error = why
        self._say(f"{self.sink.name} is over: {why}; what it has is kept, the other outputs go on")
        self._queue.close(discard=True)
        self.finish()

    def _tell_down(self, why: str) -> None:
        if bool(why) != self._down:
            self._down = bool(why)
            self._say(f"{self.sink.name} is down: {why}" if why else f"{self.sink.name} is up again")
