"""The frame around every command: errors, missing packages, signals, pipes without a reader."""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ufuser.runtime.command import PIPE_BROKEN, Command, Parser, add_commands, run_command, with_flag
from ufuser.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FNET = ROOT / "runtime" / "weights" / "fnet.onnx"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
Run = Callable[[argparse.Namespace], int]


def running(run: Run) -> Parser:
    """A parser with two options that runs a function."""
    parser = Parser(prog="test")
    parser.add_argument("--max-skew", type=float)
    parser.add_argument("--sync")
    parser.set_defaults(run=run)
    return parser


def raising(error: BaseException) -> Run:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("message", "argument", "in_library", "on_command_line"),
    [
        ("sync='x': expected a or b", "sync", "sync='x': expected a or b", "--sync x: expected a or b"),
        ("sync='a: b': no", "sync", "sync='a: b': no", "--sync a: b: no"),
        ("max_skew=-1: expected 0 or more", "max_skew", "max_skew=-1: expected 0 or more",
         "--max-skew -1: expected 0 or more"),
        ("expected a or b", "sync", "sync: expected a or b", "--sync: expected a or b"),
        ("expected a or b", "other", "other: expected a or b", "other: expected a or b"),
        ("expected `max_skew` or `x`", None, "expected `max_skew` or `x`", "expected --max-skew or `x`"),
        ("no file sync", None, "no file sync", "no file sync"),
    ],
)  # fmt: skip
def test_an_error_names_the_argument_and_the_command_line_the_flag(
    message: str,
    argument: str | None,
    in_library: str,
    on_command_line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = InputError(message, argument)
    assert str(error) == in_library
    assert with_flag(error, {"sync": None, "max_skew": None}) == on_command_line
    assert run_command(running(raising(error)), []) == 2
    assert capsys.readouterr().err == f"error: {on_command_line}\n"


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(running(lambda args: 0), ["--gone"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --gone (see test --help)\n"


def test_a_missing_package_is_one_line_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ufuser_test_command.py").write_text("import gone_package\n", encoding="utf-8")
    parser = Parser(prog="test")
    add_commands(parser, {"go": Command("ufuser_test_command", "goes", "tensorrt")})
    assert run_command(parser, ["go"]) == 2
    assert capsys.readouterr().err == (
        "error: No module named 'gone_package' (pip install \"ufuser[tensorrt]\"; `ufuser doctor` shows what is "
        "missing)\n"
    )


def test_a_missing_module_of_this_package_is_a_fault() -> None:
    with pytest.raises(ImportError):
        run_command(running(raising(ImportError("no", name="ufuser.runtime.gone"))), [])


def test_an_interruption_may_bring_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(running(raising(KeyboardInterrupt())), []) == 130
    assert run_command(running(raising(KeyboardInterrupt("--resume goes on"))), []) == 130
    assert capsys.readouterr().err == "interrupted\ninterrupted: --resume goes on\n"


@POSIX
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_unwind(number: int, code: int) -> None:
    """A `finally` runs, so that temporary files are removed."""
    script = textwrap.dedent(
        """
        import os, signal, sys, time
        from ufuser.runtime.command import Parser, run_command

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background

        def run(args):
            try:
                os.kill(os.getpid(), int(args.number))
                time.sleep(30)
            finally:
                print("removed")

        parser = Parser()
        parser.add_argument("number")
        parser.set_defaults(run=run)
        sys.exit(run_command(parser))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(int(number))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "removed\n"), done.stderr


@POSIX
def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        seen = []
        run_command(running(lambda args: seen.append(signal.getsignal(signal.SIGHUP)) or 0), [])
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGHUP, before)


# Pipes


def without_reader(words: list[str], **environment: str) -> tuple[int, str]:
    """The exit code and stderr of a command whose stdout is a pipe that nobody reads."""
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


@POSIX
@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        (["-m", "ufuser", "doctor"], ""),
        (["-m", "ufuser", "fuse", "--help"], ""),
        (["-m", "ufuser.benchmarks", "cost", "--models", "fnet", "--no-audit"], "1"),
        (["-m", "ufuser", "build", "--onnx", str(FNET), "--dry-run"], ""),
    ],
    ids=["doctor", "help", "cost", "dry-run"],
)
def test_a_command_ends_quietly_when_nobody_reads_its_output(words: list[str], unbuffered: str) -> None:
    assert without_reader(words, PYTHONUNBUFFERED=unbuffered) == (PIPE_BROKEN, "")


def test_another_broken_pipe_is_an_error() -> None:
    with pytest.raises(BrokenPipeError, match="encoder"):
        run_command(running(raising(BrokenPipeError("the encoder has died"))), [])


def test_no_error_of_the_runtime_names_a_flag() -> None:
    """Errors name arguments; commands in backticks, such as `ufuser build --onnx`, are no flags of the caller."""
    for path in (ROOT / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise):
                parts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
                message = re.sub("`[^`]*`", "", "".join(map(str, parts)))
                assert not re.search(r"(?<!\w)--[a-z]", message), f"{path}: {message}"
