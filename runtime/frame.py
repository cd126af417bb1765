"""Frame: one picture on its way from a source to a sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture with where and when it was taken. Compared by identity: arrays have no single equality."""

    image: NDArray[Any]
    """H×W grey or H×W×3 BGR; uint8, uint16 or float32 in [0, 1]."""
    timestamp: float
    """Seconds on the source's own clock; never falls from one frame to the next."""
    sequence: int
    """The source's count of its frames, from 0; a gap means frames that never came."""
    source: str
    """URI or path it was read from; for a folder, the path of the picture itself."""
    flags: frozenset[str] = frozenset()
    """What is special about it, such as "frozen" while a thermal camera corrects its flat field."""
