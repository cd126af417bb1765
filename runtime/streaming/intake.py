"""A camera's thread: reads, watches, and opens the camera again when it has failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.pairing import Side
from ufuser.runtime.sources.camera import Camera, Reading, Status, failed
from ufuser.runtime.streaming.flow import Closed, Lanes
from ufuser.runtime.telemetry import Telemetry

_POLL = 0.1
"""Real seconds a read waits at most, so that stopping is quick."""
CALLED = {"ir": "infrared", "vi": "visible"}


@dataclass(frozen=True, slots=True)
class Patience:
    """When a camera is given up and how it is tried again; seconds."""

    silent: float = 5.0
    """Without a frame for so long, it is closed and opened again."""
    first_pause: float = 0.5
    """Before the first try to open it again."""
    longest_pause: float = 30.0
    """Each further try waits twice as long as the one before, but no longer than this."""


class Intake:
    """Runs in a thread of its own until the source ends, or `stop` is set.

    Args:
        side: which camera.
        camera: open.
        reopen: opens it anew, or raises InputError.
        inbox: where frames go; an ended source puts None.
        clock, telemetry: of the stream.
        stop: set from outside.
        say: takes a line about what happened.
        patience: with a camera that fails.
    """

    def __init__(
        self,
        side: Side,
        camera: Camera,
        reopen: Callable[[], Camera],
        inbox: Lanes[Frame | None],
        clock: Clock,
        telemetry: Telemetry,
        stop: threading.Event,
        say: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self._side, self._camera, self._reopen, self._inbox = side, camera, reopen, inbox
        self._clock, self._telemetry, self._stop, self._say = clock, telemetry, stop, say
        self._patience = patience
        self._sequence: int | None = None
        self._heard = clock.now()

    def run(self) -> None:
        """Read until the end. Raises InputError for a file that cannot be read on."""
        try:
            while not self._stop.is_set():
                reading = self._read()
                if reading.frame is not None:
                    self._take(reading.frame, reading.late)
                elif reading.status is Status.END:
                    self._telemetry.state(self._side, "ended")
                    self._inbox.put(self._side, None)
                    return
                elif reading.status is Status.ERROR:
                    self._recover(reading.detail)
                elif self._clock.now() - self._heard > self._patience.silent:
                    self._recover(f"{self._camera.name}: no frame for {self._patience.silent:g} s")
        except Closed:
            pass
        finally:
            self._camera.close()

    def _read(self) -> Reading:
        try:
            return self._camera.read(self._clock.speed * _POLL)
        except InputError as e:
            if not self._camera.live:
                raise
            return failed(str(e))

    def _take(self, frame: Frame, late: int) -> None:
        self._heard = frame.arrival
        if self._sequence is not None:
            missed = frame.sequence - self._sequence - 1 - late
            if missed > 0:
                self._telemetry.drop(self._side, "never-came", missed)
        if late:
            self._telemetry.drop(self._side, "read-too-late", late)
        self._sequence = frame.sequence
        self._telemetry.arrived(self._side, frame)
        if self._inbox.put(self._side, frame) is not None:
            self._telemetry.drop(self._side, "queue-full")

    def _recover(self, why: str) -> None:
        """Close, pause, open; again until it works or the stream is stopped."""
        called = CALLED[self._side]
        self._telemetry.state(self._side, "gone")
        self._say(f"{called} camera failed: {why}")
        self._camera.close()
        pause, gone = self._patience.first_pause, self._clock.now()
        while not self._clock.wait(self._stop, pause):
            try:
                self._camera = self._reopen()
            except InputError:
                pause = min(2 * pause, self._patience.longest_pause)
                continue
            self._telemetry.reconnected(self._side)
            self._say(f"{called} camera is open again after {self._clock.now() - gone:.1f} s")
            break
        self._heard, self._sequence = self._clock.now(), None
