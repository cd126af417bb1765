"""Sizes as the command line gives them: HEIGHTxWIDTH."""

from __future__ import annotations

from ufuser.runtime.errors import InputError

Size = tuple[int, int]
"""Height and width in pixels."""


def parse_size(text: str, multiple: int = 8) -> Size:
    """One size, as "480x640". Raises InputError for anything else, or sides that are no multiples."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) >= 16 and int(p) % multiple == 0 for p in parts):
        raise InputError(
            f"size '{text}': expected HEIGHTxWIDTH, at least 16 and multiples of {multiple}, as in 480x640"
        )
    return int(parts[0]), int(parts[1])


def parse_sizes(text: str, multiple: int = 8) -> list[Size]:
    """Sizes separated by commas, each once."""
    return list(dict.fromkeys(parse_size(part, multiple) for part in text.split(",")))


def as_text(size: Size) -> str:
    """Back again: "480x640"."""
    return f"{size[0]}x{size[1]}"


def threads_text(threads: int) -> str:
    """As "1 thread", "2 threads"."""
    return f"{threads} thread{'' if threads == 1 else 's'}"
