"""Two cameras → a fused stream: the threads and queues between the parts.

    ir camera ─┐                                                  ┌─ sink
               ├─ inbox ─ thermal, pair, align ─ queue ─ fuse ────┤
    vi camera ─┘                                                  └─ sink

One thread per camera, one that prepares, one that fuses and one per sink. Between live cameras and the fusion,
a full queue drops its oldest frame; files wait.

Who closes what: a camera and a sink are closed by their own thread and by no other. A thread that hangs is left
alone and reported: closing a file that another thread writes crashes the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import Frame
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.pairing import SIDES, PairingConfig, Side
from ufuser.runtime.sinks.sink import Sink
from ufuser.runtime.sources.source import Source
from ufuser.runtime.streaming.camera_worker import CAMERA_NAMES, CameraWorker, Patience
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.fitting import Fitting
from ufuser.runtime.streaming.fusion import FusesPairs, Fusion
from ufuser.runtime.streaming.prepare import Aligner, Preparation, PrepareConfig, Prepared
from ufuser.runtime.streaming.queues import MultiQueue, Queue
from ufuser.runtime.streaming.sink_worker import SinkWorker
from ufuser.runtime.streaming.states import CameraLifecycle
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.telemetry.events import OnEvent
from ufuser.runtime.thermal import ThermalConfig, ThermalPipeline

_INBOX, _READY = 3, 1
"""Frames that wait of each camera, and pairs that wait for the fusion."""
_GRACE, _CLOSING = 0.9, 0.5
"""Real seconds that `stop` waits for the picture being fused and for frames that wait for a sink; and, after that,
for sinks to finish their files."""
_SHOW = 0.02
"""Real seconds a window may keep the main thread waiting."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a stream is run. Seconds are of the stream's clock."""

    pairing: PairingConfig = field(default_factory=PairingConfig)
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    patience: Patience = field(default_factory=Patience)
    grey: bool = False
    """Fuse luma alone: the pictures are H×W."""
    marks: bool = False
    """Write into the picture that a camera is lost or the picture is old, besides setting flags."""
    scale: bool = False
    """Scale visible pictures to a size that the engine takes, instead of ending with an error."""
    duration: float | None = None
    """End after so many seconds; None runs until the sources end or the stream is stopped."""


class CameraPair(Protocol):
    """Opens the two cameras; `ufuser.runtime.sources.opening.Cameras` does it by URIs."""

    @property
    def live(self) -> bool:
        """Whether they come at their own pace."""

    def start(self) -> None:
        """The stream begins now."""

    def name(self, side: Side) -> str:
        """The URI of a camera, credentials masked."""

    def open(self, side: Side) -> Source:
        """Open a camera, for the first time or again. Raises InputError."""


class Stream:
    """A running stream. A context manager: entering starts it, leaving stops it.

    Args:
        cameras: the two cameras, opened on starting.
        fuser: used in one thread.
        sinks: open; the stream closes them.
        config: see there.
        aligner: maps infrared onto the visible camera's pixels; None scales it to the same size.
        clock: of all times.
        on_event: takes an event, credentials masked. Called from several threads.
    """

    def __init__(
        self,
        cameras: CameraPair,
        fuser: FusesPairs,
        sinks: Sequence[Sink] = (),
        config: StreamConfig | None = None,
        aligner: Aligner | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.config, self.clock = config or StreamConfig(), clock or Clock()
        self._cameras, self._fuser, self._aligner = cameras, fuser, aligner
        self.live = cameras.live
        """Whether a source is a camera, not a file."""
        self.telemetry = Telemetry({side: cameras.name(side) for side in SIDES}, self.clock)
        self.context = StreamContext(self.clock, self.telemetry, on_event)
        self.sink_workers = [SinkWorker(sink, cameras.live, self.context) for sink in sinks]
        self._fused = threading.Event()
        """No more fused frames come."""
        self._inbox: MultiQueue[Frame | None] = MultiQueue(SIDES, _INBOX, drop_oldest=cameras.live)
        self._ready: Queue[Prepared] = Queue(_READY, drop_oldest=cameras.live)
        self._threads: dict[str, threading.Thread] = {}
        """By the part they run."""
        self._sink_threads: dict[SinkWorker, threading.Thread] = {}
        self._stopped = False
        self.error: BaseException | None = None
        """What ended the stream, if it was a failure."""
        self.unfinished: tuple[str, ...] = ()
        """After `stop`: the parts whose thread still hangs."""

    def __enter__(self) -> Stream:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Open both cameras and start the threads. Raises InputError if a camera cannot be opened."""
        self._cameras.start()
        opened: dict[Side, Source] = {}
        try:
            for side in SIDES:
                opened[side] = self._cameras.open(side)
        except BaseException:
            for camera in opened.values():
                camera.close()
            self.stop()
            raise
        lifecycles = {side: self._lifecycle(side) for side in SIDES}
        for side in SIDES:
            worker = CameraWorker(
                side,
                opened[side],
                lambda side=side: self._cameras.open(side),  # type: ignore[misc]
                self._inbox,
                lifecycles[side],
                self.context,
                self.config.patience,
            )
            self._threads[CAMERA_NAMES[side]] = self._spawn(f"{side} camera", worker.run)
        preparation = Preparation(
            self._inbox,
            self._ready,
            PrepareConfig(self._cameras.live, self.config.pairing, self.config.grey, self.config.duration),
            ThermalPipeline(self.config.thermal, repeats=opened["ir"].repeats),
            Fitting(
                self._fuser.profiles if isinstance(self._fuser, Fuser) else (),
                self.config.scale,
                self.context,
            ),
            self._aligner,
            lifecycles,
            self.context,
        )
        self._threads["preparation"] = self._spawn("prepare", preparation.run)
        self._threads["fusion"] = self._spawn("fuse", self._fuse)
        for sink_worker in self.sink_workers:
            if not sink_worker.sink.in_main_thread:
                self._sink_threads[sink_worker] = self._spawn(
                    f"sink {sink_worker.sink.name}", sink_worker.run
                )

    def wait(self, timeout: float) -> bool:
        """Wait until the stream has ended by itself; in the main thread, also show windows.

        Args:
            timeout: real seconds.

        Returns:
            Whether it has ended, sinks included.

        Raises:
            What a thread died of, such as InputError for a file that cannot be read any further.
        """
        windows = [worker for worker in self.sink_workers if worker.sink.in_main_thread and not worker.done]
        for worker in windows:
            worker.step(min(timeout, _SHOW))
        if not windows:
            self._fused.wait(timeout)
        if any(worker.end_wanted for worker in self.sink_workers):
            self._stop_sources()
        if self.error is not None:
            raise self.error
        if self.sink_workers and all(worker.done and worker.error for worker in self.sink_workers):
            self._stop_sources()
        if self._fused.is_set():
            _join(self._sink_threads.values(), time.monotonic() + timeout)
        return self._fused.is_set() and not any(t.is_alive() for t in self._sink_threads.values())

    def stop(self) -> None:
        """End the stream within two seconds, whatever hangs; a second call does nothing.

        The picture being fused is finished, frames that wait for a sink are written if time allows, and every sink
        is closed by its own thread. A thread that hangs meanwhile is left alone: `unfinished` names its part, an
        event says so, and the thread goes on to close its sink if it ever can.
        """
        if self._stopped:
            return
        self._stopped = True
        self._stop_sources()
        deadline = time.monotonic() + _GRACE
        _join((*self._threads.values(), *self._sink_threads.values()), deadline)
        for worker in self.sink_workers:
            worker.end(discard=True)
        _join(self._sink_threads.values(), deadline + _CLOSING)
        for worker in self.sink_workers:
            if worker not in self._sink_threads:  # of this thread, or never started
                worker.finish()
        self.unfinished = self.busy()
        for part in self.unfinished:
            self.context.event("error", part, "left unfinished: it does not answer")

    def busy(self) -> tuple[str, ...]:
        """The parts whose threads run."""
        parts = [*self._threads.items()]
        parts += [(worker.sink.name, thread) for worker, thread in self._sink_threads.items()]
        return tuple(part for part, thread in parts if thread.is_alive())

    def _stop_sources(self) -> None:
        self.context.stop.set()
        self._inbox.close(discard=True)
        self._ready.close(discard=True)

    def _lifecycle(self, side: Side) -> CameraLifecycle:
        return CameraLifecycle(lambda state: self.telemetry.state(side, state.value))

    # Threads

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as e:
                self._fail(e)

        thread = threading.Thread(target=guarded, name=f"ufuser {name}", daemon=True)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self._stop_sources()

    def _fuse(self) -> None:
        fusion = Fusion(
            self._ready,
            self._fuser,
            self.sink_workers,
            self.config.grey,
            self.config.marks,
            self.context,
        )
        try:
            fusion.run()
        finally:
            self._stop_sources()
            self._fused.set()


def _join(threads: Iterable[threading.Thread], deadline: float) -> None:
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
