"""The page of promises names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMISE = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_promise_has_its_test() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("## Damaged")[0].splitlines() if line.startswith("| ")]
    promises = rows[1:]
    assert len(promises) > 15
    for row in promises:
        named = PROMISE.findall(row)
        assert named, f"no test: {row}"
        for file, test in named:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file} has no {test}"
