"""Flat-field corrections: while its shutter is closed, a thermal camera repeats the same picture bit by bit."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RUNS = 9
_GLANCE = 64
"""Rows apart, for a first look that tells almost every new picture."""


class FreezeDetector:
    """Tells repeated pictures of a correction from those of a camera that sends each picture several times.

    A sensor's noise never repeats, so one identical picture is enough. A 9 Hz core behind a 27 Hz interface
    repeats two of three, though: what it does all the time is no freeze.
    """

    def __init__(self) -> None:
        self._held: NDArray[Any] | None = None
        self._repeats = 0
        self._runs: deque[int] = deque([0], maxlen=_RUNS)

    def is_repeat(self, image: NDArray[Any]) -> bool:
        """Whether the picture is the one before, bit by bit. Keeps a reference to it, not a copy."""
        held = self._held
        same = (
            held is not None
            and held.shape == image.shape
            and held.dtype == image.dtype
            and np.array_equal(held[::_GLANCE], image[::_GLANCE])
            and np.array_equal(held, image)
        )
        if same:
            self._repeats += 1
            return True
        if held is not None:
            self._runs.append(self._repeats)
        self._held, self._repeats = image, 0
        return False

    @property
    def frozen(self) -> bool:
        """Whether the latest picture was repeated oftener than this camera always does."""
        usual = median(self._runs)
        return self._repeats > (usual + 1 if usual else 0)
