"""Maps a camera's own stamps to the stream's clock."""

from __future__ import annotations

from collections import deque

_WINDOW = 30.0
"""Seconds over which the smallest delay is searched: long enough to contain a fast frame, short enough to follow a
drifting clock."""
_JUMP = 1.0
"""Seconds of error after which the camera's clock counts as reset."""


class StampMap:
    """Maps stamps by the smallest recent difference (arrival − stamp), that of the frame with the least delay.

    This smallest delay itself remains as a constant error, which the options `ir_offset` and `vi_offset` subtract.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque()
        """(arrival, delay) with rising delays: the first is the smallest of the window."""
        self._latest = float("-inf")

    def map(self, stamp: float, arrival: float) -> float:
        """The moment of capture.

        Args:
            stamp: seconds on the camera's clock, of any origin.
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
    """Whether a driver's stamp is on the monotonic clock itself: shortly before now."""
    return now - 2.0 < stamp <= now + 0.001
