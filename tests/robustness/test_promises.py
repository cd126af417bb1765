"""Promises of docs/reliability.md that no room tests by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITER = (
    "import sys; from pathlib import Path; from ufuser.runtime.files import write_bytes\n"
    "for _ in range(40): write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 1_000_000)\n"
)


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), letter], stderr=subprocess.PIPE, text=True
        )
        for letter in "ab"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            seen.add(target.read_bytes())
    for writer in writers:
        _, said = writer.communicate()
        # Refusing the second is right as well.
        assert writer.returncode == 0 or "InputError" in said, said
    seen.add(target.read_bytes())
    assert seen <= {letter * 1_000_000 for letter in (b"a", b"b")}
    assert [path.name for path in tmp_path.iterdir() if ".partial" in path.name] == []
