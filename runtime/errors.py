"""The error of bad input."""

from __future__ import annotations

from ufuser.runtime.credentials import KNOWN


class InputError(ValueError):
    """Bad input: the message says what was given, what was expected, and what to do.

    Args:
        message: one line; known credentials are removed. About one argument it may begin with `name=value: `; else
            `name: ` is put before it.
        argument: name of the argument that the message is about. The command line shows its flag instead.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        if argument is not None and not message.startswith((f"{argument}=", f"{argument}: ")):
            message = f"{argument}: {message}"
        super().__init__(KNOWN.clean(message))
        self.argument = argument


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its class where it has no text; at most 200 characters.

    Known credentials are removed before it is cut, or a part of one would remain.
    """
    return (KNOWN.clean(str(error)).strip() or type(error).__name__).splitlines()[0][:200]
