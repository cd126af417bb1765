"""The queue and thread of a sink: however slow the sink is, the fusion does not wait for it."""

from __future__ import annotations

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.sink import EndWanted, Sink, SinkDown
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.queues import Closed, Queue
from ufuser.runtime.streaming.supervisor import Supervisor, describe

_EVERY_FRAME, _NEWEST = 8, 2
"""Frames that wait for a sink that takes every one, and for one that shows the newest."""
STALE = "stale"
"""Flag of a repetition of the last frame, while no camera gives another."""


class SinkWorker:
    """Brings frames to one sink. One thread runs the worker; only that thread writes to the sink and closes it.

    Args:
        sink: open.
        live: the frames come from cameras, so a frame may be lost rather than waited for. From files, a sink that
            takes every frame loses none.
        context: of the stream.
    """

    def __init__(self, sink: Sink, live: bool, context: StreamContext) -> None:
        self.sink = sink
        self.error = ""
        """The latest error of the sink, but for a server that was away; empty if there was none."""
        self.done = False
        """The sink is closed."""
        self.end_wanted = False
        """The sink asks for the end of the stream."""
        self._live, self._context = live, context
        self._supervisor = Supervisor(sink.name, sink.name, context)
        capacity = _EVERY_FRAME if sink.every_frame else _NEWEST
        self._queue: Queue[FusedFrame] = Queue(capacity, live or not sink.every_frame)

    def offer(self, frame: FusedFrame) -> None:
        """Hand over a frame. Waits only where frames of files go to a sink that takes every one."""
        try:
            if self._queue.put(frame) is not None:
                self._drop("sink-too-slow")
        except Closed:
            pass

    def end(self, discard: bool) -> None:
        """No more frames come. Those that wait are still written, unless they are discarded."""
        self._queue.close(discard)

    # For the thread that runs the worker

    def run(self) -> None:
        """Write until the queue is closed and empty, or the sink is over. Then close the sink."""
        try:
            while self.step(None):
                pass
        finally:
            self.finish()

    def step(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for a frame and write it; False when there will be no more."""
        try:
            frame = self._queue.get(timeout)
        except Closed:
            self.finish()
            return False
        if frame is None:
            return True
        if self._supervisor.waiting():
            self._drop("sink-down")
            return True
        return self._write(frame)

    def finish(self, abort: bool = False) -> None:
        """Close the sink, or abort it; a second call does nothing."""
        if self.done:
            return
        try:
            if abort:
                self.sink.abort()
            else:
                self.sink.close()
        except Exception as e:
            self.error = self.error or describe(e)
            self._context.event("error", self.sink.name, f"could not be finished: {describe(e)}")
        finally:
            self.done = True

    def _write(self, frame: FusedFrame) -> bool:
        try:
            with self._context.telemetry.stage(f"write {self.sink.name}"):
                self.sink.write(frame)
        except EndWanted:
            self.end_wanted = True
            self.finish()
            return False
        except Exception as e:
            self._drop("sink-down")
            if not isinstance(e, SinkDown):
                self.error = describe(e)
                # From files, the output must not have a gap: there is no second attempt.
                if isinstance(e, InputError) or not self._live:
                    self._supervisor.failed(e, "; the other outputs go on")
                    self._queue.close(discard=True)
                    self.finish(abort=True)
                    return False
            self._supervisor.failed(e)
        else:
            self._supervisor.worked()
            self._context.telemetry.written(self.sink.name, self._latency(frame))
        return True

    def _latency(self, frame: FusedFrame) -> float | None:
        if STALE in frame.flags:
            return None
        # A file's stamps are not on this clock.
        return self._context.clock.now() - (frame.timestamp if self._live else frame.arrival)

    def _drop(self, reason: str) -> None:
        self._context.telemetry.drop(self.sink.name, reason)
