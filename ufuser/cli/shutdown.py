"""The end of `ufuser stream`: within two seconds of a signal, even if a thread hangs."""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import NoReturn

UNFINISHED = 1
"""Exit code when something was left unfinished."""
_LIMIT, _LAST = 1.8, 0.1
"""Seconds from the first signal to the end of the process, and how long its last message may take."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Shutdown:
    """A context manager for the main thread that ends the process in time after SIGINT, SIGTERM or SIGHUP.

    Until `graceful` is called, a signal raises KeyboardInterrupt or SystemExit. From then on it sets `requested`.
    In both cases the process has 1.8 seconds from the first signal to leave the context. Then, or at a further
    SIGINT, it exits with code 1 and names what was left unfinished.

    Python's own handlers run in the main thread only, which may itself hang, in a driver or a GPU call. So a
    thread of its own learns of signals through `signal.set_wakeup_fd`, and keeps the time.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._graceful = False
        self._unfinished: Callable[[], Sequence[str]] = lambda: ()
        self._stack = ExitStack()

    def graceful(self, unfinished: Callable[[], Sequence[str]]) -> None:
        """From now on a signal only sets `requested`; `unfinished` names what is still running."""
        self._unfinished, self._graceful = unfinished, True

    def __enter__(self) -> Shutdown:
        if threading.current_thread() is not threading.main_thread():
            return self
        receiver, sender = socket.socketpair()
        self._stack.callback(receiver.close)
        sender.setblocking(False)
        watch = threading.Thread(target=self._watch, args=(receiver,), name="ufuser shutdown", daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(sender.close)  # wakes the thread, which is not needed any more
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, before)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._stack.callback(signal.signal, number, signal.signal(number, self._handle))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._graceful:
            self.requested.set()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    def _watch(self, receiver: socket.socket) -> None:
        if not receiver.recv(1):
            return
        deadline = time.monotonic() + _LIMIT
        with open(os.devnull, "w") as nowhere:
            # Should a thread hang in native code that holds the interpreter's lock, this still ends the process.
            faulthandler.dump_traceback_later(_LIMIT + 2 * _LAST, exit=True, file=nowhere)
            try:
                while (left := deadline - time.monotonic()) > 0:
                    receiver.settimeout(left)
                    with suppress(TimeoutError):
                        number = receiver.recv(1)
                        if not number:
                            return
                        if number[0] == signal.SIGINT:
                            break
                self._end()
            finally:
                faulthandler.cancel_dump_traceback_later()

    def _end(self) -> NoReturn:
        parts = ", ".join(self._unfinished()) or "the main thread"
        text = f"\nerror: ended by force, left unfinished: {parts}\n"
        # Standard error may be a pipe that nobody reads.
        writer = threading.Thread(target=os.write, args=(2, text.encode()), daemon=True)
        writer.start()
        writer.join(_LAST)
        os._exit(UNFINISHED)


def exit_without_teardown(code: int) -> None:
    """Let the process end at its exit without freeing libraries that a hanging thread still runs in."""

    def leave() -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(leave)
