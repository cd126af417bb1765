"""The one writer of files: a regular file appears whole or not at all, after a power cut too.

It is written under another name, flushed, then moved into place. Symbolic links are followed: the link stays. Devices
and FIFOs cannot be replaced, so data is written into them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from ufuser.runtime.errors import InputError
from ufuser.runtime.locks import require_unlocked
from ufuser.runtime.names import require_path

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems that cannot flush a folder (network shares), and of folders that may only be written."""
_STEM = 40
"""Bytes of the target's name in the temporary one, which must fit into the 255 of a file system, too."""
_KINDS = {
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}
_WRITTEN_INTO = (stat.S_IFCHR, stat.S_IFIFO)


class Unfinished:
    """A file being written: `path` is its temporary name, until `publish` moves it to `target`.

    The temporary file lies in the target's folder, so that the move is atomic. It keeps the target's suffix, by which
    video encoders choose their format.

    Args:
        target: final path; an existing file is replaced only by `publish`.

    Raises:
        InputError: no file can be put there: folder missing, no permission; a folder, device, FIFO or socket of that
            name; another process is writing it. The temporary file is created at once to find this out, because
            permission bits alone do not tell.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        kind = special_kind(target)
        if kind:
            raise InputError(f"cannot write {target}: it is {_KINDS[kind]}, expected a regular file")
        try:
            self._place = Path(os.path.realpath(target))
            if not self._place.parent.is_dir():
                folder = self._place.parent if target.is_symlink() else target.parent
                raise InputError(f"cannot write {target}: there is no folder {folder}")
            require_unlocked(self._place)
            self.path = _created_beside(self._place, target.suffix)
        except OSError as e:
            raise InputError(f"cannot write {target}: {e.strerror}") from None

    def publish(self, durable: bool = True, executable: bool = False) -> None:
        """Flush the file to the disk and move it into place.

        Args:
            durable: flush the folder's entry too. Without it the file is whole after a power cut, but the older one may
                be back; for many files, call `sync_folder` once at the end.
            executable: whoever may read it may run it.

        Raises:
            InputError: the system refuses, or another process is writing the target. Some file systems report a full
                disk only now.
        """
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            if executable:
                mode = stat.S_IMODE(self.path.stat().st_mode)
                self.path.chmod(mode | (mode & 0o444) >> 2)
            require_unlocked(self._place)
            os.replace(self.path, self._place)
        except OSError as e:
            self.discard()
            raise InputError(f"cannot write {self.target}: {e.strerror}") from None
        except BaseException:  # flushing takes long enough for Ctrl-C
            self.discard()
            raise
        if durable:
            sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        self.path.unlink(missing_ok=True)


def _created_beside(target: Path, suffix: str) -> Path:
    """A new empty file in the target's folder. Raises OSError."""
    stem = os.fsencode(target.stem)[:_STEM].decode(errors="ignore")
    while True:
        path = target.with_name(f".{stem}.{secrets.token_hex(4)}.partial{suffix}")
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return path


def special_kind(target: Path) -> int:
    """The type bits of a device, FIFO or socket; 0 of a regular file and of a name that is free.

    Raises InputError for a folder, and for a name that cannot be one of a file.
    """
    require_path(target)
    try:
        kind = stat.S_IFMT(target.stat().st_mode)
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise InputError(f"cannot write {target}: {e.strerror}") from None
    if kind == stat.S_IFDIR:
        raise InputError(f"cannot write {target}: it is a folder, expected the name of a file")
    return kind if kind in _KINDS else 0


def write_bytes(target: Path, data: bytes, durable: bool = True, executable: bool = False) -> None:
    """Write a whole file atomically, or the data into a character device, a FIFO or standard output.

    Raises InputError where it cannot be written: see `Unfinished`; also for a full disk.
    """
    descriptor = _standard_stream(target)
    if descriptor is not None or special_kind(target):
        _write_into(target, data, descriptor)
        return
    unfinished = Unfinished(target)
    try:
        unfinished.path.write_bytes(data)
    except OSError as e:
        unfinished.discard()
        raise InputError(f"cannot write {target}: {e.strerror}") from None
    except BaseException:
        unfinished.discard()
        raise
    unfinished.publish(durable, executable)


def _standard_stream(target: Path) -> int | None:
    """The descriptor that `/dev/stdout` and such stand for: a file behind it must not be replaced."""
    if not str(target).startswith(("/dev/", "/proc/")):
        return None
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(target.stat(), os.fstat(descriptor)):
                return descriptor
    return None


def _write_into(target: Path, data: bytes, descriptor: int | None) -> None:
    """Write into a device, a FIFO or an open descriptor. Raises InputError."""
    if descriptor is None:
        require_written_into(target)
    try:
        opened = os.dup(descriptor) if descriptor is not None else os.open(target, os.O_WRONLY | os.O_NOCTTY)
        with open(opened, "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
    except OSError as e:
        raise InputError(f"cannot write {target}: {e.strerror}") from None


def require_written_into(target: Path) -> None:
    """Raise InputError unless a special file takes data: a character device or a FIFO, with permission."""
    kind = special_kind(target)
    if kind not in _WRITTEN_INTO:
        raise InputError(f"cannot write {target}: it is {_KINDS[kind]}, expected a file, a device or a FIFO")
    if not os.access(target, os.W_OK):
        raise InputError(f"cannot write {target}: {os.strerror(errno.EACCES)}")


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
    if _standard_stream(target) is not None:
        return
    if special_kind(target):
        require_written_into(target)
    else:
        Unfinished(target).discard()


def make_folder(folder: Path) -> bool:
    """Create a folder and its parents; False if it was there. Raises InputError where that fails."""
    require_path(folder)
    try:
        if stat.S_ISDIR(folder.stat().st_mode):
            return False
    except OSError:
        pass  # `mkdir` says why
    try:
        folder.mkdir(parents=True)
    except OSError as e:
        in_place = isinstance(e, (FileExistsError, NotADirectoryError))
        reason = "a file is in its place" if in_place else e.strerror
        raise InputError(f"cannot create folder {folder}: {reason}") from None
    return True


def require_folder(folder: Path) -> None:
    """Raise InputError unless the folder can be created, or written into if it is there. Creates nothing."""
    require_path(folder)
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as e:
        raise InputError(f"cannot create folder {folder}: {e.strerror}") from None
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"cannot create folder {folder}: {there} is a file")
    try:
        _created_beside(there / "probe", "").unlink()
    except OSError as e:
        raise InputError(f"cannot create folder {folder}: {e.strerror} in {there}") from None
