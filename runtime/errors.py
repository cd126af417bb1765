"""The error of bad input: the command line prints its one line and exits with code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what was given, what was expected, what to do."""
