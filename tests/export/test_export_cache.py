"""The cache of exports that these tests share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.export_cache import ROOT, ExportCache


def test_an_entry_is_made_once_for_each_key(tmp_path: Path) -> None:
    made: list[Path] = []

    def export(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text(str(len(made)))

    first = ExportCache(tmp_path)("net", ["a", b"b"], export)
    again = ExportCache(tmp_path)("net", ["a", b"b"], export)
    other = ExportCache(tmp_path)("net", ["ab"], export)
    assert first == again != other
    assert [(folder / "x").read_text() for folder in (first, other)] == ["1", "2"]


def test_an_export_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        ExportCache(tmp_path)("net", [], fail)
    entry = ExportCache(tmp_path)("net", [], lambda folder: None)
    assert list(entry.iterdir()) == []


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from tests.export.export_cache import ExportCache\n"
        "def export(folder):\n"
        f"    with open({str(tmp_path / 'made')!r}, 'a') as made: made.write('x')\n"
        "    time.sleep(0.3); (folder / 'x').write_text('whole')\n"
        f"print((ExportCache(Path({str(tmp_path / 'cache')!r}))('net', [], export) / 'x').read_text())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in running] == ["whole\n"] * 2
    assert (tmp_path / "made").read_text() == "x"
