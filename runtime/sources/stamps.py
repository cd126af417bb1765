"""A camera's own stamps on the stream's clock."""

from __future__ import annotations

from collections import deque

_WINDOW = 30.0
"""Seconds over which the smallest delay is looked for: long enough to meet a quick frame, short enough to follow
a drifting clock."""
_JUMP = 1.0
"""Seconds by which a stamp may lie off before the camera's clock counts as set anew."""


class StampMap:
    """Maps relative stamps by the smallest (arrival − stamp) seen lately: the frame least delayed on its way.

    What remains is that smallest delay itself, a constant, which the options `ir_offset` and `vi_offset` subtract.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque()
        """(arrival, delay), delays rising: the first is the smallest of the window."""
        self._latest = float("-inf")

    def map(self, stamp: float, arrival: float) -> float:
        """The moment of capture.

        Args:
            stamp: seconds on the camera's clock, whatever its origin.
            arrival: seconds on the stream's clock.

        Returns:
            Seconds on the stream's clock, never after `arrival` and never before an earlier answer.
        """
        delay = arrival - stamp
        if self._delays and abs(delay - self._delays[0][1]) > _JUMP:
            self._delays.clear()
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((arrival, delay))
        while self._delays[0][0] < arrival - _WINDOW:
            self._delays.popleft()
        self._latest = max(self._latest, min(stamp + self._delays[0][1], arrival))
        return self._latest


def on_monotonic(stamp: float, now: float) -> bool:
    """Whether a driver's stamp is plausibly of the monotonic clock itself: just before now."""
    return now - 2.0 < stamp <= now + 0.001
