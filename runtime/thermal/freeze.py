"""Detection of flat-field corrections: while its shutter is closed, a thermal camera repeats the same picture."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RUNS = 9
"""Latest runs of repeats from which the usual number is computed."""
_STRIDE = 64
"""Rows between those of a first comparison, which recognises almost every new picture."""


class FreezeDetector:
    """Distinguishes a correction from a camera that sends each picture several times.

    A sensor's noise never repeats, so one identical picture is enough. But a 9 Hz core behind a 27 Hz interface always
    repeats two of three: the usual number of repeats is not a freeze.
    """

    def __init__(self) -> None:
        self._held: NDArray[Any] | None = None
        self._repeats = 0
        self._runs: deque[int] = deque([0], maxlen=_RUNS)

    def is_repeat(self, image: NDArray[Any]) -> bool:
        """Whether the picture is bit-identical to the one before. Keeps a reference to it, not a copy."""
        held = self._held
        same = (
            held is not None
            and held.shape == image.shape
            and held.dtype == image.dtype
            and np.array_equal(held[::_STRIDE], image[::_STRIDE])
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
        """Whether the latest picture was repeated more often than usual."""
        usual = median(self._runs)
        return self._repeats > (usual + 1 if usual else 0)
