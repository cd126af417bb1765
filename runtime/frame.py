"""Frames: pictures on their way from a source to a sink."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, with where and when it was taken. Compared by identity: arrays have no single equality."""

    image: NDArray[Any]
    """H×W grey or H×W×3 BGR; uint8, uint16 or float32 in [0, 1]."""
    timestamp: float
    """Seconds on the source's own clock; never falls from one frame to the next."""
    sequence: int
    """The source's count of its frames, from 0; a gap means frames that never came."""
    source: str
    """URI or path it was read from; for a folder, the path of the picture itself."""
    flags: frozenset[str] = frozenset()
    """Properties such as "frozen", set while a thermal camera corrects its flat field."""
    arrival: float = math.nan
    """Seconds on the stream's clock when it was received; NaN outside of a stream."""


@dataclass(frozen=True, slots=True, eq=False)
class FusedFrame(Frame):
    """What a stream gives. `image` is the fused picture, uint8, of the visible picture's size; `timestamp` its
    capture on the stream's monotonic clock (of files: on their own time).

    The three pictures are read-only, because the stream and other sinks use them too: draw on a copy."""

    ir: NDArray[Any] | None = None
    """The infrared picture as it was fused, H×W uint8: tone-mapped and aligned; None where it was missing."""
    vi: NDArray[Any] | None = None
    """The visible picture, uint8; None where it was missing."""
    skew: float | None = None
    """Infrared minus visible stamp, seconds; None unless both were there."""


def read_only(image: NDArray[Any]) -> NDArray[Any]:
    """A view of the array through which it cannot be written; no copy."""
    view: NDArray[Any] = image.view()
    view.setflags(write=False)
    return view
