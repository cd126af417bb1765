"""Which names of TensorRT, PyCUDA and Polygraphy our sources use, found by walking their syntax trees.

Types are followed from where a module comes in (`import_tensorrt()`, a parameter called `tensorrt`, …) through
assignments, annotations under TYPE_CHECKING (`context: trt.IExecutionContext`) and what the described methods
return. A use whose type can't be followed is reported as such, so that nothing slips by unchecked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

API = Mapping[str, Mapping[str, Any]]
"""Names to what `describe.py` says of them."""

MODULES = {
    "tensorrt": "tensorrt",
    "trt": "tensorrt",
    "cuda": "pycuda.driver",
    "driver": "pycuda.driver",
    "backend": "polygraphy.backend.trt",
    "polygraphy_trt": "polygraphy.backend.trt",
}
"""Names by which our sources call the modules; a rule of the house, kept by a test."""
IMPORTERS = {
    "import_tensorrt": "tensorrt",
    "import_pycuda": "pycuda.driver",
    "import_polygraphy": "polygraphy.backend.trt",
}


@dataclass(frozen=True)
class Type:
    """What an expression is: a module, a class itself, an instance of one, a function, or opaque."""

    kind: str
    module: str
    name: str = ""
    member: str = ""


@dataclass(frozen=True)
class Use:
    """One use of a foreign name."""

    module: str
    owner: str  # class, "" for the module itself
    name: str
    keywords: tuple[str, ...]
    positional: int  # -1 where it is not called
    where: str

    def __str__(self) -> str:
        called = "" if self.positional < 0 else f"({self.positional} positional, {', '.join(self.keywords)})"
        return f"{self.owner + '.' if self.owner else ''}{self.name}{called}"


class Walker(ast.NodeVisitor):
    """Collects the uses in one file, given the API of each module."""

    def __init__(self, path: Path, apis: Mapping[str, API]) -> None:
        self.path, self.apis = path, apis
        self.uses: list[Use] = []
        self.overrides: list[
            tuple[Use, tuple[str, ...]]
        ] = []  # methods of our subclasses, with their arguments
        self.opaque: list[str] = []  # uses that could not be followed
        self._scopes: list[dict[str, Type]] = [{}]
        self._own: dict[str, Type] = {}  # self.attributes of the file's classes
        self._returns: dict[str, Type] = {}  # of the file's functions

    def walk(self) -> Walker:
        """Read the file, annotations first."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                annotated = self._annotation(node.annotation)
                if annotated:
                    self._own[node.target.attr] = annotated
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                returned = self._annotation(node.returns)
                if returned:
                    self._returns[node.name] = returned
        self.generic_visit(tree)
        return self

    def _annotation(self, node: ast.expr | None) -> Type | None:
        if isinstance(node, ast.BinOp):  # X | None
            return self._annotation(node.left) or self._annotation(node.right)
        words = ast.unparse(node).split(".") if node is not None else []
        if len(words) >= 2 and words[0] in ("trt", "cuda", "polygraphy_trt"):
            return Type("instance", MODULES[words[0]], words[1])
        return None

    def _infer(self, node: ast.expr) -> Type | None:
        if isinstance(node, ast.Name):
            for scope in reversed(self._scopes):
                if node.id in scope:
                    return scope[node.id]
            return None
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self._own.get(node.attr)
            if node.attr == "driver" and self._infer(node.value) is None:
                return Type("module", "pycuda.driver")  # `Device.driver`
            return self._member(self._infer(node.value), node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in IMPORTERS:
                return Type("module", IMPORTERS[node.func.id])
            if isinstance(node.func, ast.Name) and node.func.id in self._returns:
                return self._returns[node.func.id]
            return self._called(self._infer(node.func))
        if isinstance(node, ast.IfExp):
            return self._infer(node.body) or self._infer(node.orelse)
        return None

    def _member(self, owner: Type | None, name: str) -> Type | None:
        if owner is None:
            return None
        api = self.apis[owner.module]
        if owner.kind == "module":
            kind = api.get(name, {}).get("kind", "")
            return Type({"class": "class", "function": "function"}.get(kind, "opaque"), owner.module, name)
        if owner.kind in ("class", "instance"):
            member = api.get(owner.name, {}).get("members", {}).get(name, {})
            if member.get("kind") == "method":
                return Type("method", owner.module, owner.name, name)
            return self._returned(owner.module, member.get("type", ""))
        return Type("opaque", owner.module)

    def _called(self, function: Type | None) -> Type | None:
        if function is None:
            return None
        if function.kind == "class":
            return Type("instance", function.module, function.name)
        api = self.apis[function.module]
        if function.kind == "method":
            described = api[function.name]["members"][function.member]
        elif function.kind == "function":
            described = api[function.name]
        else:
            return Type("opaque", function.module)
        returned = {s["returns"] for s in described.get("signatures", [])}
        return self._returned(function.module, returned.pop() if len(returned) == 1 else "")

    def _returned(self, module: str, name: str) -> Type | None:
        if self.apis[module].get(name, {}).get("kind") == "class":
            return Type("instance", module, name)
        return Type("opaque", module)

    def _where(self, node: ast.AST) -> str:
        return f"{self.path.name}:{getattr(node, 'lineno', 0)}"

    def _record(self, node: ast.Attribute, call: ast.Call | None) -> None:
        owner = self._infer(node.value)
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return
        if owner is None:
            return
        if owner.kind == "opaque":
            self.opaque.append(f"{self._where(node)}: {ast.unparse(node)}")
            return
        if owner.kind not in ("module", "class", "instance"):
            return
        keywords = tuple(k.arg or "**" for k in call.keywords) if call else ()
        positional = len(call.args) if call else -1
        name = "" if owner.kind == "module" else owner.name
        if owner.kind == "class" and node.attr == "__init__":
            positional -= 1  # self
        self.uses.append(Use(owner.module, name, node.attr, keywords, positional, self._where(node)))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._record(node.func, node)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for argument in (*node.args, *(k.value for k in node.keywords)):
            self.visit(argument)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._record(node, None)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        annotated = self._annotation(node.annotation)
        if isinstance(node.target, ast.Name):
            self._scopes[-1].pop(node.target.id, None)  # NumPy's or Python's own: no concern of ours
            if annotated:
                self._scopes[-1][node.target.id] = annotated
        if annotated:
            self.uses.append(Use(annotated.module, "", annotated.name, (), -1, self._where(node)))
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for left, right in pairs:
                found = self._infer(right)
                if isinstance(left, ast.Name):
                    self._scopes[-1].pop(left.id, None)
                    if found:
                        self._scopes[-1][left.id] = found
                elif (
                    isinstance(left, ast.Attribute)
                    and isinstance(left.value, ast.Name)
                    and left.value.id == "self"
                ):
                    if found and left.attr not in self._own:
                        self._own[left.attr] = found
                else:
                    self.visit(left)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        scope: dict[str, Type] = {}
        for argument in (*node.args.args, *node.args.kwonlyargs):
            annotated = self._annotation(argument.annotation)
            if annotated:
                scope[argument.arg] = annotated
            elif argument.arg in MODULES and ast.unparse(argument.annotation or ast.Constant(0)) == "Any":
                scope[argument.arg] = Type("module", MODULES[argument.arg])
        self._scopes.append(scope)
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            found = self._infer(base)
            if found is None or found.kind != "class":
                continue
            self.uses.append(Use(found.module, "", found.name, (), -1, self._where(node)))
            theirs = self.apis[found.module][found.name]["members"]
            for method in node.body:
                if (
                    isinstance(method, ast.FunctionDef)
                    and method.name in theirs
                    and method.name != "__init__"
                ):
                    use = Use(found.module, found.name, method.name, (), -1, self._where(method))
                    self.overrides.append((use, tuple(a.arg for a in method.args.args[1:])))
        self.generic_visit(node)


def uses_in(paths: Iterator[Path], apis: Mapping[str, API]) -> list[Walker]:
    """One walker a file that names any of the modules."""
    walkers = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if any(importer in text for importer in (*IMPORTERS, "import tensorrt", "import pycuda")):
            walkers.append(Walker(path, apis).walk())
    return walkers


def missing(use: Use, apis: Mapping[str, API]) -> str:
    """What is wrong with a use; "" if the API has it with these keywords."""
    api = apis[use.module]
    members = api if not use.owner else api.get(use.owner, {}).get("members", {})
    if use.owner and use.owner not in api:
        return f"no class {use.owner}"
    if use.name not in members:
        return f"no {use.owner or use.module}.{use.name}"
    if use.positional < 0:
        return ""
    described = members[use.name]
    if described["kind"] == "class":
        described = described.get("members", {}).get("__init__", {})
    overloads = described.get("signatures", [])
    for overload in overloads:
        names = overload["names"]
        free = any(name.startswith("*") for name in names)
        given = use.positional + len(use.keywords)
        if (free or (set(use.keywords) <= set(names) and given <= len(names))) and given >= overload[
            "required"
        ]:
            return ""
    if not overloads:  # a C function without a docstring: its name is all that can be checked
        return ""
    known = "; ".join(", ".join(overload["names"]) for overload in overloads)
    return f"{use.name} takes ({known}), not {use.positional} positional and {', '.join(use.keywords) or 'no keywords'}"


def listed(walkers: list[Walker], module: str) -> list[str]:
    """The names of a module in use, `Class.member` or `name`, those overridden included, sorted."""
    uses = [use for walker in walkers for use in (*walker.uses, *(pair[0] for pair in walker.overrides))]
    return sorted(
        {f"{use.owner}.{use.name}" if use.owner else use.name for use in uses if use.module == module}
    )
