"""Command-line flags from structs of options."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

import msgspec

from ufuser.runtime import models
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.options import FuserOptions, Option, Options, from_flags, is_required, options_in

T = TypeVar("T", bound=Options)


def add_flags(parser: argparse.ArgumentParser, kind: type[Options], required: bool = True) -> None:
    """Declare a flag for each option of a struct. Values stay text: `from_flags` parses and checks them.

    Args:
        kind: the struct.
        required: whether options without a default must be given; else they may come from elsewhere.
    """
    for option in sorted(options_in(kind), key=lambda option: not is_required(option)):
        flag: dict[str, Any] = {"dest": option.name, "help": _help(option)}
        if option.is_switch:
            prefix = "no-" if option.default else ""
            parser.add_argument(
                f"--{prefix}{option.key}", action="store_const", const=not option.default, **flag
            )
            continue
        if option.repeats:
            flag["action"] = "append"
        choices = option.choices
        flag["metavar"] = "{" + ",".join(choices) + "}" if choices else option.extra.get("metavar", "X")
        parser.add_argument(f"--{option.key}", required=required and is_required(option), **flag)


def options_of(args: argparse.Namespace, kind: type[T]) -> T:
    """The struct of a command line without a settings file. Raises InputError."""
    return kind(**from_flags(kind, vars(args)))


def _help(option: Option) -> str:
    text = option.description.replace("%", "%%")
    if option.is_switch:
        return f"do not {text}" if option.default else text
    default = option.extra.get("default", option.default)
    if default in (None, (), msgspec.NODEFAULT):
        return text
    return f"{text} (default: {default})"


def open_fuser(options: FuserOptions) -> Fuser:
    """The fuser that the options describe. Raises InputError."""
    return Fuser.open(options.model, options.engine, options.threads, options.cpu_precision)


def model_shown(model: str, chosen: str) -> str:
    """The model's name for people: with the alternative where it was chosen automatically."""
    hint = " (--model ufuser: the full network)" if model == models.AUTO and chosen == "lite" else ""
    return f"{chosen}{hint}"
