"""The clock of a stream, used for capture stamps, time-outs, pauses and latencies alike."""

from __future__ import annotations

import threading
import time


class Clock:
    """Monotonic seconds, `speed` times as fast as real time.

    At speed 1 it is `time.monotonic()` itself, which is also the clock of V4L2's driver stamps. A faster clock
    runs ten minutes of simulated cameras in two, since every wait is on this clock.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._origin = time.monotonic()

    def now(self) -> float:
        """Seconds."""
        real = time.monotonic()
        return real if self.speed == 1.0 else self._origin + (real - self._origin) * self.speed

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for the event, at most `seconds` of this clock; returns whether it is set."""
        return event.wait(max(seconds / self.speed, 0.0))
