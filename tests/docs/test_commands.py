"""The commands and files that the documentation shows exist."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.name != "report.md"]  # reports show the commands of their day
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`(ufuser [^`]+)`(?!`)")
PATH = re.compile(
    r"(?<![\w/.-])((?:train|export|runtime|simulation|benchmarks|tests|examples|docs|\.ci)/[\w./-]*\w)"
)


@pytest.fixture(scope="session")
def commands(hook: Callable[[str], ModuleType]) -> dict[str, ArgumentParser]:
    pytest.importorskip("torch", reason="the parser of `ufuser train` needs it")
    found: dict[str, ArgumentParser] = hook("reference").commands()
    return found


def in_blocks(text: str) -> Iterator[str]:
    """The commands of bash blocks, on one line each."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split("&&"))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_blocks_parse(page: Path, commands: dict[str, ArgumentParser]) -> None:
    for line in in_blocks(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        if words[:1] != ["ufuser"] or "…" in "".join(words):
            continue
        name = leaf_of(words, commands)
        assert parses(commands[name], words[len(name.split()) :]), f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_options_in_the_text_exist(page: Path, commands: dict[str, ArgumentParser]) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [line for line in in_blocks(text) if line.startswith("ufuser ")]
    for line in [*lines, *(" ".join(span.split()) for span in SPAN.findall(text))]:
        words = line.partition(" #")[0].split()
        name = leaf_of(words, commands)
        matching = [parser for key, parser in commands.items() if f"{key} ".startswith(f"{name} ")]
        known = {option for parser in matching for option in parser._option_string_actions} | {"--version"}
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in known, f"{page.name}: {line}"


def parses(parser: ArgumentParser, arguments: list[str]) -> bool:
    try:
        parser.parse_args(arguments)
    except SystemExit as e:  # 0: --help, --version
        return e.code == 0
    return True


def leaf_of(words: list[str], commands: dict[str, ArgumentParser]) -> str:
    """The command, or group of commands, that a command line begins with."""
    name = words[0]
    for word in words[1:]:
        if name in commands or word.startswith(("-", "…")):
            break
        name = f"{name} {word}"
        assert any(f"{key} ".startswith(f"{name} ") for key in commands), f"no such command: {name}"
    return name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_exist(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        for path in PATH.findall(code):
            assert (ROOT / path).exists() or list(ROOT.glob(f"{path}*")), f"{page.name} names {path}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / link).exists(), link


def test_included_files_are_where_the_pages_say() -> None:
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    included = [line for text in pages for line in text.splitlines() if re.match(r"-+ ?8", line)]
    assert included
    for line in included:  # ruff formats Python blocks of Markdown, and would take the marker apart
        path = re.fullmatch(r'--8<-- "(.+)"', line)
        assert path, line
        assert (ROOT / path[1]).is_file()


def test_every_command_is_described(
    commands: dict[str, ArgumentParser], hook: Callable[[str], ModuleType]
) -> None:
    page = hook("reference").commands_as_markdown()
    for name, parser in commands.items():
        assert re.search(rf"^##+ {name}$", page, re.MULTILINE)
        for option in set(parser._option_string_actions) - {"-h", "--help"}:
            assert f"{option} " in page or f"{option}<" in page, f"{name} {option}"


def test_the_start_page_shows_the_commands_of_the_readme() -> None:
    promised = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if " && " in line
    ]
    promised = [line for line in promised if line.startswith("pip install -e ")]
    start = (ROOT / "docs/index.md").read_text(encoding="utf-8").splitlines()
    assert len(promised) == 2
    assert set(promised) <= set(start)
