"""Files that appear whole or not at all: written beside their place under another name, then moved."""

from __future__ import annotations

import os
from pathlib import Path

from ufuser.runtime.errors import InputError


class Unfinished:
    """A file being written: `path` is its temporary name, until `publish` moves it to `target`.

    The temporary name lies in the target's folder, so that the move is atomic, and keeps its suffix, by which
    video writers choose their format.

    Args:
        target: where the file shall be in the end; an existing file is replaced on publishing only.

    Raises:
        InputError: a file could not be put there: folder missing, no permission, a folder of that name. This
            is found by creating the temporary file at once, because permission bits alone do not tell it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a folder, expected the name of a file")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {target}: there is no folder {target.parent}")
        try:
            self.path.touch()
        except OSError as e:
            raise InputError(f"cannot write {target}: {e.strerror}") from None

    def publish(self) -> None:
        """Move the file into place. Raises InputError if the system refuses."""
        try:
            os.replace(self.path, self.target)
        except OSError as e:
            self.discard()
            raise InputError(f"cannot write {self.target}: {e.strerror}") from None

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        self.path.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    """Write a whole file atomically.

    Raises InputError where it cannot be written: see `Unfinished`, or the disk is full.
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
    unfinished.publish()


def require_writable(target: Path) -> None:
    """Raise the InputError that writing `target` would meet, before any work is done for it."""
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
