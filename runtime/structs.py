"""Settings and files as msgspec structs: one definition gives the keys, the types, the ranges and the messages.

A struct with `forbid_unknown_fields=True` describes a table of TOML, an object of JSON or the keyword arguments of a
function. What does not fit it ends in an `InputError` of one line that names the place, the value and the expectation.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.limits import LARGEST_TEXT

T = TypeVar("T")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_LONG_NUMBER = re.compile(rb"[0-9]{1000,}")
DecHook = Callable[[type, Any], Any]


def convert(
    values: Any, kind: type[T], where: str, dec_hook: DecHook | None = None, strict: bool = True
) -> T:
    """Plain values (dicts, lists, numbers, text) as a struct.

    Args:
        values: as TOML or JSON decode to.
        kind: a struct or any other type that msgspec knows.
        where: what the message begins with, such as a file's path.
        dec_hook: converts values to types that msgspec does not know; see `msgspec.convert`.
        strict: whether text stays text; else it is parsed where a number or true or false is expected.

    Raises:
        InputError: an unknown key, a missing one, another type, a value out of range.
    """
    try:
        return msgspec.convert(values, kind, dec_hook=dec_hook, strict=strict)
    except msgspec.ValidationError as e:
        raise InputError(f"{where}: {_explained(str(e), kind, values)}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None


def load_json(path: Path, kind: type[T], dec_hook: DecHook | None = None) -> T:
    """A JSON file as a struct. Raises InputError for a file that cannot be read, is no JSON or does not fit."""
    return convert(read_json(path), kind, str(path), dec_hook)


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises InputError for a file that cannot be read or is no TOML."""
    return parse_toml(read_text(path, "TOML"), str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The table of a TOML text. Raises InputError for anything else; `where` begins its message."""
    try:
        tomllib = importlib.import_module("tomllib")
    except ModuleNotFoundError:  # Python 3.10
        tomllib = importlib.import_module("tomli")
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise InputError(f"{where} is not TOML that can be read: nested too deeply") from None
    except ValueError as e:  # TOMLDecodeError, and Python's limit on the digits of a whole number
        raise InputError(f"{where} is not TOML: {first_line(e)}") from None
    return table


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError for a file that cannot be read or is no JSON."""
    return parse_json(read_text(path, "JSON"), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text. Raises InputError for anything else; `where` begins its message."""
    digits = _LONG_NUMBER.search(text.encode(errors="replace") if isinstance(text, str) else text)
    if digits:  # Python does not even print such a number
        raise InputError(f"{where} is not JSON that can be read: a number of {len(digits[0])} digits")
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise InputError(f"{where} is not JSON that can be read: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as e:
        raise InputError(f"{where} is not JSON: {first_line(e)}") from None


def read_text(path: Path, language: str) -> str:
    """A UTF-8 file. Raises InputError for one that cannot be read or is too large; `language` is for its message."""
    try:
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "no such file"
            raise InputError(f"cannot read {path}: {what}, expected a {language} file")
        size = path.stat().st_size
        if size > LARGEST_TEXT:
            raise InputError(f"{path} has {size} bytes: expected a {language} file of at most {LARGEST_TEXT}")
        return path.read_text(encoding="utf-8-sig")
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path} is not {language}: its text is not UTF-8") from None
    except (OSError, ValueError) as e:  # ValueError: a path with a NUL
        raise InputError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from None


def _explained(message: str, kind: Any, values: Any) -> str:
    """msgspec's message in the words of a settings file: `optim.steps: expected a whole number, got text`."""
    what, _, path = message.partition(" - at `")
    steps = re.findall(r"\w+", path.rstrip("`").removeprefix("$"))
    place = _shown(steps)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    if unknown:
        known = _keys(kind, steps)
        close = difflib.get_close_matches(unknown[1], known, 1)
        near = (
            f" (did you mean '{close[0]}'?)" if close else f", expected {', '.join(known)}" if known else ""
        )
        return f"unknown key '{_shown([*steps, unknown[1]])}'{near}"
    missing = re.fullmatch(r"Object missing required field `(.*)`", what, re.DOTALL)
    if missing:
        return f"the key '{_shown([*steps, missing[1]])}' is missing"
    choices = getattr(_type_at(kind, steps), "values", ())
    if what.startswith("Invalid enum value") and choices:
        what = f"expected one of {', '.join(map(str, choices))}"
    what = re.sub(r"`([\w |]+)`", lambda m: _in_words(m[1]), what).replace("Expected", "expected", 1)
    what = what.replace("Number out of range", "expected a smaller number")
    given = _given(values, steps)
    return f"{place} is {given}: {what}" if place and given else f"{place}: {what}" if place else what


def _in_words(kinds: str) -> str:
    """msgspec's `float | null` as "a number"."""
    names = [name for name in kinds.split(" | ") if name != "null" or kinds == "null"]
    return " or ".join(_WORDS.get(name, name) for name in names)


def _shown(steps: list[str]) -> str:
    """A place as `homography[0][2]` or `optim.steps`."""
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps).removeprefix(".")


def _given(values: Any, steps: list[str]) -> str:
    """The value at a place, shortened; "" where it cannot be found."""
    for step in steps:
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, (list, tuple)) and step.isdecimal() and int(step) < len(values):
            values = values[int(step)]
        else:
            return ""
    shown = KNOWN.clean(repr(values))  # before a part of a password remains
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _keys(kind: Any, steps: list[str]) -> list[str]:
    """The keys that a struct has at a place; empty where that is no struct."""
    return [field.encode_name for field in _fields(_type_at(kind, steps))]


def _type_at(kind: Any, steps: list[str]) -> Any:
    """msgspec's description of the type at a place; None where it is not described."""
    found: Any = msgspec.inspect.type_info(kind)
    for step in steps:
        found = next((field.type for field in _fields(found) if field.encode_name == step), None)
    return found.type if isinstance(found, msgspec.inspect.Metadata) else found


def _fields(kind: Any) -> tuple[Any, ...]:
    """The fields of a struct, or of the only struct among the members of a union."""
    members = getattr(kind, "types", (kind,))
    structs = [member for member in members if isinstance(member, msgspec.inspect.StructType)]
    return structs[0].fields if len(structs) == 1 else ()
