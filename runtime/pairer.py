"""Pairs of frames from two streams, by their stamps alone: no threads, no clock, bounded memory.

    pairer = Pairer(PairingConfig(mode="hold", max_age_s=0.25))
    for side, frame in arriving:            # "ir" or "vi", in any order
        for pair in pairer.push(side, frame):
            ...
    rest = pairer.flush()                   # end of both streams

`nearest` uses each frame once, at the pace of the slower camera. `hold` follows the visible camera and repeats an
infrared frame until it is too old. Apart from the configured offsets, both sides' stamps must be on one clock. Files
need `config.offline()`, which never gives up a frame for lack of time; `wants` tells from which side to read next.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, deque
from dataclasses import dataclass
from statistics import median

from ufuser.runtime.frame import Frame
from ufuser.runtime.pairing import (
    CLOCK_JUMP,
    DUPLICATE,
    HELD,
    IR_LOST,
    JUMPED,
    LATE,
    NO_PARTNER,
    NO_STAMP,
    OVERFLOW,
    SURPLUS,
    VI_LOST,
    FramePair,
    PairingConfig,
    Side,
)

_REMEMBERED, _SURE = 9, 4
"""Stamps from which a camera's period is computed; intervals needed before infrared counts as the faster camera."""
_DISAGREE = 8
"""Alternating frames of each side whose stamps are too far apart, after which the clocks are aligned again."""


@dataclass(slots=True, eq=False)
class _Waiting:
    stamp: float
    frame: Frame
    used: bool = False


class _Queue:
    """Waiting frames of one side, in order of their corrected stamps."""

    def __init__(self, side: Side, offset: float) -> None:
        self.side, self.offset = side, offset
        self.frames: list[_Waiting] = []
        self.newest = -math.inf
        """Latest stamp pushed."""
        self.passed = -math.inf
        """Frames up to this stamp come too late."""
        self.silence = 0.0
        """Seconds of the other side since the last frame of this one."""
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def intervals(self) -> list[float]:
        """Seconds between consecutive recent stamps, sorted."""
        stamps = sorted(self._recent)
        return sorted(b - a for a, b in itertools.pairwise(stamps))

    @property
    def period(self) -> float:
        """Median seconds between frames, robust to drops; 0 while unknown."""
        intervals = self.intervals
        return median(intervals) if intervals else 0.0

    def add(self, waiting: _Waiting) -> None:
        bisect.insort(self.frames, waiting, key=lambda w: w.stamp)
        self.newest = max(self.newest, waiting.stamp)
        self._recent.append(waiting.stamp)

    def clear(self) -> list[_Waiting]:
        removed, self.frames = self.frames, []
        self.newest = self.passed = -math.inf
        self._recent.clear()
        return removed


class Pairer:
    """Pairs frames as they arrive, see the module. For one thread.

    Args:
        config: policy and limits.
    """

    def __init__(self, config: PairingConfig | None = None) -> None:
        self.config = config or PairingConfig()
        self.dropped: Counter[tuple[Side, str]] = Counter()
        """By side and reason. Every pushed frame is waiting, dropped or in a pair."""
        self._ir = _Queue("ir", self.config.ir_offset_s)
        self._vi = _Queue("vi", self.config.vi_offset_s)
        self._lost: set[Side] = set()
        self._gaps: list[float] = []
        """Infrared minus visible stamps whenever the side changes, while too far apart."""
        self._last_side: Side | None = None
        self._jumped = False

    def push(self, side: Side, frame: Frame) -> list[FramePair]:
        """Add a frame as it arrives.

        Args:
            side: "ir" or "vi".
            frame: only its `timestamp` and `flags` are used.

        Returns:
            The pairs that can be formed now, oldest first.
        """
        here, there = (self._ir, self._vi) if side == "ir" else (self._vi, self._ir)
        stamp = frame.timestamp - here.offset
        if not math.isfinite(stamp):
            self.dropped[side, NO_STAMP] += 1
            return []
        self._lost.discard(side)
        self._watch_clocks(here, there, stamp)
        stamp = frame.timestamp - here.offset  # the offset may have changed
        self._count_silence(here, there, stamp)
        if stamp == here.newest or any(w.stamp == stamp for w in here.frames):
            self.dropped[side, DUPLICATE] += 1
            return []
        if stamp <= here.passed:
            self.dropped[side, LATE] += 1
            return []
        here.add(_Waiting(stamp, frame))
        pairs = self._decide(ended=False)
        while len(here.frames) > self.config.capacity:
            self._drop(here, 1, OVERFLOW)
        return pairs

    def flush(self) -> list[FramePair]:
        """Form the last pairs at the end of both streams; the other frames are dropped."""
        pairs = self._decide(ended=True)
        for queue in (self._ir, self._vi):
            self._drop(queue, len(queue.frames), NO_PARTNER)
        return pairs

    def lost(self, side: Side) -> list[FramePair]:
        """Pass the other side on alone until a frame of this one is pushed: its source has failed or ended.

        Returns:
            The frames that were waiting, paired or alone.
        """
        pairs = self._decide(ended=True)
        self._lost.add(side)
        return pairs + self._decide(ended=False)

    def wants(self, side: Side) -> bool:
        """Whether there is room for a frame of this side. At least one side has room at any time."""
        return len((self._ir if side == "ir" else self._vi).frames) < self.config.capacity

    def is_lost(self, side: Side) -> bool:
        """Whether this side is lost."""
        queue = self._ir if side == "ir" else self._vi
        return side in self._lost or queue.silence > self.config.lost_after_s

    def _count_silence(self, here: _Queue, there: _Queue, stamp: float) -> None:
        """Add up the other side's silence. A single jump forward counts at most half the limit."""
        here.silence = 0.0
        if math.isfinite(here.newest):
            there.silence += min(max(stamp - here.newest, 0.0), self.config.lost_after_s / 2)

    def _watch_clocks(self, here: _Queue, there: _Queue, stamp: float) -> None:
        """Detect a stamp that goes back, and stamps of both sides that stay apart."""
        limit = self.config.jump_s
        if stamp < here.newest - limit:
            self._jump((here,))
        if not math.isfinite(there.newest) or abs(stamp - there.newest) <= limit:
            self._gaps.clear()
        elif self._last_side != here.side:
            gap = stamp - there.newest
            self._gaps.append(gap if here.side == "ir" else -gap)
            if len(self._gaps) >= 2 * _DISAGREE:
                # Frames of the same moment arrive at about the same time: align the stamps by that.
                self._ir.offset += median(self._gaps)
                self._gaps.clear()
                self._jump((self._ir, self._vi))
        self._last_side = here.side

    def _jump(self, queues: tuple[_Queue, ...]) -> None:
        self._jumped = True
        for queue in queues:
            for waiting in queue.clear():
                if not waiting.used:
                    self.dropped[queue.side, JUMPED] += 1

    def _decide(self, ended: bool) -> list[FramePair]:
        pairs: list[FramePair] = []
        for queue, other in ((self._ir, self._vi), (self._vi, self._ir)):
            if queue.frames and self.is_lost(other.side):
                pairs += [self._alone(queue, w) for w in queue.frames if not w.used]
                self._pass(queue, len(queue.frames))
        pairs += self._nearest(ended) if self.config.mode == "nearest" else self._hold(ended)
        return pairs

    # nearest

    def _nearest(self, ended: bool) -> list[FramePair]:
        # Measured rates of equal cameras differ a little; then infrared sets the pace.
        sure = min(len(self._ir.intervals), len(self._vi.intervals)) >= _SURE
        visible_paces = sure and self._vi.period > 1.1 * self._ir.period
        slow, fast = (self._vi, self._ir) if visible_paces else (self._ir, self._vi)
        pairs = []
        # At the end, frames without any left on the other side stay: they may be passed on alone.
        while slow.frames and (fast.frames or not ended):
            stamp = slow.frames[0].stamp
            after = bisect.bisect_right(fast.frames, stamp, key=lambda w: w.stamp)
            if after > 1:
                # Of the earlier frames, only the last can be the nearest of any other.
                self._drop(fast, after - 1, SURPLUS)
                after = 1
            patient = not ended and slow.newest - stamp <= self.config.patience_s
            if patient and not self._nearest_known(fast, stamp):
                break
            chosen = self._choose(
                slow, fast, after, patient and fast.newest - stamp <= self.config.patience_s
            )
            if chosen is None:
                break
            if chosen < 0:
                self._drop(slow, 1, NO_PARTNER)
                continue
            self._drop(fast, chosen, SURPLUS)
            pairs.append(self._pair(self._ir.frames[0], self._vi.frames[0]))
            self._pass(slow, 1)
            self._pass(fast, 1)
        return pairs

    def _nearest_known(self, fast: _Queue, stamp: float) -> bool:
        """Whether no future frame can be nearer than those that are here."""
        if fast.newest >= stamp:
            return True
        intervals = fast.intervals
        return bool(fast.frames and intervals) and stamp - fast.newest <= intervals[0] / 2

    def _choose(self, slow: _Queue, fast: _Queue, after: int, patient: bool) -> int | None:
        """Index in `fast` of the partner of the first frame in `slow`; -1 if it has none, None if undecided.

        A frame that is clearly nearer to the next frame in `slow` is left to that one. Otherwise all pairs after a
        lost frame would be one frame apart.
        """
        stamp, margin = slow.frames[0].stamp, slow.period / 4
        near = sorted(
            (abs(fast.frames[i].stamp - stamp), i) for i in (after - 1, after) if 0 <= i < len(fast.frames)
        )
        for distance, index in near:
            if distance > self.config.max_skew_s:
                break
            found = fast.frames[index].stamp
            if found > stamp and slow.period:
                known = len(slow.frames) > 1
                following = slow.frames[1].stamp if known else stamp + slow.period
                if abs(found - following) + margin < distance:
                    if not known and patient:
                        return None
                    if known:
                        continue
            return index
        return -1

    # hold

    def _hold(self, ended: bool) -> list[FramePair]:
        pairs = []
        while self._vi.frames:
            visible = self._vi.frames[0]
            before = bisect.bisect_right(self._ir.frames, visible.stamp, key=lambda w: w.stamp)
            self._drop(self._ir, before - 1, SURPLUS)
            if not (ended or self._hold_known(visible.stamp)):
                break
            infrared = self._held_at(visible.stamp)
            if infrared is None or visible.stamp - infrared.stamp > self.config.max_age_s:
                pairs.append(self._alone(self._vi, visible))
            else:
                pairs.append(self._pair(infrared, visible))
            self._pass(self._vi, 1)
        return pairs

    def _hold_known(self, stamp: float) -> bool:
        """Whether the infrared frame of this time has arrived: a later one has, or the next one is not due yet."""
        newest, period = self._ir.newest, self._ir.period
        return (
            newest >= stamp
            or (period > 0 and self._simultaneous_until(stamp) < newest + 0.75 * period)
            or self._vi.newest - stamp > self.config.patience_s
        )

    def _simultaneous_until(self, stamp: float) -> float:
        """Latest stamp of a simultaneous frame: jitter may be half a visible frame."""
        return stamp + self._vi.period / 2

    def _held_at(self, stamp: float) -> _Waiting | None:
        """The simultaneous infrared frame, or the latest before it."""
        until = self._simultaneous_until(stamp)
        near = [w for w in self._ir.frames[:2] if w.stamp <= until]
        return min(near, key=lambda w: abs(w.stamp - stamp)) if near else None

    # bookkeeping

    def _pair(self, ir: _Waiting, vi: _Waiting) -> FramePair:
        own = {HELD} if ir.used else set()
        ir.used = vi.used = True
        flags = ir.frame.flags | vi.frame.flags | own | self._take_jump()
        return FramePair(ir.frame, vi.frame, ir.stamp - vi.stamp, vi.stamp, flags)

    def _alone(self, queue: _Queue, waiting: _Waiting) -> FramePair:
        waiting.used = True
        flags = waiting.frame.flags | {VI_LOST if queue.side == "ir" else IR_LOST} | self._take_jump()
        ir, vi = (waiting.frame, None) if queue.side == "ir" else (None, waiting.frame)
        return FramePair(ir, vi, 0.0, waiting.stamp, flags)

    def _take_jump(self) -> set[str]:
        jumped, self._jumped = self._jumped, False
        return {CLOCK_JUMP} if jumped else set()

    def _drop(self, queue: _Queue, count: int, reason: str) -> None:
        """Remove the oldest `count` and count those that were in no pair."""
        for waiting in queue.frames[: max(count, 0)]:
            if not waiting.used:
                self.dropped[queue.side, reason] += 1
        self._pass(queue, count)

    def _pass(self, queue: _Queue, count: int) -> None:
        """Remove the oldest `count`: frames up to their stamps come too late from now on."""
        if count > 0 and queue.frames:
            queue.passed = max(queue.passed, queue.frames[min(count, len(queue.frames)) - 1].stamp)
            del queue.frames[:count]
