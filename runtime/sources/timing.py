"""When a simulated or played camera takes its frames, which it loses, and how its stamps err.

Pure arithmetic on the frame's index: no clock, and no frame depends on an earlier one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ufuser.runtime.errors import InputError

STALL_START, STALL_EVERY = 10.0, 60.0
"""Seconds: a stalling camera falls silent 10 s after its start and then once a minute."""
FFC_FREEZE = 0.6
"""Seconds that a flat-field correction holds the picture."""
_DROP, _JITTER = 21, 22
_EDGE = 1e-9
"""Seconds of slack, so that 25 frames at 25 fps end at 1 s in spite of rounding."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Ticks of a sensor: tick k is exposed at k / fps seconds.

    Raises:
        InputError: a value is out of range.
    """

    fps: float = 25.0
    """Frames per second."""
    thermal: bool = False
    """Which of the two cameras; their drops and jitter differ."""
    seed: int = 0
    """Chooses drops and jitter."""
    drop: float = 0.0
    """Probability that a frame is lost, 0 to below 1."""
    jitter_ms: float = 0.0
    """Largest error of a stamp, either way: at most half a frame, to keep stamps in order."""
    stall: float = 0.0
    """Seconds without frames, 10 s after the start and then every minute."""
    ffc: float = 0.0
    """Seconds between flat-field corrections, each a freeze of 0.6 s; 0 for none."""
    offset_ms: float = 0.0
    """Added to every stamp: by how much this camera's clock is ahead."""

    def __post_init__(self) -> None:
        require_between("fps", self.fps, 0.1, 1000.0)
        require_between("drop", self.drop, 0.0, 0.99)
        require_between("jitter_ms", self.jitter_ms, 0.0, math.inf)
        if self.jitter_ms > 500.0 / self.fps:
            raise InputError(
                f"jitter={self.jitter_ms:g}ms: expected at most half a frame, {500.0 / self.fps:g}ms at "
                f"{self.fps:g} fps, so that stamps keep their order"
            )
        require_between("stall", self.stall, 0.0, STALL_EVERY - 1.0)
        require_between("ffc", self.ffc, 0.0, math.inf)
        if self.ffc and self.ffc <= FFC_FREEZE:
            raise InputError(
                f"ffc={self.ffc:g}: expected a period longer than the freeze of {FFC_FREEZE:g} s"
            )
        require_between("offset_ms", self.offset_ms, -60_000.0, 60_000.0)

    def exposed(self, index: int) -> float:
        """Seconds at which the frame of this tick is taken."""
        return index / self.fps

    def stamp(self, index: int) -> float:
        """Stamp of the frame, seconds: exposure plus clock offset and jitter. Rises strictly with the index."""
        time = self.exposed(index) + self.offset_ms / 1000.0
        if self.jitter_ms:
            time += (2.0 * self._chance(_JITTER, index) - 1.0) * self.jitter_ms / 1000.0
        return time

    def delivered(self, index: int) -> bool:
        """Whether the frame of this tick arrives: not dropped, and not inside a stall."""
        if self.stall:
            into = math.fmod(self.exposed(index) - STALL_START, STALL_EVERY)
            if -_EDGE <= into < self.stall - _EDGE:
                return False
        return self._chance(_DROP, index) >= self.drop

    def frozen(self, index: int) -> bool:
        """Whether a flat-field correction holds the picture of an earlier tick."""
        return self.shown(index) != index

    def shown(self, index: int) -> int:
        """Tick whose picture this tick shows: an earlier one during a flat-field correction."""
        if not self.ffc:
            return index
        time = self.exposed(index)
        began = math.floor((time + _EDGE) / self.ffc) * self.ffc
        if began <= 0.0 or time - began >= FFC_FREEZE - _EDGE:
            return index
        return max(0, math.ceil((began - _EDGE) * self.fps) - 1)

    def _chance(self, purpose: int, index: int) -> float:
        """A number in [0, 1) of this camera, purpose and tick."""
        return float(np.random.default_rng((self.seed, int(self.thermal), purpose, index)).random())


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raise InputError unless low <= value <= high; `high` may be infinite."""
    if not (math.isfinite(value) and low <= value <= high):
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise InputError(f"{name}={value:g}: expected a number {span}", name)
