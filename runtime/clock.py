"""The one clock of a stream: capture stamps, time-outs, pauses and latencies all are of it."""

from __future__ import annotations

import threading
import time


class Clock:
    """Monotonic seconds, `speed` times as fast as the world's.

    At speed 1 it is `time.monotonic()` itself, which is also the clock of V4L2's driver stamps. A faster one
    lets simulated cameras run ten minutes in two: whoever waits, waits by this clock.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._origin = time.monotonic()

    def now(self) -> float:
        """Seconds."""
        real = time.monotonic()
        return real if self.speed == 1.0 else self._origin + (real - self._origin) * self.speed

    def real(self, seconds: float) -> float:
        """The world's seconds that `seconds` of this clock take."""
        return seconds / self.speed

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for the event, at most `seconds`; whether it is set."""
        return event.wait(max(self.real(seconds), 0.0))
