"""Pairing of two streams: its configuration and its results. `ufuser.runtime.pairer` does the work."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame

Side = Literal["ir", "vi"]
SIDES: tuple[Side, Side] = ("ir", "vi")
Mode = Literal["nearest", "hold"]
MODES: tuple[Mode, ...] = get_args(Mode)

IR_LOST, VI_LOST, HELD, CLOCK_JUMP = "ir-lost", "vi-lost", "ir-held", "clock-jump"
"""Flags of a pair, beside those of its frames: one side is missing; the infrared frame was in a pair before; first pair
after a clock jump."""

SURPLUS = "surplus"
"""Reasons of dropped frames. The other camera is slower."""
NO_PARTNER = "no-partner"
"""No frame near enough on the other side."""
LATE = "late"
"""Older than a frame that was paired already."""
DUPLICATE = "duplicate"
"""A frame of the same stamp is there."""
OVERFLOW = "overflow"
"""Too many frames waiting."""
JUMPED = "clock-jump"
"""Waiting when the clock jumped."""
NO_STAMP = "no-stamp"
"""Its stamp is NaN or infinite."""


@dataclass(frozen=True, slots=True)
class PairingConfig:
    """Raises InputError for an unknown mode or a value out of range."""

    mode: Mode = "nearest"
    """"nearest" or "hold"."""
    ir_offset_s: float = 0.0
    vi_offset_s: float = 0.0
    """Seconds by which a camera's stamps are ahead of the exposure. They are subtracted."""
    max_skew_s: float = 0.1
    """nearest: largest difference of the stamps of a pair."""
    max_age_s: float = 0.25
    """hold: largest age of the infrared frame, relative to the visible one."""
    patience_s: float = 0.1
    """How long, by the stamps of its own stream, a frame waits for the other side."""
    lost_after_s: float = 1.0
    """Time without a frame after which a side is lost and the other one is passed on alone."""
    jump_s: float = 1.0
    """A clock has jumped if its stamps go back by more than this, or if the two sides stay farther apart."""
    capacity: int = 16
    """Waiting frames of a side, at most; then the oldest is dropped."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode={self.mode!r}: expected {' or '.join(map(repr, MODES))}", "mode")
        for name in ("ir_offset_s", "vi_offset_s"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: expected a finite number of seconds", name)
        for name in ("max_skew_s", "max_age_s", "patience_s", "lost_after_s", "jump_s"):
            if not getattr(self, name) >= 0:  # so that NaN fails too
                raise InputError(f"{name}={getattr(self, name)}: expected seconds of at least 0", name)
        if self.capacity < 2:
            raise InputError(f"capacity={self.capacity}: expected at least 2 frames", "capacity")

    def offline(self) -> PairingConfig:
        """For files, where one side may be read far ahead of the other: no time limits, no clock jumps."""
        return replace(self, patience_s=math.inf, lost_after_s=math.inf, jump_s=math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class FramePair:
    """Two frames to fuse, or one if the other side is missing."""

    ir: Frame | None
    vi: Frame | None
    skew_s: float
    """Infrared minus visible stamp, offsets subtracted; 0 if a side is missing."""
    stamp: float
    """Stamp of the visible frame, or of the infrared frame if it is alone; offset subtracted."""
    flags: frozenset[str] = frozenset()
    """Flags of the pair and of both frames."""
