"""The error of bad input: the command line prints its one line and exits with code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what was given and what is expected."""
