"""What a run's durations say: rates and percentiles, never an average that hides the slow frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Durations:
    """Summary of how long the frames took in one stage."""

    frames: int
    fps: float
    """Frames over the sum of their durations: the rate this stage alone would sustain; 0 without frames."""
    p50_ms: float
    p95_ms: float
    max_ms: float
    """Milliseconds; 0 without frames. Percentiles interpolate linearly between the two nearest frames."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Durations:
        """Summarise durations in seconds, one a frame."""
        if not seconds:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        total = sum(seconds)
        p50, p95, longest = (float(p) * 1000 for p in np.percentile(seconds, (50, 95, 100)))
        return cls(len(seconds), len(seconds) / total if total > 0 else 0.0, p50, p95, longest)
