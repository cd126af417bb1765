"""The thread of a camera: reads it, watches it, and opens it again after it has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.pairing import Side
from ufuser.runtime.sources.source import Reading, Source, Status, failed
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.queues import Closed, MultiQueue
from ufuser.runtime.streaming.states import CameraLifecycle, CameraState
from ufuser.runtime.streaming.supervisor import BackOff, Supervisor, describe

_POLL = 0.1
"""Real seconds a read waits at most, so that stopping is quick."""
CAMERA_NAMES: dict[Side, str] = {"ir": "infrared camera", "vi": "visible camera"}


@dataclass(frozen=True, slots=True)
class Patience:
    """Time-outs and back-off of a camera worker, seconds."""

    silent: float = 5.0
    """A camera without a frame for this long is closed and opened again."""
    back_off: BackOff = field(default_factory=BackOff)


class CameraWorker:
    """Runs in its own thread until the source ends or the stream stops. Only this thread closes the camera.

    Args:
        side: which camera.
        camera: open.
        reopen: opens the camera again; may raise anything.
        inbox: where frames go, followed by None when the source has ended.
        lifecycle: of this camera.
        context: of the stream.
        patience: time-outs and back-off.
    """

    def __init__(
        self,
        side: Side,
        camera: Source,
        reopen: Callable[[], Source],
        inbox: MultiQueue[Frame | None],
        lifecycle: CameraLifecycle,
        context: StreamContext,
        patience: Patience,
    ) -> None:
        self._side, self._camera, self._reopen, self._inbox = side, camera, reopen, inbox
        self._is_open = True
        self._lifecycle, self._context, self._patience = lifecycle, context, patience
        self._supervisor = Supervisor(side, CAMERA_NAMES[side], context, patience.back_off)
        self._sequence: int | None = None
        self._latest_arrival = context.clock.now()

    def run(self) -> None:
        """Read until the end. Raises InputError for a file that cannot be read any further."""
        try:
            while not self._context.stop.is_set():
                if not self._is_open:
                    self._open_again()
                elif self._read_once():
                    return
        except Closed:
            pass
        finally:
            self._close()

    def _read_once(self) -> bool:
        """Handle one reading; whether it was the last."""
        reading = self._read()
        silent_for = self._context.clock.now() - self._latest_arrival
        if reading.frame is not None:
            self._take(reading.frame, reading.late)
        elif reading.status is Status.END:
            self._lifecycle.move(CameraState.ENDED)
            if reading.detail:
                self._context.telemetry.failed(self._side)
                self._context.event("error", CAMERA_NAMES[self._side], reading.detail)
            self._inbox.put(self._side, None)
            return True
        elif reading.status is Status.ERROR:
            self._give_up(CameraState.FAILED, reading.detail)
        elif silent_for > self._patience.silent:
            why = f"{self._camera.name}: no frame for {self._patience.silent:g} s"
            self._give_up(CameraState.LOST, why)
        return False

    def _read(self) -> Reading:
        try:
            return self._camera.read(self._context.clock.speed * _POLL)
        except Exception as e:
            if self._camera.live:
                return failed(describe(e))
            self._lifecycle.move(CameraState.FAILED)
            if isinstance(e, InputError):
                raise
            raise InputError(f"{self._camera.name} cannot be read any further: {describe(e)}") from e

    def _take(self, frame: Frame, late: int) -> None:
        self._latest_arrival = frame.arrival
        self._lifecycle.move(CameraState.LIVE)
        self._supervisor.worked()
        telemetry = self._context.telemetry
        if self._sequence is not None:
            missed = frame.sequence - self._sequence - 1 - late
            if missed > 0:
                telemetry.drop(self._side, "never-came", missed)
        if late:
            telemetry.drop(self._side, "read-too-late", late)
        self._sequence = frame.sequence
        telemetry.arrived(self._side, frame)
        if self._inbox.put(self._side, frame) is not None:
            telemetry.drop(self._side, "queue-full")

    def _give_up(self, state: CameraState, why: str) -> None:
        self._lifecycle.move(state)
        # Reported first: closing may hang.
        self._supervisor.failed(why)
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self._camera.close()
            except Exception as e:
                self._context.event(
                    "warning", CAMERA_NAMES[self._side], f"could not be closed: {describe(e)}"
                )

    def _open_again(self) -> None:
        clock = self._context.clock
        if clock.wait(self._context.stop, self._supervisor.retry_at - clock.now()):
            return
        self._lifecycle.move(CameraState.OPENING)
        try:
            self._camera = self._reopen()
        except Exception as e:
            self._lifecycle.move(CameraState.FAILED)
            self._supervisor.failed(e)
            return
        self._is_open = True
        self._context.telemetry.reconnected(self._side)
        self._latest_arrival, self._sequence = clock.now(), None
