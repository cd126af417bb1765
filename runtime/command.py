"""The frame around every command: one line for bad input, exit codes of signals, pipes that break.

A room gives `get_parser(prog)`, whose parsers set `run`, a function of the parsed arguments to an exit code. Commands
are listed in tables; a command's module is imported only to run it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.remedies import how_to_install_extra

BAD_INPUT, INTERRUPTED = 2, 130
PIPE_BROKEN = 141
"""The exit code a shell reports for a program that SIGPIPE ended: 128 + 13."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, as any other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


@dataclass(frozen=True, slots=True)
class Command:
    """An entry of a table of commands."""

    module: str
    """Has `get_parser(prog)`."""
    help: str
    extra: str = "cpu"
    """The extra of the distribution that installs everything the command imports."""


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, Command]) -> None:
    """Let a parser dispatch to a table of commands, by name. Only the one that is run is imported."""
    action: Any = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", action=_LazyParsers
    )
    action.commands = commands
    for name, command in commands.items():
        action.add_parser(name, help=command.help, add_help=False)


if TYPE_CHECKING:
    _SubParsersAction = argparse._SubParsersAction[Any]
else:
    _SubParsersAction = argparse._SubParsersAction


class _LazyParsers(_SubParsersAction):
    """Replaces the empty parser of a command by that of its module when its name is found."""

    commands: Mapping[str, Command]

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        name = values[0]
        command = self.commands[name]
        namespace.extra_of_command = command.extra
        module = importlib.import_module(command.module)
        self._name_parser_map[name] = module.get_parser(f"{parser.prog} {name}")
        super().__call__(parser, namespace, values, option)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse the words and run the command.

    Args:
        parser: sets `run`, a function of the parsed arguments to an exit code.
        argv: None takes the words of the process.

    Returns:
        What `run` returns; 2 for bad input, reported in one line on stderr; 130 after Ctrl-C; 141 once nobody
        reads stdout or stderr any more. SIGTERM and SIGHUP raise SystemExit with 143 and 129, so that temporary
        files are removed.
    """
    _quiet_libraries()
    try:
        try:
            with _signals_unwind():
                return _run(parser, argv)
        finally:
            _flush(sys.stdout)  # here, where an error can be caught, and not at exit
    except BrokenPipeError:
        broken = [stream for stream in (sys.stdout, sys.stderr) if _is_broken(stream)]
        if not broken:  # another pipe, such as an encoder's
            raise
        for stream in broken:  # or Python complains again when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return PIPE_BROKEN


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    args = argparse.Namespace(extra_of_command="")
    try:
        parser.parse_args(argv, args)
        return int(args.run(args))
    except InputError as e:
        message = with_flag(e, vars(args))
    except ImportError as e:
        if (e.name or "").partition(".")[0] == "ufuser":  # a fault of this package, not of the installation
            raise
        extra = args.extra_of_command
        install = how_to_install_extra(extra) if extra else ""
        message = f"{first_line(e)} ({install}{'; ' if install else ''}`ufuser doctor` shows what is missing)"
    except KeyboardInterrupt as e:
        print(": ".join(["interrupted", *map(str, e.args)]), file=sys.stderr)
        return INTERRUPTED
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    return BAD_INPUT


def with_flag(error: InputError, options: Mapping[str, Any]) -> str:
    """The message of an error with the flag in place of the argument: `--sync x: expected …`.

    Args:
        error: may be about an argument of the library, and mention others in backticks.
        options: the parsed command line, by name. Arguments that are no options stay as they are.
    """
    message = re.sub(r"`(\w+)`", lambda m: _flag(m[1]) if m[1] in options else m[0], str(error))
    name = error.argument
    if name is None or name not in options:
        return message
    flag = _flag(name)
    text = re.match(rf"{name}=(['\"])(.*?)\1(?=[:, ])", message)
    if text:
        return f"{flag} {text[2]}{message[text.end() :]}"
    return re.sub(rf"^{name}(=?)", lambda m: f"{flag} " if m[1] else flag, message)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _quiet_libraries() -> None:
    """Keep decoders from printing beside our one-line errors. The user's own settings win."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        os.environ["OPENCV_LOG_LEVEL"] = "SILENT"  # read when OpenCV is imported
        if sys.modules.get("cv2") is not None:
            importlib.import_module("ufuser.runtime.opencv").silence()


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP: without it temporary files would stay behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A signal that is ignored (nohup) stays ignored.
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _exit_on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _flush(stream: TextIO | None) -> None:
    if stream is not None and not stream.closed:
        stream.flush()


def _is_broken(stream: Any) -> bool:
    """Whether this is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no stream, not a file, closed
        return False
