"""When a simulated camera takes its frames, which it loses, and what stamps it puts on them.

Pure arithmetic on the frame's index: no clock, and no frame depends on another having been asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ufuser.simulation.config import FFC_FREEZE, KINDS, STALL_EVERY, STALL_START, SimConfig

_DROP, _JITTER = 21, 22
_EDGE = 1e-9
"""Seconds of slack, so that 25 frames at 25 fps end at 1 s whatever the rounding."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The sensor's ticks: tick k is exposed at k / fps seconds."""

    config: SimConfig

    def exposed(self, index: int) -> float:
        """Seconds at which the frame of this tick is taken."""
        return index / self.config.fps

    def stamp(self, index: int) -> float:
        """Seconds the frame claims: exposure plus clock offset and jitter. Rises strictly with the index."""
        time = self.exposed(index) + self.config.offset_ms / 1000.0
        if self.config.jitter_ms:
            time += (2.0 * self._chance(_JITTER, index) - 1.0) * self.config.jitter_ms / 1000.0
        return time

    def delivered(self, index: int) -> bool:
        """Whether the frame of this tick arrives: not dropped, and not inside a stall."""
        if self.config.stall:
            into = math.fmod(self.exposed(index) - STALL_START, STALL_EVERY)
            if -_EDGE <= into < self.config.stall - _EDGE:
                return False
        return self._chance(_DROP, index) >= self.config.drop

    def frozen(self, index: int) -> bool:
        """Whether a flat-field correction holds the picture of an earlier tick."""
        return self.shown(index) != index

    def shown(self, index: int) -> int:
        """The tick whose picture this tick shows: an earlier one during a flat-field correction."""
        period = self.config.ffc
        if not period:
            return index
        time = self.exposed(index)
        began = math.floor((time + _EDGE) / period) * period
        if began <= 0.0 or time - began >= FFC_FREEZE - _EDGE:
            return index
        return max(0, math.ceil((began - _EDGE) * self.config.fps) - 1)

    def _chance(self, purpose: int, index: int) -> float:
        """A number in [0, 1) of this camera, purpose and tick."""
        kind = KINDS.index(self.config.kind)
        return float(np.random.default_rng((self.config.seed, kind, purpose, index)).random())
