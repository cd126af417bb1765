"""What native libraries print on standard error while they decode a damaged file.

They write to file descriptor 2 themselves: libpng, libjpeg and OpenCV's AVI reader have no switch that a program in
Python can reach. A command holds that back, so that its own line stands alone; `--verbose` shows it. A program that
imports `ufuser` keeps its descriptors as they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class NativeErrors:
    """Sends file descriptor 2 to nowhere while at least one thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_back = False
        self._decoding, self._saved = 0, -1

    @contextmanager
    def held_back(self, stream: TextIO) -> Iterator[TextIO]:
        """Let `muted` work until the end of the context.

        Gives a stream to use in place of `stream`, standard error: its own descriptor is never muted, so that no
        message of another thread is lost.
        """
        own = _second(stream)
        self._held_back = True
        try:
            yield own or stream
        finally:
            self._held_back = False
            if own is not None:
                with suppress(OSError):  # a pipe that nobody reads
                    own.close()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """While a library decodes. Does nothing outside of `held_back`."""
        if not self._held_back:
            yield
            return
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            self._decoding += 1
            if self._decoding == 1:
                self._saved = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)

    def _end(self) -> None:
        with self._lock:
            self._decoding -= 1
            if self._decoding == 0:
                os.dup2(self._saved, 2)
                os.close(self._saved)


def _second(stream: TextIO) -> TextIO | None:
    """A stream like this one on a descriptor of its own; None where it is not file descriptor 2."""
    try:
        if stream.fileno() != 2:
            return None
        stream.flush()
        return os.fdopen(
            os.dup(2), "w", buffering=1, encoding=stream.encoding, errors=getattr(stream, "errors", None)
        )
    except (OSError, ValueError, AttributeError):  # no file, closed, a stand-in
        return None


NATIVE = NativeErrors()
"""File descriptor 2 belongs to the process, and so does this."""
