"""The hooks of the documentation's build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
Hook = Callable[[str], ModuleType]


class Inner(msgspec.Struct, frozen=True):
    """An inner table."""

    rate: float = 0.5
    """Of the drops."""


class Settings(msgspec.Struct, frozen=True):
    """Settings."""

    steps: Annotated[int, msgspec.Meta(ge=1, description="How many.")]
    mode: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    sizes: tuple[int, int] | None = None  # height and width


def test_a_struct_becomes_a_table(hook: Hook) -> None:
    text = hook("reference").struct_as_markdown(Settings)
    assert "| <code>steps</code> | integer ≥ 1 | required | How many. |" in text
    assert "| <code>mode</code> | <code>a</code> or <code>b</code> | <code>a</code> |" in text
    assert "| <code>sizes</code> | 2 integers or null | none | height and width |" in text
    assert "**<code>inner</code>**: An inner table." in text
    assert "| <code>rate</code> | number | <code>0.5</code> | Of the drops. |" in text


def test_help_is_shown_literally(hook: Hook) -> None:
    assert hook("reference")._text("a|b <x> *y* `c|d`") == r"a&#124;b &lt;x&gt; \*y\* <code>c&#124;d</code>"


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        "<style>@import 'https://fonts.example/x.css'</style>",
        "<img src=https://img.example/x.png>",
        '<pre class="mermaid">',
    ],
)
def test_other_hosts_are_found(page: str, hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f"<html>{page}</html>", encoding="utf-8")
    assert len(hook("offline").loaded_from_elsewhere(tmp_path)) == 1


def test_links_that_load_nothing_are_allowed(hook: Hook, tmp_path: Path) -> None:
    page = '<a href="https://example.org">x</a><link rel="canonical" href="https://example.org/"><img src="a.png">'
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    assert hook("offline").loaded_from_elsewhere(tmp_path) == []


def test_a_diagram_is_read_and_drawn(hook: Hook) -> None:
    diagram = hook("diagram")
    nodes, edges = diagram.graph('flowchart TD\n  a["one<br>more"]\n  b["two"]\n  a --> b\n')
    assert nodes == {"a": "one<br>more", "b": "two"}
    assert edges == [("a", "b")]
    drawing = diagram.drawn(nodes, edges)
    assert drawing.count("<rect") == 2
    assert drawing.count('class="edge"') == 1
    assert "a imports b" in drawing


@pytest.mark.parametrize("source", ["flowchart TD\n  a -.-> b\n", 'flowchart TD\n  a["x"]\n  a --> b\n'])
def test_a_diagram_that_cannot_be_drawn_is_refused(source: str, hook: Hook) -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError):
        hook("diagram").graph(source)


def test_an_upward_edge_is_refused(hook: Hook) -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match="points up"):
        hook("diagram").drawn({"a": "a", "b": "b"}, [("b", "a")])


def test_the_package_is_linked_by_its_import_names(hook: Hook, tmp_path: Path) -> None:
    hook("package").link_package(ROOT, tmp_path)
    assert (tmp_path / "ufuser/__init__.py").samefile(ROOT / "ufuser/__init__.py")
    assert (tmp_path / "ufuser/runtime/fuser.py").samefile(ROOT / "runtime/fuser.py")
