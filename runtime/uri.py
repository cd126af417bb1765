"""URIs of sources and sinks: scheme, address, options, and the masking of credentials."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from ufuser.runtime.credentials import KNOWN, NAMES
from ufuser.runtime.errors import InputError

T = TypeVar("T")

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")
"""Two letters at least: a single one is a Windows drive."""
_AUTHORITY = re.compile(r"(?P<scheme>[a-zA-Z0-9+.-]://)(?P<rest>[^\s'\"<>]*)")
_SECRET = re.compile(rf"(?P<name>{NAMES})(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,!'\"]+)", re.IGNORECASE)


def mask(text: str) -> str:
    """The text with user names, passwords and tokens of every URI in it replaced by `***`.

    All text that is shown, logged or written passes through here. In doubt it masks too much: a password that is not
    percent-encoded is masked too. Known secrets are removed first, by `ufuser.runtime.credentials`.
    """
    masked = _AUTHORITY.sub(lambda m: m["scheme"] + _without_user(m["rest"]), KNOWN.clean(text))
    return _SECRET.sub(lambda m: f"{m['name']}***", masked)


def _without_user(rest: str) -> str:
    authority = re.match(r"[^/?#]*", rest)
    end = authority.end() if authority else 0
    at = rest.rfind("@", 0, end)
    if at < 0 and ":" in rest[:end]:
        # "user:pass/word@host": the part that looks like a port may begin a password that is not encoded.
        at = rest.rfind("@")
    return rest if at < 0 else f"***{rest[at:]}"


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI in its parts."""

    text: str
    """As given, with credentials: show `name` instead."""
    scheme: str
    """Lower case, without the colon; "" for a path."""
    address: str
    """Between the scheme and the options."""
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """The URI with its credentials masked."""
        return mask(self.text)

    def read(self, parsers: Mapping[str, Callable[[str], T]]) -> dict[str, T]:
        """Parse the options.

        Args:
            parsers: by the name of the option; they raise ValueError for a bad value.

        Raises:
            InputError: an option without a parser, or a bad value.
        """
        found: dict[str, T] = {}
        for key, text in self.options.items():
            if key not in parsers:
                close = difflib.get_close_matches(key, parsers, 1)
                near = f" (did you mean {close[0]}?)" if close else ""
                known = ", ".join(parsers) or "none"
                raise InputError(f"{self.name}: unknown option '{key}', expected {known}{near}")
            try:
                found[key] = parsers[key](text)
            except ValueError as e:
                raise InputError(mask(f"{self.name}: {key}={text}: {e}")) from None
        return found


def scheme_of(text: str) -> str:
    """The text before the first colon, lower case; "" for a path, also for one that contains a colon and exists."""
    match = _SCHEME.match(text)
    return "" if match is None or _exists(text) else match[1].lower()


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a pipeline is too long for a name
        return False


def split(text: str, with_options: bool = True) -> Uri:
    """Split a URI or path into its parts.

    Args:
        text: for example `folder:DIR?fps=25`, `v4l2:///dev/video0`, `clip.mp4?live=1`. The name of an existing file is
            a path, whatever characters it contains.
        with_options: whether options for us follow the last `?`. False leaves that part in the address, as for RTSP,
            where it belongs to the camera.

    Raises:
        InputError: an option given twice, or one without `=`.
    """
    KNOWN.learn(text)
    if _exists(text):
        return Uri(text, "", text, {})
    scheme = scheme_of(text)
    address = text[len(scheme) + 1 :] if scheme else text
    if address.startswith("//"):
        address = address[2:]
    options: dict[str, str] = {}
    if with_options and "?" in address and not _exists(address):
        address, _, query = address.rpartition("?")
        try:
            # Python 3.10 takes an empty query for an error.
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise InputError(f"{mask(text)}: expected options as ?name=value&name=value") from None
        for key, value in pairs:
            if key in options:
                raise InputError(f"{mask(text)}: '{key}' is given twice")
            options[key] = value
    return Uri(text, scheme, address, options)


def number(text: str) -> float:
    """Parse a finite, positive number; for `Uri.read`."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ValueError("expected a number above 0")
    return value


def whole(text: str) -> int:
    """Parse a whole number from 0; for `Uri.read`."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("expected a whole number")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Parse `640x480` into width and height; for `Uri.read`."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if match is None:
        raise ValueError("expected WIDTHxHEIGHT in pixels, such as 640x480")
    return int(match[1]), int(match[2])


def switch(text: str) -> bool:
    """Parse `1` or `0`; for `Uri.read`."""
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1")
    return text == "1"


def seconds(text: str) -> float:
    """Parse a time of `8ms` or `0.5s`, seconds without a unit; for `Uri.read`."""
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+))(ms|s)?", text.strip())
    if match is None:
        raise ValueError("expected a time, such as 8ms or 0.5s")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)
