"""Prints a module's classes, enum members, properties and signatures as JSON: `python describe.py MODULE FOLDER…`.

Runs in a process of its own, because two versions of one extension module cannot live in one. FOLDERs are put
on the import path. Signatures come from the docstrings that pybind11 and Boost.Python write, e.g.
`execute_async_v3(self: tensorrt_bindings.tensorrt.IExecutionContext, stream_handle: int) -> bool`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from importlib import import_module
from typing import Any

_SIGNATURE = re.compile(r"^\s*(?:\d+\.\s+)?\w+\((.*)\)\s*->\s*(.+?)\s*:?\s*$", re.MULTILINE)


def _split(arguments: str) -> list[str]:
    """Arguments of a signature, split at commas outside brackets and quotes."""
    parts, depth, part = [], 0, ""
    for letter in arguments:
        depth += letter in "([{<"
        depth -= letter in ")]}>"
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [p.strip() for p in (*parts, part) if p.strip()]


def signatures(doc: str | None, method: bool = False) -> list[dict[str, Any]]:
    """Every overload: names of the arguments but self, how many have no default, and the type returned."""
    found = []
    for arguments, returned in _SIGNATURE.findall(doc or ""):
        boost = re.findall(
            r"\((\w+)\)(\w+)", arguments
        )  # Boost.Python: (type)name, optional ones in brackets
        if boost:
            names = [name for _, name in boost]
            required = len(re.findall(r"\(\w+\)\w+", arguments.partition("[")[0]))
        else:
            split = _split(arguments)
            names = [re.split(r"[:=]", argument)[0].strip() for argument in split]
            required = sum("=" not in argument and not argument.startswith("*") for argument in split)
        if method and names and names[0] in ("self", "arg1", "arg0"):
            names, required = names[1:], required - 1
        found.append({"names": names, "required": required, "returns": returned.split(".")[-1].strip(" '\"")})
    return found


def _python_signature(function: Any) -> list[dict[str, Any]]:
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return []
    names = [("*" if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) else "") + p.name for p in parameters]
    required = sum(p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD for p in parameters)
    return [{"names": names, "required": required, "returns": ""}]


def describe(value: Any) -> dict[str, Any]:
    """One attribute."""
    if isinstance(value, type):
        members = {}
        for base in reversed(value.__mro__[:-1]):
            for name, member in vars(base).items():
                if not name.startswith("_") or name == "__init__":
                    members[name] = describe_member(member, value)
        return {"kind": "class", "members": members, "bases": [b.__name__ for b in value.__mro__[1:-1]]}
    if callable(value):
        return {"kind": "function", "signatures": signatures(value.__doc__) or _python_signature(value)}
    return {"kind": "value", "type": type(value).__name__}


def describe_member(member: Any, owner: type) -> dict[str, Any]:
    """A class's member as found in its dictionary."""
    if isinstance(member, property):
        given = signatures(member.fget.__doc__, method=True) if member.fget else []
        returned = given[0]["returns"] if given else ""
        annotation = getattr(member.fget, "__annotations__", {}).get("return", "")
        returned = returned or (annotation if isinstance(annotation, str) else annotation.__name__)
        return {"kind": "property", "type": returned.split(".")[-1], "settable": member.fset is not None}
    if isinstance(member, (staticmethod, classmethod)):
        own = member.__func__
        return {"kind": "method", "signatures": signatures(own.__doc__) or _python_signature(own)}
    if isinstance(member, type):
        return {"kind": "class"}
    if callable(member):
        return {"kind": "method", "signatures": signatures(member.__doc__, True) or _python_signature(member)}
    return {"kind": "value", "type": type(member).__name__ if type(member) is not owner else owner.__name__}


def main(module: str, *folders: str) -> None:
    """Describe and print."""
    sys.path[:0] = folders
    loaded = import_module(module)
    api = {name: describe(getattr(loaded, name)) for name in dir(loaded) if not name.startswith("_")}
    if hasattr(loaded, "__version__"):
        api["__version__"] = describe(loaded.__version__)
    print(json.dumps({"version": str(getattr(loaded, "__version__", "")), "api": api}))


if __name__ == "__main__":
    main(*sys.argv[1:])
