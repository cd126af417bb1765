"""Commands whose output nobody reads to the end, through their entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ufuser.runtime.pipes import READER_GONE, ends_with_its_reader

ROOT = Path(__file__).resolve().parents[2]
FNET = ROOT / "runtime" / "weights" / "fnet.onnx"


def without_reader(words: list[str], **environment: str) -> tuple[int, str]:
    """The exit code and what is said on stderr when stdout is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        (["-m", "ufuser", "doctor"], ""),
        (["-m", "ufuser", "fuse", "--help"], ""),
        (["-m", "ufuser.benchmarks", "cost", "--models", "fnet", "--no-audit"], "1"),
        (["-m", "ufuser.export.to_tensorrt", "--onnx", str(FNET), "--dry-run"], ""),
    ],
    ids=["doctor", "help", "cost", "dry-run"],
)
def test_a_command_ends_quietly_with_its_reader(words: list[str], unbuffered: str) -> None:
    assert without_reader(words, PYTHONUNBUFFERED=unbuffered) == (READER_GONE, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    @ends_with_its_reader
    def main(argv: object) -> int:
        raise BrokenPipeError("the encoder has died")

    with pytest.raises(BrokenPipeError, match="encoder"):
        main(None)


def test_every_command_of_the_project_does_so() -> None:
    """`train`, which imports nothing of ours, apart."""
    from ufuser import cli
    from ufuser.benchmarks import __main__ as bench
    from ufuser.export import islands, to_onnx, to_tensorrt, verify

    for module in (bench, islands, to_onnx, to_tensorrt, verify, cli):
        assert hasattr(module.main, "__wrapped__"), module
