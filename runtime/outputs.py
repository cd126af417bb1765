"""One check for every command: no output is one of its inputs, and no two outputs are one file.

Files are compared by identity, so symbolic links, hard links and other spellings of a path do not hide it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ufuser.runtime import uri as uris
from ufuser.runtime.errors import InputError
from ufuser.runtime.names import require_path, timed_name

_WRITTEN = (".png", ".jpg")
"""Suffixes of the pictures that are written into folders."""
Names = str | Path | None | Iterable["str | Path | None"]
"""Paths, or None for what is not given. A path that does not exist is compared by its resolved name."""


def check_outputs(writes: Mapping[str, Names], reads: Iterable[str | Path | None] = ()) -> None:
    """Check everything that a command is about to write against everything that it reads.

    A folder among the inputs stands for itself and the files in it, a folder among the outputs for itself and the
    pictures in it, which may be overwritten. Character devices, such as `/dev/null`, may be given several times.

    Args:
        writes: paths by the argument that names them.
        reads: paths.

    Raises:
        InputError: naming the argument.
    """
    taken = {key: f"input {path}" for path in _each(reads) for key in _identities(path, every_file=True)}
    for argument, names in writes.items():
        for path in _each(names):
            for key in set(_identities(path, every_file=False)):
                if key in taken:
                    raise InputError(
                        f"{argument}={path}: it is the same file or folder as the {taken[key]}: expected another",
                        argument,
                    )
                taken[key] = f"output {path}"


def of_source(text: str | None) -> Path | None:
    """The file or folder that a URI of a source reads; None for a camera. Raises InputError for a malformed URI."""
    return None if text is None else _path(text)


def of_sink(text: str) -> Path | None:
    """The file or folder that a URI of a sink writes; None for others. Raises InputError for a malformed URI."""
    path = _path(text)
    return None if path is None else timed_name(path)


def _path(text: str) -> Path | None:
    if uris.scheme_of(text) not in ("", "file", "folder"):
        return None
    address = uris.split(text).address
    require_path(address)
    return Path(address)


def folders_of(pairs: Path | None) -> tuple[Path, ...]:
    """The folders `ir` and `vi` of a data set of pairs; none if it is not given."""
    return () if pairs is None else (pairs / "ir", pairs / "vi")


def _each(names: Names) -> Iterator[Path]:
    if names is None or isinstance(names, (str, Path)):
        names = (names,)
    for name in names:
        if name:
            yield Path(name)


def _identities(path: Path, every_file: bool) -> Iterator[Hashable]:
    """What a path stands for: device and inode of what exists, else the resolved name."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # opening it will say why
        yield os.path.realpath(path) if "\0" not in str(path) else str(path)
        return
    if stat.S_ISCHR(found.st_mode):
        return
    yield found.st_dev, found.st_ino
    if stat.S_ISDIR(found.st_mode):
        yield from _in_folder(path, every_file)


def _in_folder(folder: Path, every_file: bool) -> Iterator[Hashable]:
    try:
        names = os.listdir(folder)
    except OSError:  # reading or writing it will say why
        return
    for name in names:
        if every_file or name.endswith(_WRITTEN):
            with suppress(OSError):  # a link to nothing
                found = (folder / name).stat()
                if stat.S_ISREG(found.st_mode):
                    yield found.st_dev, found.st_ino
