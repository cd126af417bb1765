"""Standard streams of a command: credentials removed, noise of libraries held back, closed and full ones survived."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, TextIO

from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.quiet import NATIVE

_QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Settings of libraries that would print beside our lines. They read them when they are imported."""


class OutputLost(Exception):  # noqa: N818 - an ordinary event: a disk is full
    """Standard output takes no more: its disk is full, or it was opened for reading."""


class CleanStream:
    """A text stream that removes known credentials from what is written to it.

    Args:
        stream: the one behind it.
        must_arrive: whether a failure to write raises OutputLost. Else the text is dropped, as for messages. A pipe
            without a reader raises BrokenPipeError in both cases.
    """

    def __init__(self, stream: TextIO, must_arrive: bool) -> None:
        self.stream, self._must_arrive = stream, must_arrive

    def write(self, text: str) -> int:
        """Write a text, cleaned."""
        self.write_as_is(KNOWN.clean(text))
        return len(text)

    def write_as_is(self, text: str) -> None:
        """Write a text that is clean already, such as JSON, whose numbers no password may replace."""
        with self._surviving():
            try:
                self.stream.write(text)
            except UnicodeEncodeError:  # a terminal of another encoding, or a file name that is not UTF-8
                self.stream.write(text.encode("ascii", "backslashreplace").decode())

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Bring to the file what is written."""
        if not self.stream.closed:
            with self._surviving():
                self.stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as e:
            if self._must_arrive:
                raise OutputLost(e.strerror) from None
            discard(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def discard(stream: Any) -> None:
    """Send what is written from now on, and what waits in the buffer, to /dev/null.

    Without it Python complains at exit, when it flushes a stream that cannot be written.
    """
    with suppress(AttributeError, OSError, ValueError):  # no stream, not a file, closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, credentials removed from its texts."""
    text = f"{json.dumps(KNOWN.clean_all(value), indent=2)}\n"
    stream = sys.stdout
    if isinstance(stream, CleanStream):
        stream.write_as_is(text)
    else:
        stream.write(text)
    stream.flush()


@contextmanager
def standard_streams(verbose: bool) -> Iterator[None]:
    """Use clean streams for stdout and stderr, and keep libraries quiet unless `verbose`.

    A stream that is closed when the command starts becomes /dev/null: the next file that is opened would take its
    place, and a library's messages would go into that file.
    """
    _open_closed()
    with ExitStack() as stack:
        if not verbose:
            _quiet_libraries()
            if not sys.warnoptions:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
        outer = sys.stdout, sys.stderr
        stack.callback(_restore, *outer)
        sys.stdout = CleanStream(outer[0], must_arrive=True)
        err = outer[1] if verbose else stack.enter_context(NATIVE.held_back(outer[1]))
        if err is not outer[1] and not faulthandler.is_enabled():
            # A crash while descriptor 2 is muted is reported all the same.
            faulthandler.enable(err)
            stack.callback(faulthandler.disable)
        sys.stderr = CleanStream(err, must_arrive=False)
        sys.excepthook = _print_cleaned
        yield


def _restore(out: TextIO, err: TextIO) -> None:
    sys.stdout, sys.stderr = out, err


def _open_closed() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def _quiet_libraries() -> None:
    """Keep libraries from printing beside our lines. The user's own settings win."""
    loud = "OPENCV_LOG_LEVEL" in os.environ
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not loud and sys.modules.get("cv2") is not None:
        from ufuser.runtime.opencv import silence

        silence()


def _print_cleaned(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of `sys.excepthook`: a fault's traceback, credentials removed."""
    text = "".join(traceback.format_exception(kind, error, trace))
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(KNOWN.clean(text))
        sys.stderr.flush()
