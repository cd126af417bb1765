"""A lock on a file that is written in place for a long time.

The file itself carries the lock, so nothing is left behind, and it ends with the process. Windows and some network
shares have no such lock; there, two processes are not kept apart.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from ufuser.runtime.errors import InputError

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class FileLock:
    """Holds a file from construction until `release`; creates it if it is missing, and does not change it.

    A device or FIFO is not locked.

    Raises:
        InputError: another process, or another writer of this one, holds it.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        if path.exists() and not path.is_file():
            return
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        if not _lock(self._descriptor):
            self.release()
            raise _held(path)

    def release(self) -> None:
        """Let others write. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def require_unlocked(path: Path) -> None:
    """Raise InputError if a process holds this regular file with a `FileLock`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # no such file, or none that this user may read
        return
    try:
        if not _lock(descriptor):
            raise _held(path)
    finally:
        os.close(descriptor)


def _held(path: Path) -> InputError:
    return InputError(f"cannot write {path}: another output is being written there, expected another name")


def _lock(descriptor: int) -> bool:
    """Take the lock; False if somebody else holds it. It ends when the descriptor is closed."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        return e.errno not in _HELD  # else the file system has no locks
    return True
