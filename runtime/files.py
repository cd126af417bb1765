"""Files that appear whole or not at all, after a power cut too: written under another name, flushed, then moved."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ufuser.runtime.errors import InputError

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems that cannot flush a folder (network shares), and of folders that may only be written."""


class Unfinished:
    """A file being written: `path` is its temporary name, until `publish` moves it to `target`.

    The temporary name lies in the target's folder, so that the move is atomic, and keeps its suffix, by which video
    encoders choose their format.

    Args:
        target: final path; an existing file is replaced only by `publish`.

    Raises:
        InputError: no file can be put there: folder missing, no permission, a folder of that name. The temporary file
            is created at once to find this out, because permission bits alone do not tell.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
        try:
            if target.is_dir():
                raise InputError(f"cannot write {target}: it is a folder, expected the name of a file")
            if not target.parent.is_dir():
                raise InputError(f"cannot write {target}: there is no folder {target.parent}")
            self.path.touch()
        except OSError as e:
            raise InputError(f"cannot write {target}: {e.strerror}") from None

    def publish(self, durable: bool = True) -> None:
        """Flush the file to the disk and move it into place.

        Args:
            durable: flush the folder's entry too. Without it the file is whole after a power cut, but the older one may
                be back; for many files, call `sync_folder` once at the end.

        Raises:
            InputError: the system refuses. Some file systems report a full disk only now.
        """
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.path, self.target)
        except OSError as e:
            self.discard()
            raise InputError(f"cannot write {self.target}: {e.strerror}") from None
        except BaseException:  # flushing takes long enough for Ctrl-C
            self.discard()
            raise
        if durable:
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        self.path.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes, durable: bool = True) -> None:
    """Write a whole file atomically.

    Raises InputError where it cannot be written: see `Unfinished`; also for a full disk.
    """
    unfinished = Unfinished(target)
    try:
        unfinished.path.write_bytes(data)
    except OSError as e:
        unfinished.discard()
        raise InputError(f"cannot write {target}: {e.strerror}") from None
    except BaseException:
        unfinished.discard()
        raise
    unfinished.publish(durable)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk. Raises InputError where the disk fails."""
    if os.name == "nt":
        return  # Windows cannot open a folder; it orders the move itself
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as e:
        if e.errno not in _NOT_SUPPORTED:
            raise InputError(f"cannot write into {folder}: {e.strerror}") from None


def require_writable(target: Path) -> None:
    """Raise InputError unless `target` can be written: a check before long work."""
    Unfinished(target).discard()


def make_folder(folder: Path) -> bool:
    """Create a folder and its parents; False if it was there. Raises InputError where that fails."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except OSError as e:
        in_place = isinstance(e, (FileExistsError, NotADirectoryError))
        reason = "a file is in its place" if in_place else e.strerror
        raise InputError(f"cannot create folder {folder}: {reason}") from None
    return True
