"""Ctrl-C, SIGTERM and SIGHUP in training: the step is finished and the state saved before the process ends."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stop:
    """A context manager for the main thread: the first signal only sets `requested`, a second one acts at once."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._stack = ExitStack()

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._stack.callback(signal.signal, number, signal.signal(number, self._handle))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def leave(self) -> NoReturn:
        """End as the signal would have: KeyboardInterrupt, or SystemExit with 128 and its number."""
        number = self._number
        if number is None or number == signal.SIGINT:  # None: another process of the training was told
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._number = number
            self.leave()
        self._number = number
