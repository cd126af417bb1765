"""Options defined once: a field of a struct is a keyword argument, a flag, a key of a settings file and a message."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import NODEFAULT, Meta

from ufuser.runtime import models
from ufuser.runtime.credentials import HIDDEN, KNOWN
from ufuser.runtime.engines import AUTO, ENGINES
from ufuser.runtime.errors import InputError
from ufuser.runtime.limits import MOST_THREADS
from ufuser.runtime.names import wrong_name
from ufuser.runtime.structs import convert, read_toml
from ufuser.runtime.uri import mask, seconds

TIME = {"metavar": "S", "time": True}
"""Meta.extra of a field in seconds: text such as "12ms" is allowed outside Python."""

_THREADS = {"metavar": "N", "default": "one per core"}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Base of all options. Each field is annotated with a type, a description and limits.

    Raises InputError, which names the field, for a value of another type or out of range.
    """

    def __post_init__(self) -> None:
        for option in options_in(type(self)):
            value = getattr(self, option.name)
            option.learn(value)
            option.check(value, f"{option.name}={option.shown(value)}", option.name)


class FuserOptions(Options, frozen=True, kw_only=True):
    """What fuses: see `Fuser.open`."""

    model: Annotated[
        str,
        Meta(
            description="shipped model or ONNX file; auto is ufuser on a GPU, else lite",
            extra={"metavar": "M"},
        ),
    ] = models.AUTO
    engine: Annotated[
        str,
        Meta(
            description=f"{', '.join(ENGINES)}, or auto for the fastest that is installed",
            extra={"metavar": "E"},
        ),
    ] = AUTO
    threads: (
        Annotated[int, Meta(ge=1, le=MOST_THREADS, description="CPU threads of the engine", extra=_THREADS)]
        | None
    ) = None
    cpu_precision: Annotated[
        Literal["fp32", "bf16"], Meta(description="what OpenVINO computes in; bf16 where the CPU has it")
    ] = "fp32"


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a struct of options."""

    name: str
    """The Python argument."""
    key: str
    """The flag without its dashes, and the key of a settings file."""
    kind: Any
    """The annotated type, as msgspec takes it."""
    default: Any
    """NODEFAULT where a value is required."""
    description: str
    extra: Mapping[str, Any]

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false."""
        return isinstance(self.default, bool)

    @property
    def repeats(self) -> bool:
        """Whether it takes several values."""
        return isinstance(self.default, tuple)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that a Literal allows; empty for any other type."""
        literal = getattr(self.kind, "__origin__", None)  # of Annotated: the type without its description
        return typing.get_args(literal) if typing.get_origin(literal) is Literal else ()

    def learn(self, value: Any) -> None:
        """Let the last filter know the credentials in a value."""
        for text in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(text, str):
                KNOWN.learn(text)
                if "secret" in self.extra:
                    KNOWN.learn_secret(text)

    def shown(self, value: Any) -> str:
        """A value for a message: short, without credentials."""
        if "secret" in self.extra:
            return HIDDEN
        text = mask(repr(value))
        return text if len(text) <= 60 else f"{text[:57]}..."

    def check(self, value: Any, where: str, argument: str | None = None, strict: bool = True) -> Any:
        """The value in the field's type.

        Args:
            value: a Python value; text, where `strict` is false.
            where: begins the message.
            argument: see `InputError`.
            strict: whether text stays text; else it is parsed.

        Raises:
            InputError: another type, a value out of range, an empty text, or one that no file can have as its name.
        """
        for text in value if isinstance(value, (tuple, list)) else (value,):
            wrong = wrong_name(text) if isinstance(text, str) else None
            if wrong:
                raise InputError(f"{where}: {wrong}", argument)
        try:
            return convert(value, self.kind, where, strict=strict)
        except InputError as e:
            expected = self.extra.get("expected")
            raise InputError(f"{where}: expected {expected}" if expected else str(e), argument) from None

    def from_outside(self, value: Any, where: str, argument: str | None = None, strict: bool = True) -> Any:
        """`check` for a flag or a settings file: times may have a unit, and a text may be a list of one."""
        if self.repeats and isinstance(value, str):
            value = (value,)
        if "time" in self.extra and isinstance(value, str):
            try:
                value = seconds(value)
            except ValueError as e:
                raise InputError(f"{where}: {e}", argument) from None
        return self.check(value, where, argument, strict)


@cache
def options_in(kind: type[Options]) -> tuple[Option, ...]:
    """The options that a struct defines, in order."""
    found = []
    for field in msgspec.structs.fields(kind):
        meta = _meta(field.type)
        found.append(
            Option(
                field.name,
                field.encode_name,
                field.type,
                field.default,
                meta.description or "",
                meta.extra or {},
            )
        )
    return tuple(found)


def _meta(kind: Any) -> Meta:
    """The description in a field's type, `Annotated[…]` or `Annotated[…] | None`."""
    for part in (kind, *typing.get_args(kind)):
        if hasattr(part, "__metadata__"):
            meta: Meta = part.__metadata__[0]
            return meta
    raise TypeError(f"{kind} has no description: expected Annotated[…, Meta(description=…)]")


def from_flags(kind: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options from the text of flags, by name; None is a flag that was not given. Raises InputError."""
    found = {}
    for option in options_in(kind):
        value = given.get(option.name)
        if value is not None:
            option.learn(value)
            where = f"{option.name}={option.shown(value)}"
            found[option.name] = option.from_outside(value, where, option.name, strict=False)
    return found


def from_toml(kind: type[Options], path: Path) -> dict[str, Any]:
    """Options from a TOML file, by name.

    Raises:
        InputError: a file that cannot be read or is no TOML, an unknown key, a value that does not fit.
    """
    known = {option.key: option for option in options_in(kind)}
    found = {}
    for key, value in read_toml(path).items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise InputError(f"{path}: unknown key '{key}'{_nearest(key, known)}")
        option.learn(value)
        where = f"{path}: {key} is {option.shown(value)}"
        found[option.name] = option.from_outside(value, where)
    return found


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f" (did you mean '{close[0]}'?)" if close else f", expected {', '.join(known)}"


def is_required(option: Option) -> bool:
    """Whether an option has no default."""
    return option.default is NODEFAULT
