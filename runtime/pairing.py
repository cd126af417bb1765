"""Two streams → pairs, by their stamps alone: no threads, no clock, bounded memory.

    pairer = Pairer(PairingConfig(mode="hold", max_age_s=0.25))
    for side, frame in arriving:            # "ir" or "vi", in whatever order they come
        for pair in pairer.push(side, frame):
            ...
    rest = pairer.flush()                   # end of both streams

`nearest` uses each frame once and is paced by the slower camera; `hold` is paced by the visible camera and
shows an infrared frame again until it is too old. Both sides' stamps must be on one clock, up to the fixed
offsets of the configuration. Of files, nothing may be given up for want of patience: `config.offline()`, and
`wants` says from which side to read next.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, get_args

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame

Side = Literal["ir", "vi"]
SIDES: tuple[Side, Side] = ("ir", "vi")
Mode = Literal["nearest", "hold"]
MODES: tuple[Mode, ...] = get_args(Mode)

IR_LOST, VI_LOST, HELD, CLOCK_JUMP = "ir-lost", "vi-lost", "ir-held", "clock-jump"
"""Flags of a pair: one side is missing; the infrared frame was in a pair before; the first pair after a camera's
clock jumped. The flags of the two frames join them."""

SURPLUS, NO_PARTNER, LATE, DUPLICATE, OVERFLOW, JUMPED, NO_STAMP = (
    "surplus",
    "no-partner",
    "late",
    "duplicate",
    "overflow",
    "clock-jump",
    "no-stamp",
)
"""Why a frame was dropped: the other camera is slower; nothing near enough on the other side; older than what
was paired already; its stamp was there already; too many were waiting; its clock jumped; NaN or infinite."""

_REMEMBERED, _SURE = 9, 4
"""Stamps a camera's period is taken from; how many intervals it takes to call infrared the faster one."""
_DISAGREE = 8
"""Frames from each side, turn about, whose stamps lie too far apart before the clocks are set anew."""


@dataclass(frozen=True, slots=True)
class PairingConfig:
    """Raises InputError for an unknown mode or a value out of range."""

    mode: Mode = "nearest"
    """"nearest" or "hold"."""
    ir_offset_s: float = 0.0
    vi_offset_s: float = 0.0
    """Seconds by which a camera's stamps are ahead of the moment of exposure: taken off them."""
    max_skew_s: float = 0.1
    """nearest: no pair's frames lie farther apart."""
    max_age_s: float = 0.25
    """hold: the oldest infrared frame, counted from the visible one, that is still shown."""
    patience_s: float = 0.1
    """How far a stream may run on, by its stamps, before one of its frames stops waiting for the other side."""
    lost_after_s: float = 1.0
    """After so long without a frame a side counts as lost, and the other goes out alone."""
    jump_s: float = 1.0
    """Stamps of the two sides farther apart than this, again and again, or one that falls by more: a clock has
    jumped."""
    capacity: int = 16
    """Frames a side may have waiting; the oldest are dropped."""

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
        """The same for files: however far one is read ahead, nothing is lost, late or a jump."""
        return replace(self, patience_s=math.inf, lost_after_s=math.inf, jump_s=math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class FramePair:
    """What goes on to be fused. At least one side is there."""

    ir: Frame | None
    vi: Frame | None
    skew_s: float
    """Infrared minus visible stamp, offsets taken off; 0 where a side is missing."""
    stamp: float
    """The visible frame's stamp, or the infrared's where it is alone; offset taken off."""
    flags: frozenset[str] = frozenset()
    """Of the pair and of both frames."""


@dataclass(slots=True)
class PairingStats:
    """Counts since the start."""

    pushed: Counter[Side] = field(default_factory=Counter)
    pairs: int = 0
    """With both sides."""
    alone: Counter[Side] = field(default_factory=Counter)
    """Sent on without the other side, by the side that was there."""
    held: int = 0
    """Pairs whose infrared frame had been in one before."""
    dropped: Counter[tuple[Side, str]] = field(default_factory=Counter)
    """By side and reason. Every pushed frame is waiting, dropped, or in a pair."""
    clock_jumps: int = 0


@dataclass(slots=True, eq=False)
class _Waiting:
    stamp: float
    frame: Frame
    used: bool = False


class _Queue:
    """The frames of one side that wait, in order of their corrected stamps."""

    def __init__(self, side: Side, offset: float) -> None:
        self.side, self.offset = side, offset
        self.frames: list[_Waiting] = []
        self.newest = -math.inf
        """Latest stamp pushed, whether or not the frame is still here."""
        self.passed = -math.inf
        """What is not later than this comes too late."""
        self.silence = 0.0
        """Seconds the other side has run on since the last frame of this one."""
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def intervals(self) -> list[float]:
        """Seconds between the latest stamps, sorted."""
        stamps = sorted(self._recent)
        return sorted(b - a for a, b in itertools.pairwise(stamps))

    @property
    def period(self) -> float:
        """Median seconds between frames, which drops hardly move; 0 while unknown."""
        intervals = self.intervals
        return median(intervals) if intervals else 0.0

    def add(self, waiting: _Waiting) -> None:
        bisect.insort(self.frames, waiting, key=lambda w: w.stamp)
        self.newest = max(self.newest, waiting.stamp)
        self._recent.append(waiting.stamp)

    def clear(self) -> list[_Waiting]:
        gone, self.frames = self.frames, []
        self.newest = self.passed = -math.inf
        self._recent.clear()
        return gone


class Pairer:
    """See the module. Not for several threads at once.

    Args:
        config: policy and limits.
    """

    def __init__(self, config: PairingConfig | None = None) -> None:
        self.config = config or PairingConfig()
        self.stats = PairingStats()
        self._ir = _Queue("ir", self.config.ir_offset_s)
        self._vi = _Queue("vi", self.config.vi_offset_s)
        self._lost: set[Side] = set()
        self._gaps: list[float] = []
        """Infrared minus visible at each change of turns, while too far apart."""
        self._last_side: Side | None = None
        self._jumped = False

    def push(self, side: Side, frame: Frame) -> list[FramePair]:
        """Take a frame as it arrives.

        Args:
            side: "ir" or "vi".
            frame: its `timestamp` is used, nothing else.

        Returns:
            The pairs that this frame decides, oldest first; often none, seldom more than one.
        """
        here, there = (self._ir, self._vi) if side == "ir" else (self._vi, self._ir)
        self.stats.pushed[side] += 1
        stamp = frame.timestamp - here.offset
        if not math.isfinite(stamp):
            self.stats.dropped[side, NO_STAMP] += 1
            return []
        self._lost.discard(side)
        self._watch_clocks(here, there, stamp)
        stamp = frame.timestamp - here.offset  # the clocks may just have been set
        self._count_silence(here, there, stamp)
        if stamp == here.newest or any(w.stamp == stamp for w in here.frames):
            self.stats.dropped[side, DUPLICATE] += 1
            return []
        if stamp <= here.passed:
            self.stats.dropped[side, LATE] += 1
            return []
        here.add(_Waiting(stamp, frame))
        pairs = self._decide(ended=False)
        while len(here.frames) > self.config.capacity:
            self._drop(here, 1, OVERFLOW)
        return pairs

    def flush(self) -> list[FramePair]:
        """Both streams have ended: the pairs that waited for better partners. The rest is dropped."""
        pairs = self._decide(ended=True)
        for queue in (self._ir, self._vi):
            self._drop(queue, len(queue.frames), NO_PARTNER)
        return pairs

    def lost(self, side: Side) -> list[FramePair]:
        """A source has failed or ended: the other side goes out alone from now on, until `push` brings a frame.

        Returns:
            The other side's frames that were waiting.
        """
        pairs = self._decide(ended=True)
        self._lost.add(side)
        return pairs + self._decide(ended=False)

    def wants(self, side: Side) -> bool:
        """Whether a frame of this side would be kept without pushing an older one out. At least one side is
        wanted at any time."""
        return len((self._ir if side == "ir" else self._vi).frames) < self.config.capacity

    def is_lost(self, side: Side) -> bool:
        """Whether this side counts as lost now."""
        queue = self._ir if side == "ir" else self._vi
        return side in self._lost or queue.silence > self.config.lost_after_s

    def _count_silence(self, here: _Queue, there: _Queue, stamp: float) -> None:
        """One stamp that leaps forward must not make the other side look lost: a leap counts for half."""
        here.silence = 0.0
        if math.isfinite(here.newest):
            there.silence += min(max(stamp - here.newest, 0.0), self.config.lost_after_s / 2)

    def _watch_clocks(self, here: _Queue, there: _Queue, stamp: float) -> None:
        """Notice a stamp that falls, and stamps of both sides that lie apart for good."""
        limit = self.config.jump_s
        if stamp < here.newest - limit:
            self._jump((here,))
        if not math.isfinite(there.newest) or abs(stamp - there.newest) <= limit:
            self._gaps.clear()
        elif self._last_side != here.side:
            gap = stamp - there.newest
            self._gaps.append(gap if here.side == "ir" else -gap)
            if len(self._gaps) >= 2 * _DISAGREE:
                # Frames arrive when they are taken, more or less: the best that is left to go by.
                self._ir.offset += median(self._gaps)
                self._gaps.clear()
                self._jump((self._ir, self._vi))
        self._last_side = here.side

    def _jump(self, queues: tuple[_Queue, ...]) -> None:
        self._jumped = True
        self.stats.clock_jumps += 1
        for queue in queues:
            for waiting in queue.clear():
                if not waiting.used:
                    self.stats.dropped[queue.side, JUMPED] += 1

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
        # Cameras of the same rate never measure exactly the same: infrared paces them.
        sure = min(len(self._ir.intervals), len(self._vi.intervals)) >= _SURE
        visible_paces = sure and self._vi.period > 1.1 * self._ir.period
        slow, fast = (self._vi, self._ir) if visible_paces else (self._ir, self._vi)
        pairs = []
        # At the end, whoever has nobody left on the other side is not dropped here: it may go out alone.
        while slow.frames and (fast.frames or not ended):
            stamp = slow.frames[0].stamp
            after = bisect.bisect_right(fast.frames, stamp, key=lambda w: w.stamp)
            if after > 1:
                # Of those before, only the last can be anyone's nearest.
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
            pairs.append(self._pair(slow.frames[0], fast.frames[0], slow.side))
            self._pass(slow, 1)
            self._pass(fast, 1)
        return pairs

    def _nearest_known(self, fast: _Queue, stamp: float) -> bool:
        """Whether no frame still to come can be nearer than what is here."""
        if fast.newest >= stamp:
            return True
        intervals = fast.intervals
        return bool(fast.frames and intervals) and stamp - fast.newest <= intervals[0] / 2

    def _choose(self, slow: _Queue, fast: _Queue, after: int, patient: bool) -> int | None:
        """Index of the partner in `fast` of the first of `slow`; -1 if it has none, None if that is open yet.

        The nearest frame is left to the next of `slow` where it belongs clearly there: else, after one lost
        frame, all later pairs would be one frame apart.
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
            heat = self._shown_at(visible.stamp)
            if heat is None or visible.stamp - heat.stamp > self.config.max_age_s:
                pairs.append(self._alone(self._vi, visible))
            else:
                pairs.append(self._pair(heat, visible, "ir"))
            self._pass(self._vi, 1)
        return pairs

    def _hold_known(self, stamp: float) -> bool:
        """Whether the infrared frame of the moment is here: a later one is, or the next is not due yet."""
        newest, period = self._ir.newest, self._ir.period
        return (
            newest >= stamp
            or (period > 0 and self._same_moment(stamp) < newest + 0.75 * period)
            or self._vi.newest - stamp > self.config.patience_s
        )

    def _same_moment(self, stamp: float) -> float:
        """Frames of one moment differ by jitter: half a visible frame later is still the same moment."""
        return stamp + self._vi.period / 2

    def _shown_at(self, stamp: float) -> _Waiting | None:
        """The infrared frame of the moment, or the latest before it."""
        until = self._same_moment(stamp)
        near = [w for w in self._ir.frames[:2] if w.stamp <= until]
        return min(near, key=lambda w: abs(w.stamp - stamp)) if near else None

    # bookkeeping

    def _pair(self, first: _Waiting, second: _Waiting, side_of_first: Side) -> FramePair:
        ir, vi = (first, second) if side_of_first == "ir" else (second, first)
        own = {HELD} if ir.used else set()
        self.stats.held += ir.used
        self.stats.pairs += 1
        ir.used = vi.used = True
        flags = ir.frame.flags | vi.frame.flags | own | self._take_jump()
        return FramePair(ir.frame, vi.frame, ir.stamp - vi.stamp, vi.stamp, flags)

    def _alone(self, queue: _Queue, waiting: _Waiting) -> FramePair:
        self.stats.alone[queue.side] += 1
        waiting.used = True
        flags = waiting.frame.flags | {VI_LOST if queue.side == "ir" else IR_LOST} | self._take_jump()
        if queue.side == "ir":
            return FramePair(waiting.frame, None, 0.0, waiting.stamp, flags)
        return FramePair(None, waiting.frame, 0.0, waiting.stamp, flags)

    def _take_jump(self) -> set[str]:
        jumped, self._jumped = self._jumped, False
        return {CLOCK_JUMP} if jumped else set()

    def _drop(self, queue: _Queue, count: int, reason: str) -> None:
        """Let the oldest `count` go; frames that have been in a pair are not lost by it."""
        for waiting in queue.frames[: max(count, 0)]:
            if not waiting.used:
                self.stats.dropped[queue.side, reason] += 1
        self._pass(queue, count)

    def _pass(self, queue: _Queue, count: int) -> None:
        """Take the oldest `count` away: what is not later than they has had its time."""
        if count > 0 and queue.frames:
            queue.passed = max(queue.passed, queue.frames[min(count, len(queue.frames)) - 1].stamp)
            del queue.frames[:count]
