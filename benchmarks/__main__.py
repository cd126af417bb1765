"""`ufuser bench`: a table of measurements, each imported only when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ufuser.runtime.command import Command, Parser, add_commands, run_command


def _bench(module: str, help: str) -> Command:
    return Command(f"ufuser.benchmarks.{module}", help, "bench")


COMMANDS = {
    "quality": _bench("quality.command", "quality metrics of fused pictures"),
    "cost": _bench(
        "cost_command", "parameters, MACs and bytes, published figures compared with recomputed ones"
    ),
    "latency": _bench("latency", "time models and engines against their peers"),
    "peak": _bench("peak", "measured peak of convolution and copy, and the share reached"),
    "energy": _bench("energy", "millijoules per frame, on a Jetson or an NVIDIA GPU"),
    "rounds": _bench("rounds", "time networks alternately in one process"),
    "islands": _bench("islands_command", "parts of a network that half precision breaks"),
    "compare": _bench("compare", "find slowdowns between two results files"),
    "report": _bench("report", "write results as one HTML page and as Markdown"),
    "schema": _bench("results", "write the JSON Schema of results files"),
    "stream": _bench("stream", "time a whole stream against its model alone"),
    "calibration": _bench("calibration", "measure `ufuser calibrate` against a known ground truth"),
    "video": _bench("video", "flicker, warping error, noise and grids of fused video"),
}


def get_parser(prog: str = "ufuser bench") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Measure fusion networks.")
    add_commands(parser, COMMANDS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one measurement; the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
