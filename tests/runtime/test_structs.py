"""Settings files as structs: what fits, and the one line for what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import convert, load_json, parse_json, parse_toml, read_toml


class Optim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    steps: Annotated[int, msgspec.Meta(ge=1)]
    rate: float = 1e-4
    schedule: Literal["cosine", "halving"] = "cosine"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    optim: Optim
    names: tuple[str, ...] = ()
    limit: float | None = None


def test_what_fits_becomes_a_struct(tmp_path: Path) -> None:
    expected = Recipe(Optim(3), ("a",))
    (tmp_path / "r.toml").write_text('names = ["a"]\n[optim]\nsteps = 3\n', encoding="utf-8")
    (tmp_path / "r.json").write_text('{"names": ["a"], "optim": {"steps": 3}}', encoding="utf-8")
    assert convert(read_toml(tmp_path / "r.toml"), Recipe, "r.toml") == expected
    assert load_json(tmp_path / "r.json", Recipe) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": {"steps": "x"}}, "here: optim.steps is 'x': expected a whole number, got text"),
        ({"optim": {"steps": 0}}, "here: optim.steps is 0: expected a whole number >= 1"),
        ({"optim": {"steps": True}}, "here: optim.steps is True: expected a whole number, got true or false"),
        ({"optim": {"stesp": 1}}, "here: unknown key 'optim.stesp' (did you mean 'steps'?)"),
        (
            {"optim": {"steps": 1, "schedule": "x"}},
            "here: optim.schedule is 'x': expected one of cosine, halving",
        ),
        ({"optim": {"steps": 1}, "zzz": 1}, "here: unknown key 'zzz', expected optim, names, limit"),
        ({"optim": {}}, "here: the key 'optim.steps' is missing"),
        ({"optim": {"steps": 1}, "names": [1]}, "here: names[0] is 1: expected text, got a whole number"),
        ({"optim": {"steps": 1}, "limit": "x"}, "here: limit is 'x': expected a number, got text"),
        ([], "here: expected a table, got a list"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(values: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(values, Recipe, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = 1\x00", "a", "\ud800"])
def test_broken_toml_is_told_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="not TOML") as caught:
        parse_toml(text, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", b"\xff\xfe", "", "9" * 5000])
def test_broken_json_is_told_in_one_line(text: str | bytes) -> None:
    with pytest.raises(InputError, match="not JSON") as caught:
        parse_json(text, "here")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes("a = 'é'".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_toml(tmp_path / "latin.toml")
    for path in (tmp_path, tmp_path / "gone.toml", Path("a\0b"), Path("x" * 300)):
        with pytest.raises(InputError, match="cannot read"):
            read_toml(path)
