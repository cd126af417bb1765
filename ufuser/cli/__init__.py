"""The command `ufuser`: a table of commands, each imported only when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ufuser.runtime.command import Command, Parser, add_commands, run_command

COMMANDS = {
    "fuse": Command("ufuser.cli.fuse", "fuse two pictures, folders or videos"),
    "stream": Command("ufuser.cli.stream", "fuse two live cameras"),
    "demo": Command("ufuser.cli.demo", "fuse a simulated pair of cameras"),
    "calibrate": Command("ufuser.cli.calibrate", "find the geometry and the time offset between two cameras"),
    "doctor": Command("ufuser.cli.doctor", "check what this machine lacks, and how to get it"),
    "explain": Command(
        "ufuser.cli.explain", "show which part of a fused picture comes from which camera (FNet)", "explain"
    ),
    "train": Command("ufuser.train.__main__", "train networks, import released weights", "train"),
    "export": Command("ufuser.export.to_onnx", "export a checkpoint to ONNX", "export,cpu"),
    "build": Command("ufuser.export.to_tensorrt", "build a TensorRT engine for this machine", "tensorrt"),
    "verify": Command("ufuser.export.verify", "compare checkpoints, ONNX files and engines", "export,cpu"),
    "bench": Command("ufuser.benchmarks.__main__", "measure quality, latency and cost", "bench"),
}


def get_parser(prog: str = "ufuser") -> Parser:
    """The parser of `ufuser` itself."""
    parser = Parser(prog=prog, description="Fuse infrared and visible pictures and video.")
    parser.add_argument("--version", action="version", version=f"ufuser {installed_version()}")
    add_commands(parser, COMMANDS)
    return parser


def installed_version() -> str:
    """The version of the distribution, or "not installed" when run from a bare checkout."""
    try:
        return version("ufuser")
    except PackageNotFoundError:
        return "not installed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code, as `run_command` describes it."""
    return run_command(get_parser(), argv)


# Former names of three commands.


def export() -> int:
    """`ufuser-export`."""
    return main(["export", *sys.argv[1:]])


def build() -> int:
    """`ufuser-build`."""
    return main(["build", *sys.argv[1:]])


def verify() -> int:
    """`ufuser-verify`."""
    return main(["verify", *sys.argv[1:]])
