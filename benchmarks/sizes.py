"""Picture sizes on the command line: HEIGHTxWIDTH."""

from __future__ import annotations

from ufuser.runtime.errors import InputError
from ufuser.runtime.limits import require_threads

Size = tuple[int, int]
"""Height and width in pixels."""


def parse_size(text: str, multiple: int = 8) -> Size:
    """Parse a size such as "480x640". Raises InputError for other text or sides that are no multiples."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) >= 16 and int(p) % multiple == 0 for p in parts):
        raise InputError(
            f"size '{text}': expected HEIGHTxWIDTH, at least 16 and multiples of {multiple}, such as 480x640"
        )
    return int(parts[0]), int(parts[1])


def parse_sizes(text: str, multiple: int = 8) -> list[Size]:
    """Parse sizes separated by commas, without duplicates."""
    return list(dict.fromkeys(parse_size(part, multiple) for part in text.split(",")))


def parse_counts(option: str, text: str) -> list[int]:
    """Parse whole numbers of at least 1 separated by commas, without duplicates. Raises InputError."""
    parts = text.split(",")
    if not all(p.isdecimal() and len(p) < 10 and int(p) >= 1 for p in parts):
        raise InputError(f"{option} {text}: expected whole numbers of at least 1, such as 1,2")
    return list(dict.fromkeys(int(p) for p in parts))


def parse_threads(text: str) -> list[int]:
    """Parse thread counts separated by commas. Raises InputError."""
    counts = parse_counts("--threads", text)
    for count in counts:
        require_threads(count)
    return counts


def as_text(size: Size) -> str:
    """Format a size: "480x640"."""
    return f"{size[0]}x{size[1]}"


def threads_text(threads: int) -> str:
    """Format a thread count: "1 thread", "2 threads"."""
    return f"{threads} thread{'' if threads == 1 else 's'}"
