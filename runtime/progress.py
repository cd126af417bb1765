"""A progress line on stderr: redrawn in place on a terminal, else a line every five seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_REDRAW, _LOG = 0.1, 5.0
"""Seconds between two updates, on a terminal and elsewhere."""


class Progress:
    """Counts frames and shows count, rate and time left. A context manager: leaving it ends the line.

    Args:
        label: begins the line.
        total: number of frames, None if unknown.
        stream: to write to; None takes stderr.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._clock = label, total, clock
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._count = 0
        self._began = self._shown = clock()
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._drawn:
            if kind is None:
                self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def step(self) -> None:
        """Count one frame."""
        self._count += 1
        now = self._clock()
        # Nothing is logged by a run that ends before its first line is due.
        if now - self._shown >= (_REDRAW if self._terminal else _LOG):
            self._shown = now
            self._draw()

    def note(self, text: str) -> None:
        """Write a line without breaking the progress line."""
        self._stream.write(("\r\x1b[K" if self._terminal and self._drawn else "") + text + "\n")
        self._drawn = False
        self._stream.flush()

    def line(self) -> str:
        """The current progress line."""
        elapsed = self._clock() - self._began
        rate = self._count / elapsed if elapsed > 0 else 0.0
        count = f"{self._count}" if self._total is None else f"{self._count}/{self._total}"
        text = f"{self._label} {count}, {rate:.1f} fps"
        if self._total is not None and rate > 0:
            left = round(max(self._total - self._count, 0) / rate)
            text += f", {left // 60}:{left % 60:02d} left"
        return text

    def _draw(self) -> None:
        self._stream.write(f"\r\x1b[K{self.line()}" if self._terminal else f"{self.line()}\n")
        self._stream.flush()
        self._drawn = True


def timed_printer() -> Callable[[str], None]:
    """A function that prints lines on stderr, each after the seconds since this call."""
    began = time.perf_counter()

    def print_timed(line: str) -> None:
        print(f"[{time.perf_counter() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    return print_timed
