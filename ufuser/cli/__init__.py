"""The command `ufuser`: a module a subcommand, with `add_parser(subparsers)` and `run(args) -> exit code`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType, ModuleType
from typing import NoReturn

from ufuser.cli import doctor
from ufuser.runtime.errors import InputError
from ufuser.runtime.pipes import ends_with_its_reader

try:
    import cv2
except ImportError as e:  # not installed, or without a library of the system's
    COMMANDS: tuple[ModuleType, ...] = (doctor,)
    OPENCV_FAILURE = str(e).splitlines()[0]
else:
    from ufuser.cli import calibrate, demo, explain, fuse, stream

    COMMANDS = (fuse, stream, explain, calibrate, demo, doctor)
    OPENCV_FAILURE = ""

BAD_INPUT, INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like any other bad input."""

    def error(self, message: str) -> NoReturn:
        if OPENCV_FAILURE:
            message = (
                f"OpenCV cannot be imported ({OPENCV_FAILURE}), only `ufuser doctor` works: it tells more"
            )
        self.exit(BAD_INPUT, f"error: {message} ({self.prog} --help tells what there is)\n")


def get_parser() -> argparse.ArgumentParser:
    """The command line; each subcommand sets `run`."""
    parser = _Parser(prog="ufuser", description="Fuse infrared and visible pictures and video.")
    parser.add_argument("--version", action="version", version=f"ufuser {installed_version()}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def installed_version() -> str:
    """The version of the distribution, or "not installed" when run from a bare checkout."""
    try:
        return version("ufuser")
    except PackageNotFoundError:
        return "not installed"


@ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for bad input, told in one line on stderr; 130 when interrupted. Files that were being written
        are removed in both cases.
    """
    _quiet_libraries()
    args = get_parser().parse_args(argv)
    try:
        with _stopped_by_exception():
            code: int = args.run(args)
    except InputError as e:
        print(f"error: {' '.join(str(e).splitlines())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def _quiet_libraries() -> None:
    """Keep the decoders from talking beside our own one-line errors. The user's own settings win."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ and not OPENCV_FAILURE:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@contextmanager
def _stopped_by_exception() -> Iterator[None]:
    """Let SIGTERM unwind the program: a service manager's stop would leave temporary files behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
