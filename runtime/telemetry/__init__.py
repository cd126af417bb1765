"""Figures of runs: rates and percentiles, never an average that hides the slow frames.

`Durations` summarises a run that has ended; `Telemetry` measures a stream while it runs for weeks.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ufuser.runtime.clock import Clock
from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.frame import Frame
from ufuser.runtime.telemetry import hardware, sensors
from ufuser.runtime.telemetry.events import Event
from ufuser.runtime.telemetry.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Durations:
    """Summary of the time that frames took in one stage."""

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


_WINDOW = 10
"""Seconds over which a current rate is taken."""
_EVENTS = 64
"""Events kept, the latest."""
_MINUTE = 60.0
FROZEN = "frozen"


class Rate:
    """Frames per second: over the whole run, and lately. Not for several threads at once."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = math.nan
        """Moments of the first and the latest frame."""
        self._seconds: deque[list[int]] = deque(maxlen=_WINDOW + 1)
        """(whole second, frames in it)."""

    def add(self, now: float) -> None:
        """Count one frame."""
        self.count += 1
        self.last = now
        if self.count == 1:
            self.first = now
        if not self._seconds or self._seconds[-1][0] != int(now):
            self._seconds.append([int(now), 0])
        self._seconds[-1][1] += 1

    def overall(self) -> float:
        """The rate from the first frame to the latest; 0 before the second."""
        return (self.count - 1) / (self.last - self.first) if self.last > self.first else 0.0

    def lately(self, now: float) -> float:
        """The rate over the last ten seconds, or since the first frame if that is less."""
        if not self.count:
            return 0.0
        begin = max(now - _WINDOW, self.first)
        frames = sum(number for second, number in self._seconds if int(begin) < second or begin == self.first)
        # The second in which the window begins is left out: the rate is over whole seconds.
        span = now - (begin if begin == self.first else int(begin) + 1)
        return frames / span if span > 0 else 0.0


@dataclass(slots=True)
class _Side:
    """One camera."""

    uri: str
    rate: Rate = field(default_factory=Rate)
    state: str = "opening"
    """See `ufuser.runtime.streaming.states.CameraState`."""
    size: tuple[int, int] | None = None
    stalls: int = 0
    stalled_s: float = 0.0
    reconnects: int = 0
    arrival: float = math.nan
    """Of the latest frame."""
    ffc: int = 0
    ffc_s: float = 0.0
    toned: tuple[float, bool] = (math.nan, False)
    """Stamp of the latest frame that was tone-mapped, and whether it was frozen."""


class Telemetry:
    """Figures of a running stream, in bounded memory. Its methods may be called from any thread.

    Args:
        uris: of the two cameras, by side, credentials masked.
        clock: of the stream.
        stall_after: a gap of this many seconds or more between two frames of a camera counts as a stall.
    """

    def __init__(self, uris: Mapping[str, str], clock: Clock, stall_after: float = 1.0) -> None:
        self._clock, self._stall_after = clock, stall_after
        self._lock = threading.RLock()
        self._sides = {side: _Side(KNOWN.clean(uri)) for side, uri in uris.items()}
        self._drops: Counter[tuple[str, str]] = Counter()
        self._flags: Counter[str] = Counter()
        self._stages: dict[str, Histogram] = {}
        self._latency: dict[str, Histogram] = {}
        self._skew, self._skew_sum = Histogram(), 0.0
        self._fused, self._out = Rate(), Rate()
        self._failures: Counter[str] = Counter()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._event_count = 0
        self._fields: dict[str, Any] = {}
        self._began, self._began_at = clock.now(), time.time()
        self._memory: dict[str, int | None] = {"start": sensors.resident_bytes()}
        self._nvtx: Any = None
        with suppress(ImportError):
            self._nvtx = importlib.import_module("nvtx")

    # Called by the threads of the stream

    def arrived(self, side: str, frame: Frame) -> None:
        """A camera gave a frame; its `arrival` and the size of its image are used."""
        with self._lock:
            at = self._sides[side]
            gap = frame.arrival - at.arrival
            if gap >= self._stall_after:
                at.stalls += 1
                at.stalled_s += gap
            at.rate.add(frame.arrival)
            at.size = (frame.image.shape[1], frame.image.shape[0])
            at.arrival = frame.arrival

    def toned(self, frame: Frame) -> None:
        """An infrared frame was tone-mapped; "frozen" in its flags means a flat-field correction."""
        frozen = FROZEN in frame.flags
        with self._lock:
            at = self._sides["ir"]
            stamp, was_frozen = at.toned
            if frozen:
                at.ffc += not was_frozen
                if frame.timestamp > stamp:
                    at.ffc_s += min(frame.timestamp - stamp, self._stall_after)
            at.toned = (frame.timestamp, frozen)

    def state(self, side: str, state: str) -> None:
        """A camera's state has changed."""
        with self._lock:
            self._sides[side].state = state

    def reconnected(self, side: str) -> None:
        """A camera was opened again."""
        with self._lock:
            self._sides[side].reconnects += 1

    def failed(self, place: str) -> None:
        """A camera ("ir", "vi") or a sink has failed, or an attempt to recover it."""
        with self._lock:
            self._failures[KNOWN.clean_key(place)] += 1

    def drop(self, where: str, reason: str, frames: int = 1) -> None:
        """Frames were dropped: at "ir", "vi", "pairs" or a sink."""
        with self._lock:
            self._drops[KNOWN.clean_key(where), reason] += frames

    def set_drops(self, where: str, reason: str, total: int) -> None:
        """Set the number of dropped frames, for a caller that counts them itself."""
        with self._lock:
            self._drops[KNOWN.clean_key(where), reason] = total

    def paired(self, skew: float) -> None:
        """Two frames were paired: infrared minus visible stamp, seconds."""
        with self._lock:
            self._skew.add(abs(skew))
            self._skew_sum += skew

    def fused(self, flags: frozenset[str]) -> None:
        """A frame was fused, or passed on because its partner is lost."""
        with self._lock:
            self._fused.add(self._clock.now())
            self._flags.update(flags)
            if "minute" not in self._memory and self.seconds() >= _MINUTE:
                self._memory["minute"] = sensors.resident_bytes()

    def written(self, sink: str, latency: float | None) -> None:
        """A sink has written a frame, `latency` seconds after its capture; None for a repeated one."""
        with self._lock:
            self._out.add(self._clock.now())
            if latency is not None:
                self._latency.setdefault(KNOWN.clean_key(sink), Histogram()).add(latency)

    def event(self, event: Event) -> None:
        """Keep an event; the oldest are forgotten."""
        with self._lock:
            self._event_count += 1
            self._events.append(event)

    def set_field(self, name: str, value: Any) -> None:
        """Add a field to the report that does not change any more, such as the engine's name."""
        with self._lock:
            self._fields[name] = KNOWN.clean_all(value)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; with NVTX installed, also mark it as a range of that name."""
        if self._nvtx is not None:
            self._nvtx.push_range(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - began
            if self._nvtx is not None:
                self._nvtx.pop_range()
            with self._lock:
                self._stages.setdefault(KNOWN.clean_key(name), Histogram()).add(elapsed)

    # Figures

    def seconds(self) -> float:
        """Seconds since the start, on the stream's clock."""
        return self._clock.now() - self._began

    @property
    def fused_frames(self) -> int:
        """Number of fused frames."""
        return self._fused.count

    def healthy(self, within: float = 5.0) -> bool:
        """Whether a frame with a new picture was fused in the last `within` seconds."""
        with self._lock:
            return self._clock.now() - self._fused.last <= within

    def histograms(self) -> tuple[dict[str, Histogram], dict[str, Histogram], Histogram]:
        """Histograms by stage, by sink, and of the skew. Not copied: read them under `frozen`."""
        return self._stages, self._latency, self._skew

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A context in which no figure changes."""
        with self._lock:
            yield

    def report(self) -> dict[str, Any]:
        """All figures, ready for JSON. Milliseconds where a name ends in `_ms`."""
        # Reading the sensors takes milliseconds: not under the lock.
        temperatures, powers, resident = sensors.temperatures(), sensors.powers(), sensors.resident_bytes()
        machine = hardware.hardware()
        with self._lock:
            now = self._clock.now()
            seconds = now - self._began
            self._memory["end"] = resident
            first = next(iter(self._latency.values()), Histogram())
            return {
                "schema": 2,
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._began_at)),
                "seconds": round(seconds, 3),
                "speed": self._clock.speed,
                "healthy": self.healthy(),
                **self._fields,
                "cameras": {side: self._camera(at, now) for side, at in self._sides.items()},
                "fused": _rates(self._fused, now),
                "flags": dict(self._flags),
                "skew_ms": {
                    "mean": round(self._skew_sum / max(self._skew.count, 1) * 1000, 3),
                    **self._skew.summary_ms(),
                },
                "capture_to_output_ms": first.summary_ms(),
                "sinks_ms": {sink: histogram.summary_ms() for sink, histogram in self._latency.items()},
                "stages_ms": {name: histogram.summary_ms() for name, histogram in self._stages.items()},
                "drops": {f"{where}: {why}": n for (where, why), n in sorted(self._drops.items()) if n},
                "temperatures_c": temperatures,
                "power_w": powers,
                "hardware": machine,
                "memory_bytes": dict(self._memory),
                "failures": dict(self._failures),
                "events": [{**asdict(event), "time": round(event.time, 3)} for event in self._events],
                "event_count": self._event_count,
            }

    def drops(self) -> dict[tuple[str, str], int]:
        """Frames dropped by place and reason."""
        with self._lock:
            return dict(self._drops)

    @staticmethod
    def _camera(at: _Side, now: float) -> dict[str, Any]:
        return {
            "uri": at.uri,
            "state": at.state,
            "size": at.size,
            **_rates(at.rate, now),
            "stalls": at.stalls,
            "stalled_seconds": round(at.stalled_s, 3),
            "reconnects": at.reconnects,
            "ffc": at.ffc,
            "ffc_seconds": round(at.ffc_s, 3),
        }


def _rates(rate: Rate, now: float) -> dict[str, Any]:
    return {"frames": rate.count, "fps": round(rate.overall(), 3), "fps_lately": round(rate.lately(now), 3)}
