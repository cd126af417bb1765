"""The states of a camera and the legal transitions between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from enum import Enum


class CameraState(Enum):
    """Where a camera of a running stream stands."""

    OPENING = "opening"
    """It is being opened, for the first time or again, or has not given a frame since."""
    LIVE = "live"
    """Frames arrive."""
    SILENT = "silent"
    """It is open, but no frame has arrived for `lost_after` seconds: the other camera goes out alone."""
    LOST = "lost"
    """It was silent for too long and has been closed; it will be opened again."""
    FAILED = "failed"
    """It reported or raised an error and has been closed; it will be opened again, unless it is a file."""
    ENDED = "ended"
    """The source has no more frames."""


_S = CameraState
TRANSITIONS: Mapping[CameraState, frozenset[CameraState]] = {
    _S.OPENING: frozenset({_S.LIVE, _S.LOST, _S.FAILED, _S.ENDED}),
    _S.LIVE: frozenset({_S.SILENT, _S.LOST, _S.FAILED, _S.ENDED}),
    _S.SILENT: frozenset({_S.LIVE, _S.LOST, _S.FAILED, _S.ENDED}),
    _S.LOST: frozenset({_S.OPENING}),
    _S.FAILED: frozenset({_S.OPENING}),
    _S.ENDED: frozenset(),
}


class CameraLifecycle:
    """The state of one camera. Its methods may be called from any thread.

    Args:
        report: takes each new state, the first included.
    """

    def __init__(self, report: Callable[[CameraState], None]) -> None:
        self._lock, self._report = threading.Lock(), report
        self._state = CameraState.OPENING
        report(self._state)

    @property
    def state(self) -> CameraState:
        """The current state."""
        return self._state

    def move(self, to: CameraState, only_from: CameraState | None = None) -> bool:
        """Go to another state.

        Args:
            to: the new state. Nothing happens if it is the current one.
            only_from: do nothing in any other state than this.

        Returns:
            Whether the state has changed.

        Raises:
            RuntimeError: the transition is not in `TRANSITIONS`.
        """
        with self._lock:
            if to is self._state or only_from not in (None, self._state):
                return False
            if to not in TRANSITIONS[self._state]:
                raise RuntimeError(f"a camera cannot go from {self._state.value} to {to.value}")
            self._state = to
            self._report(to)
            return True
