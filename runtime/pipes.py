"""What every command does when whoever read what it prints has gone: `ufuser doctor | head -3`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TextIO

READER_GONE = 141  # what a shell says of a program that SIGPIPE ended: 128 + 13
Given = ParamSpec("Given")


def ends_with_its_reader(main: Callable[Given, int]) -> Callable[Given, int]:
    """Make an entry point end quietly, with `READER_GONE`, once nobody reads its output.

    A pipe that breaks elsewhere (a viewer that leaves, an encoder that dies) stays the error that it is.
    """

    @wraps(main)
    def run(*args: Given.args, **named: Given.kwargs) -> int:
        try:
            try:
                return main(*args, **named)
            finally:
                _flush(sys.stdout)  # here, where it can be caught, and not at exit
        except BrokenPipeError:
            broken = [stream for stream in (sys.stdout, sys.stderr) if _reader_left(stream)]
            if not broken:
                raise
            for stream in broken:  # or Python complains once more when it flushes at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return READER_GONE

    return run


def _flush(stream: TextIO | None) -> None:
    if stream is not None and not stream.closed:
        stream.flush()


def _reader_left(stream: Any) -> bool:
    """Whether this is a pipe that nobody holds the other end of."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no stream, not a file, closed
        return False
