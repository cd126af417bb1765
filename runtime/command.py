"""The frame around every command: one line for bad input, exit codes of signals, pipes that break.

A room gives `get_parser(prog)`, whose parsers set `run`, a function of the parsed arguments to an exit code. Commands
are listed in tables; a command's module is imported only to run it.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import re
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from ufuser.runtime.console import OutputLost, discard, standard_streams
from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.names import shown, wrong_name
from ufuser.runtime.processes import hide_credentials
from ufuser.runtime.remedies import how_to_install_extra
from ufuser.runtime.uri import mask

OUTPUT_LOST, BAD_INPUT, INTERRUPTED = 1, 2, 130
PIPE_BROKEN = 141
"""The exit code a shell reports for a program that SIGPIPE ended: 128 + 13."""
VERBOSE, TOKEN = "--verbose", "--token"


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, as any other bad input. Has the options of all commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument(VERBOSE, action="store_true", help="also show messages and warnings of libraries")

    def parse_known_args(
        self, args: Any = None, namespace: Any = None
    ) -> Any:  # by the parser of a command, too
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:  # here, so that the message names the help of that command
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


def file_path(text: str) -> Path:
    """Type of an argument that names a file or folder. Raises ArgumentTypeError for a name that none can have."""
    wrong = wrong_name(text)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return Path(text)


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
        What `run` returns; 1 where standard output takes no more, as on a full disk; 2 for bad input, reported in one
        line on stderr; 130 after Ctrl-C; 141 once nobody reads stdout or stderr any more. SIGTERM and SIGHUP raise
        SystemExit with 143 and 129, so that temporary files are removed.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    _learn_credentials(words)
    if argv is None:
        hide_credentials()
    with standard_streams(verbose=VERBOSE in words):
        try:
            try:
                with _signals_unwind():
                    return _run(parser, words)
            finally:
                sys.stdout.flush()  # here, where an error can be caught, and not at exit
        except KeyboardInterrupt:  # between two of the above
            return INTERRUPTED
        except OutputLost as e:
            discard(sys.stdout)
            print(f"error: cannot write to standard output: {e}", file=sys.stderr)
            return OUTPUT_LOST
        except BrokenPipeError:
            broken = [stream for stream in (sys.stdout, sys.stderr) if _is_broken(stream)]
            if not broken:  # another pipe, such as an encoder's
                raise
            for stream in broken:
                discard(stream)
            return PIPE_BROKEN


def _learn_credentials(words: Sequence[str]) -> None:
    """Let the last filter know the credentials in a command line, before it is parsed, and in the environment."""
    for text in (*words, *(value for value in os.environ.values() if "://" in value)):  # such as a proxy's
        KNOWN.learn(text)
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, is_whole, value = word.partition("=")
        secret = value if is_whole else following
        # Shortened and misspelt too: the error of the parser repeats them.
        is_token = (len(name) > len("--t") and TOKEN.startswith(name)) or difflib.get_close_matches(
            name, [TOKEN], 1, cutoff=0.8
        )
        if is_token and not secret.startswith("--"):
            KNOWN.learn_secret(secret)


def _run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    args = argparse.Namespace(extra_of_command="")
    try:
        _check_words(words)
        parser.parse_args(words, args)
        return int(args.run(args))
    except InputError as e:
        message = with_flag(e, vars(args))
    except OSError as e:
        if isinstance(e.filename, (str, bytes)):
            message = f"{shown(os.fsdecode(e.filename))}: {e.strerror}"
        elif e.errno in _DISK_FULL:
            message = f"cannot write: {e.strerror} (temporary files are in {tempfile.gettempdir()})"
        else:
            raise
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


def _check_words(words: Sequence[str]) -> None:
    """Raise InputError for words that hold a name which not every library takes: see `wrong_name`."""
    before = ""
    for word in words:
        wrong = wrong_name(word) if word else None
        if wrong:
            # The word itself may be a secret.
            place = before if before.startswith("-") else f"'{mask(shown(word))}'"
            raise InputError(f"{place}: {wrong}")
        before = word


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


def _is_broken(stream: Any) -> bool:
    """Whether this is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no stream, not a file, closed
        return False
