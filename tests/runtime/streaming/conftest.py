"""Simulated cameras with cheap pictures, a cheap fusion, and streams of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ufuser import Fuser
from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import Frame, FusedFrame
from ufuser.runtime.sources.playback import Faults, Player
from ufuser.runtime.sources.source import END, Reading, SourceContext, Status
from ufuser.runtime.sources.timing import Timing
from ufuser.runtime.streaming import Stream, StreamConfig
from ufuser.runtime.telemetry.events import Event

SIZE = (48, 64)
"""Height and width."""


class MeanEngine:
    """An `Engine` that fuses by the mean, in at least `seconds`."""

    name = "mean"
    metadata: Mapping[str, str] = {"shape_multiple": "8"}

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._buffers: tuple[np.ndarray, ...] = ()

    def bind(self, height: int, width: int) -> Any:
        if not self._buffers or self._buffers[0].shape != (height, width):
            self._buffers = tuple(np.zeros((height, width), np.float32) for _ in range(3))
        return self._buffers

    def run(self) -> None:
        ir, vi, fused = self._buffers
        np.copyto(fused, (ir + vi) / 2)
        time.sleep(self.seconds)


class CheapFeed:
    """Grey 120 with the index in the first pixels, so that frames can be told from each other."""

    def __init__(self, colour: bool, count: int | None, size_at: Callable[[int], tuple[int, int]]) -> None:
        self._colour, self._count, self._size_at = colour, count, size_at
        self.repeats = True
        self.closed = 0

    def picture(self, index: int) -> np.ndarray | None:
        if self._count is not None and index >= self._count:
            return None
        height, width = self._size_at(index)
        shape = (height, width, 3) if self._colour else (height, width)
        image = np.full(shape, 120 if self._colour else 60, np.uint8)
        image[0, :8] = index % 251  # pictures differ: equal ones are a flat-field correction
        return image

    def close(self) -> None:
        self.closed += 1


@dataclass
class Pair:
    """A `CameraPair` of played cameras."""

    clock: Clock
    live: bool = True
    fps: tuple[float, float] = (10.0, 10.0)
    count: int | None = None
    faults: dict[str, Faults] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Callable[[int], tuple[int, int]]] = field(default_factory=dict)
    opened: list[tuple[str, float, bool]] = field(default_factory=list)
    """Side, moment and success of every attempt."""
    feeds: dict[str, CheapFeed] = field(default_factory=dict)
    origin: float = 0.0

    def start(self) -> None:
        self.origin = self.clock.now()

    def name(self, side: str) -> str:
        return f"test://{side}"

    def open(self, side: str) -> Any:
        moment = self.clock.now() - self.origin
        self.opened.append((side, moment, False))
        feed = CheapFeed(side == "vi", self.count, self.sizes.get(side, lambda _: SIZE))
        self.feeds[side] = feed
        faults = self.faults.get(side, Faults())
        timing = Timing(self.fps[side == "vi"], side == "ir", **self.timing)
        context = SourceContext(self.clock, side, self.live, self.origin)
        camera: Any = Player(self.name(side), feed, timing, context, faults)
        if not self.live:
            camera = _AsFile(self.name(side), feed, timing, self.clock)
        self.opened[-1] = (side, moment, True)
        return camera


class _AsFile:
    """The same pictures as a file: as fast as they are read."""

    live, length, repeats = False, None, True

    def __init__(self, name: str, feed: CheapFeed, timing: Timing, clock: Clock) -> None:
        self.name, self._feed, self._timing, self._clock = name, feed, timing, clock
        self._index = 0

    def read(self, timeout: float) -> Reading:
        image, index = self._feed.picture(self._index), self._index
        self._index += 1
        if image is None:
            return END
        frame = Frame(image, self._timing.stamp(index), index, self.name, arrival=self._clock.now())
        return Reading(Status.FRAME, frame)

    def close(self) -> None:
        self._feed.close()


class Collect:
    """A sink that keeps what it gets."""

    def __init__(self, seconds: float = 0.0, every_frame: bool = True, name: str = "collect:") -> None:
        self.name, self.every_frame, self.in_main_thread = name, every_frame, False
        self.frames: list[FusedFrame] = []
        self.moments: list[float] = []
        self.closed = threading.Event()
        self._seconds = seconds

    def write(self, frame: FusedFrame) -> None:
        time.sleep(self._seconds)
        self.frames.append(frame)
        self.moments.append(time.monotonic())

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()


@dataclass
class Run:
    """A stream and its events."""

    stream: Stream
    cameras: Pair
    events: list[Event]

    @property
    def said(self) -> list[str]:
        """The events as lines."""
        return [str(event) for event in self.events]

    def until(self, done: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let it run until a condition holds; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.said
            self.stream.wait(0.01)

    @property
    def moment(self) -> float:
        """Seconds of the stream's clock since its cameras started."""
        return self.cameras.clock.now() - self.cameras.origin


StartStream = Callable[..., Run]


@pytest.fixture
def start_stream() -> Iterator[StartStream]:
    """Starts streams of cheap cameras; stops them at the end of the test."""
    with ExitStack() as stack:

        def start(
            sinks: Sequence[Any] = (),
            config: StreamConfig | None = None,
            fuse_seconds: float = 0.0,
            speed: float = 1.0,
            **cameras: Any,
        ) -> Run:
            pair, events = Pair(Clock(speed), **cameras), list[Event]()
            fuser = Fuser(MeanEngine(fuse_seconds))
            stream = Stream(pair, fuser, sinks, config, clock=pair.clock, on_event=events.append)
            return Run(stack.enter_context(stream), pair, events)

        yield start


@pytest.fixture
def collect() -> type[Collect]:
    """A sink that keeps what it gets."""
    return Collect
