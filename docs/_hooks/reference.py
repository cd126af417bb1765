"""MkDocs hook: write the reference of commands from the argument parsers and that of files from the structs.

A page asks for its part by the line `<!-- commands -->` or `<!-- struct package.module:Struct -->`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import html
import importlib
import inspect
import io
import itertools
import os
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

import ufuser.cli


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what the page asks for."""
    if "<!-- commands -->" in markdown:
        os.environ["COLUMNS"] = "90"  # argparse wraps its usage to this
        markdown = markdown.replace("<!-- commands -->", commands_as_markdown())
    return re.sub(r"<!-- struct (\S+) -->", lambda m: struct_as_markdown(named(m[1])), markdown)


def named(where: str) -> Any:
    """The object at "module:name"."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command that takes arguments, such as "ufuser calibrate refine", with its parser."""
    return dict(_leaves(ufuser.cli.get_parser()))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield parser.prog, parser
    for action in nested:
        lazy = getattr(action, "commands", {})  # a table of commands, whose parsers are in their modules
        for name, child in action.choices.items():
            prog = f"{parser.prog} {name}"
            yield from _leaves(named(f"{lazy[name].module}:get_parser")(prog) if name in lazy else child)


def commands_as_markdown() -> str:
    """A section for each command: usage, description, a table of its arguments."""
    parts = []
    group = ""
    for command, parser in commands().items():
        top = " ".join(command.split()[:2])
        if top != group:
            parts.append(f"## {top}\n")
            group = top
        if command != top:
            parts.append(f"### {command}\n")
        parts.append(_command_as_markdown(parser))
    return "\n".join(parts)


def _command_as_markdown(parser: argparse.ArgumentParser) -> str:
    formatter = parser.formatter_class(prog=parser.prog)
    usage = textwrap.indent(inspect.cleandoc(parser.format_usage().removeprefix("usage: ")), "    ").lstrip()
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
        if action.option_strings:
            name = ", ".join(f"{option} {value}".strip() for option in action.option_strings)
        else:
            name = value
        text = formatter._expand_help(action) if action.help else ""
        required = " (required)" if action.required and action.option_strings else ""
        rows.append(f"| {_code(name)} | {_text(text + required)} |")
    table = "\n".join(["| argument | meaning |", "|---|---|", *rows, ""]) if rows else ""
    about = [_text(part) for part in (parser.description, parser.epilog) if part]
    about = [*about[:1], f"```text\n{usage}\n```", *about[1:], table]
    return "\n\n".join(about) + "\n"


def struct_as_markdown(struct: type) -> str:
    """A table of the keys of a struct or dataclass and of those inside it: name, type, default, meaning."""
    tables: dict[type, list[str]] = {}
    titles: dict[type, list[str]] = {struct: []}
    waiting = [struct]
    while waiting:
        kind = waiting.pop(0)
        notes = _field_notes(kind)
        rows = []
        for field in msgspec.inspect.type_info(kind).fields:
            for inner in _structs(field.type):
                waiting += [inner] if inner not in titles else []
                titles.setdefault(inner, []).append(_code(field.encode_name))
            metadata = _metadata(field.type)
            description = metadata.get("description", "") or notes.get(field.name, "")
            default = "required" if field.required else _text(metadata.get("default", "")) or _default(field)
            rows.append(
                f"| {_code(field.encode_name)} | {_type(field.type)} | {default} | {_text(description)} |"
            )
        tables[kind] = ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    parts = []
    for kind, lines in tables.items():
        if titles[kind]:
            about = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
            parts.append(f"**{', '.join(dict.fromkeys(titles[kind]))}**: {_text(about)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _field_notes(kind: type) -> dict[str, str]:
    """What the source says of each field of a class and of its bases: the text under it, or a comment beside it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for field, after in itertools.pairwise([*body, ast.Pass()]):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = inspect.cleandoc(str(after.value.value))
            else:
                lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
                found[field.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def _structs(kind: msgspec.inspect.Type) -> list[type]:
    """The struct classes in a type, through metadata, unions, lists and tables."""
    if isinstance(kind, RECORDS):
        return [kind.cls]
    parts = [getattr(kind, name, None) for name in ("type", "item_type", "value_type")]
    parts += [*getattr(kind, "types", ()), *(getattr(kind, "item_types", ()) or ())]
    return [s for part in parts if isinstance(part, msgspec.inspect.Type) for s in _structs(part)]


def _metadata(kind: msgspec.inspect.Type) -> dict[str, Any]:
    """What `msgspec.Meta` says of a type: the description, and our own `default` for one that None stands for."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return {**(kind.extra or {}), **(kind.extra_json_schema or {})}
    return next((found for part in getattr(kind, "types", ()) if (found := _metadata(part))), {})


RECORDS = (msgspec.inspect.StructType, msgspec.inspect.DataclassType)
WORDS = {
    "IntType": "integer",
    "FloatType": "number",
    "StrType": "text",
    "BoolType": "true or false",
    "NoneType": "null",
    "AnyType": "anything",
    "RawType": "anything",
}
PLURALS = {"table": "tables", "integer": "integers", "number": "numbers", "text": "texts"}


def _type(kind: msgspec.inspect.Type) -> str:
    """A type in words, with its range."""
    i = msgspec.inspect
    if isinstance(kind, i.Metadata):
        return _type(kind.type)
    if isinstance(kind, i.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in kind.types))
    if isinstance(kind, RECORDS):
        return "table"
    if isinstance(kind, i.DictType):
        return f"table of {_type(kind.value_type)}"
    if isinstance(kind, i.LiteralType):
        return " or ".join(_code(str(value)) for value in kind.values)
    if isinstance(kind, i.EnumType):
        return " or ".join(_code(str(member.value)) for member in kind.cls)
    if isinstance(kind, i.TupleType):
        items = [_type(part) for part in kind.item_types]
        if len(set(items)) > 1:
            return f"[{', '.join(items)}]"
        return f"{len(items)} {PLURALS.get(items[0], f'× {items[0]}')}"
    if hasattr(kind, "item_type"):
        item = _type(kind.item_type)
        return f"list of {PLURALS.get(item, item)}"
    if isinstance(kind, i.CustomType):
        return kind.cls.__name__.lower()
    word = WORDS.get(type(kind).__name__, type(kind).__name__.removesuffix("Type").lower())
    limits = [
        f"{sign} {value:g}"
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if (value := getattr(kind, name, None)) is not None
        and abs(value) < 1e6  # larger: only to keep it finite
    ]
    return f"{word} {' and '.join(limits)}".strip()


def _default(field: msgspec.inspect.Field) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        return "its defaults"
    if value is None or value is msgspec.UNSET:
        return "none"
    if isinstance(value, bool):
        return _code(str(value).lower())
    if isinstance(value, (tuple, list, set, frozenset)):
        return _code(str(list(value)))
    return _code(str(value)) if str(value) else "empty"


def _code(text: str) -> str:
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _options_as_code(text: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][\w-]*", r"<code>\g<0></code>", text)


def _text(text: str) -> str:
    """Text of a help message for a cell of a table: literal, on one line, `code` kept."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    literal = [html.escape(part, quote=False).replace("|", "&#124;") for part in parts]
    literal[0::2] = [_options_as_code(re.sub(r"([*_\[\]])", r"\\\1", part)) for part in literal[0::2]]
    literal[1::2] = [f"<code>{part}</code>" for part in literal[1::2]]
    return "".join(literal)
