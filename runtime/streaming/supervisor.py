"""What becomes of an exception in a camera or a sink: it is counted, reported, and recovery is tried with back-off."""

from __future__ import annotations

from dataclasses import dataclass

from ufuser.runtime.errors import InputError
from ufuser.runtime.sinks.sink import SinkDown
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.uri import mask


@dataclass(frozen=True, slots=True)
class BackOff:
    """Pauses before the attempts to recover, seconds on the stream's clock."""

    first: float = 0.5
    longest: float = 30.0
    """Each further attempt waits twice as long as the one before, up to this."""


def describe(error: Exception) -> str:
    """An exception in one line, credentials masked."""
    text = mask(" ".join(str(error).split()))
    if isinstance(error, (InputError, SinkDown)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Supervisor:
    """Counts and reports the failures of one camera or sink, and spaces the attempts to recover.

    Any `Exception` is a failure of that part alone. Other exceptions, such as KeyboardInterrupt, are not
    for it: they end the stream. Used by one thread.

    Args:
        place: name in the figures: "ir", "vi", or the sink's.
        subject: name in the events.
        context: of the stream.
        back_off: pauses before the attempts.
    """

    def __init__(
        self, place: str, subject: str, context: StreamContext, back_off: BackOff | None = None
    ) -> None:
        self._place, self._subject, self._context = place, subject, context
        self._back_off = back_off or BackOff()
        self.error = ""
        """Why it does not work now; empty while it works."""
        self.retry_at = float("-inf")
        """When to try again, on the stream's clock."""
        self._pause = self._since = 0.0

    def failed(self, error: Exception | str, consequence: str = "") -> None:
        """An attempt has failed: count it, report it unless the reason is still the same, set `retry_at`."""
        why = describe(error) if isinstance(error, Exception) else error
        now = self._context.clock.now()
        if self.error:
            self._pause = min(2 * self._pause, self._back_off.longest)
        else:
            self._pause, self._since = self._back_off.first, now
        self.retry_at = now + self._pause
        self._context.telemetry.failed(self._place)
        known, self.error = self.error, why
        if why != known:
            self._context.event("error", self._subject, f"failed: {why}{consequence}")

    def worked(self) -> None:
        """It works, perhaps again."""
        if self.error:
            self.error = ""
            gone = self._context.clock.now() - self._since
            self._context.event("info", self._subject, f"works again after {gone:.1f} s")

    def waiting(self) -> bool:
        """Whether it has failed and the next attempt is not due."""
        return bool(self.error) and self._context.clock.now() < self.retry_at
