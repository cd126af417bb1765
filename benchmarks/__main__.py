"""``ufuser bench <subcommand>``: every subcommand is a module with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ufuser.benchmarks import (
    calibration,
    compare,
    cost_command,
    energy,
    latency,
    peak,
    report,
    results,
    stream,
    video,
)
from ufuser.benchmarks.quality import command as quality
from ufuser.runtime.errors import InputError
from ufuser.runtime.pipes import ends_with_its_reader

BAD_INPUT = 2


def get_parser() -> argparse.ArgumentParser:
    """The command line; each subcommand sets ``run``, a function of the arguments to an exit code."""
    parser = argparse.ArgumentParser(prog="ufuser bench", description="Measure fusion networks.")
    subparsers = parser.add_subparsers(title="subcommands", required=True, metavar="SUBCOMMAND")
    for subcommand in (
        quality,
        cost_command,
        latency,
        peak,
        energy,
        compare,
        report,
        results,
        stream,
        calibration,
        video,
    ):
        subcommand.add_parser(subparsers)
    return parser


@ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; bad input is one line on stderr and exit code 2."""
    args = get_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except InputError as error:
        print(f"ufuser bench: {error}", file=sys.stderr)
        return BAD_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
