"""Histograms of durations in bounded memory: a thousand counters give percentiles over weeks."""

from __future__ import annotations

import bisect
import math

_SMALLEST, _LARGEST, _GROWTH = 1e-5, 1e4, 1.02
"""Range in seconds, and ratio of neighbouring edges: percentiles are accurate to 1 %."""
_COUNTERS = math.ceil(math.log(_LARGEST / _SMALLEST) / math.log(_GROWTH)) + 2
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper edges of the buckets for Prometheus, seconds."""


class Histogram:
    """Counts durations by length. Not for several threads at once."""

    def __init__(self) -> None:
        self._fine = [0] * _COUNTERS
        self._coarse = [0] * (len(BOUNDS) + 1)
        self.count = 0
        self.total = 0.0
        """Sum, seconds."""
        self.least, self.most = math.inf, 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; a negative one counts as 0."""
        seconds = max(seconds, 0.0)
        index = 0
        if seconds > _SMALLEST:
            index = min(1 + int(math.log(seconds / _SMALLEST) / math.log(_GROWTH)), _COUNTERS - 1)
        self._fine[index] += 1
        self._coarse[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.count += 1
        self.total += seconds
        self.least, self.most = min(self.least, seconds), max(self.most, seconds)

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the durations do not exceed, accurate to 1 %; 0 without durations."""
        wanted, seen = percent / 100 * self.count, 0
        for index, number in enumerate(self._fine):
            seen += number
            if number and seen >= wanted:
                middle = _SMALLEST * _GROWTH ** (index - 0.5) if index else 0.0
                return min(max(middle, self.least), self.most)
        return 0.0

    def cumulative(self) -> list[int]:
        """For each of `BOUNDS`, the number of durations that do not exceed it."""
        totals, seen = [], 0
        for number in self._coarse[:-1]:
            seen += number
            totals.append(seen)
        return totals

    def summary_ms(self) -> dict[str, float | int]:
        """Count, p50, p95, p99 and maximum, milliseconds."""
        return {
            "frames": self.count,
            **{f"p{p}": round(self.percentile(p) * 1000, 3) for p in (50, 95, 99)},
            "max": round(self.most * 1000, 3),
        }
