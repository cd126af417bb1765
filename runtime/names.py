"""Names of files that every library here can open."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ufuser.runtime.errors import InputError


def wrong_name(text: str) -> str | None:
    """What is wrong with a text that names a file, as "expected …"; None if nothing is.

    OpenCV, FFmpeg and the engines take names in UTF-8. A name in another encoding ends some of them with a segmentation
    fault.
    """
    if not text:
        return "expected a name, got an empty text"
    if "\0" in text:
        return "expected a name without a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "expected a name in UTF-8; rename the file or folder"
    return None


def shown(text: str) -> str:
    """The text for a message: bytes that are not UTF-8, and control characters, as escapes."""
    legible = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in legible)


def require_path(path: str | os.PathLike[str]) -> None:
    """Raise InputError for an empty name, one with a NUL character, and one that is not UTF-8."""
    text = os.fspath(path)
    wrong = wrong_name(text)
    if wrong:
        raise InputError(f"'{shown(text)}': {wrong}")


def timed_name(path: Path) -> Path:
    """The path with `%Y%m%d-%H%M%S` and such in its name replaced by the time now.

    Raises InputError if that is no name of a file.
    """
    if "%" not in path.name:
        return path
    try:
        name = time.strftime(path.name)
        if not name or "/" in name or len(os.fsencode(name)) > 255:
            raise ValueError
        return path.with_name(name)
    except ValueError:  # also of `strftime`, and of a name that no path can have
        raise InputError(
            f"cannot write {path}: the time does not give the name of a file, expected such as %Y%m%d-%H%M%S"
        ) from None
