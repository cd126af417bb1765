"""Processes: workers that end with the one that started them, and credentials hidden from the process list."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

from ufuser.runtime.credentials import KNOWN

_PR_SET_PDEATHSIG = 1
_POLL = 0.5
"""Seconds between two looks at the parent, where the system does not tell of its end."""
_ARG_START, _ARG_END = 45, 46
"""Fields of /proc/self/stat behind the name of the program: the memory that holds the command line."""


def become_worker() -> None:
    """Make this process a worker: it ends with its parent, however that ends, and leaves Ctrl-C to the parent.

    Call it first in the worker, in its main thread. The parent must start the worker from a thread that lives as
    long as the worker is needed: Linux ends it with that thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the whole group
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent or parent == 1:  # it had ended before
            os._exit(1)
    elif os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), name="ufuser parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)


def hide_credentials() -> None:
    """Remove known credentials from the command line that the process list shows. Does nothing but on Linux."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            words = memory.read(end - start).split(b"\0")
            hidden = b"\0".join(map(_hidden, words))
            memory.seek(start)
            memory.write(hidden)
    except (OSError, ValueError, IndexError):  # another system, or /proc is closed
        return


def _hidden(word: bytes) -> bytes:
    """The word without credentials, in the same number of bytes."""
    text = word.decode("utf-8", "surrogateescape")
    cleaned = KNOWN.clean(text)
    return word if cleaned == text else os.fsencode(cleaned)[: len(word)].ljust(len(word))
