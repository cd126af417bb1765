"""The progress of training on stderr: a bar on a terminal; elsewhere, as in a log file, a line now and then."""

from __future__ import annotations

import io
import sys
import time
from types import TracebackType

from tqdm import tqdm

_LOG = 60.0
"""Seconds between two lines where stderr is no terminal."""
_PLAIN = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class StepBar:
    """Counts steps. A context manager.

    Args:
        total: steps of the run.
        done: steps that were done before.
        batch: pictures per step, for the rate.
        shown: False prints nothing.
    """

    def __init__(self, total: int, done: int, batch: int, shown: bool) -> None:
        self._batch, self._shown = batch, shown
        self._terminal = sys.stderr.isatty()
        self._said = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=self._terminal,
            disable=not shown,
            file=sys.stderr if self._terminal else io.StringIO(),
            bar_format=None if self._terminal else _PLAIN,
        )

    def __enter__(self) -> StepBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, loss: float) -> None:
        """Count a step."""
        rate = self._bar.format_dict.get("rate")  # recent steps per second; None at first
        speed = f", {rate * self._batch:.1f} samples/s" if rate else ""
        self._bar.set_postfix_str(f"loss {loss:.4f}{speed}", refresh=False)
        self._bar.update()
        if time.monotonic() - self._said >= _LOG:
            self.line()

    def line(self) -> None:
        """Where stderr is no terminal, print the state as a line."""
        if self._shown and not self._terminal:
            print(self._bar, file=sys.stderr, flush=True)
            self._said = time.monotonic()

    def note(self, text: str) -> None:
        """Print a line on stderr without breaking the bar."""
        if self._shown:
            tqdm.write(text, file=sys.stderr)
