"""`ufuser bench rounds A B [C …]`: several networks timed alternately in one process.

The speed of a machine drifts: the ratio of two times holds only within one round.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np

from ufuser.export.fidelity import Network, synthetic_pair
from ufuser.runtime.command import Parser
from ufuser.runtime.console import print_json
from ufuser.runtime.engines import ENGINES
from ufuser.runtime.engines.profiles import Extent
from ufuser.runtime.errors import InputError

_WARM_UP = 2


@dataclass(frozen=True)
class Timing:
    """Times of one network."""

    p50_ms: float
    p95_ms: float
    times_first: float  # median over the rounds of the first network's time divided by this one's


def time_rounds(networks: Sequence[Network], shape: tuple[int, int, int], rounds: int) -> list[Timing]:
    """Run all networks in every round; copies in and out are included in the times.

    Args:
        networks: one or more; ratios are to the first.
        shape: batch, height, width.
        rounds: after two that are not counted.
    """
    ir, vi = synthetic_pair(shape)
    seconds = np.empty((rounds, len(networks)))
    for number in range(-_WARM_UP, rounds):
        for column, network in enumerate(networks):
            began = perf_counter()
            network(ir, vi)
            if number >= 0:
                seconds[number, column] = perf_counter() - began
    ratios = np.median(seconds[:, :1] / seconds, axis=0)
    p50, p95 = np.percentile(seconds, (50, 95), axis=0) * 1e3
    return [Timing(float(a), float(b), float(c)) for a, b, c in zip(p50, p95, ratios, strict=True)]


def get_parser(prog: str = "ufuser bench rounds") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Time networks alternately in one process: checkpoints, ONNX files of any precision, engines.",
        epilog=f"ENGINE is one of {', '.join(ENGINES)}. `ufuser verify` compares the answers of the same networks.",
    )
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="NETWORK",
        help=".safetensors, [ENGINE:]model.onnx, model.engine or a shipped model's name",
    )
    parser.add_argument("--shape", default="1x480x640", metavar="BxHxW", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each network (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    for name in ("rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: expected 1 or more", argument=name)
    shape = Extent.parse(args.shape, "shape")
    from ufuser.export.comparison import open_contender  # with onnx

    contenders = [open_contender(spec, args.threads) for spec in args.networks]
    timings = time_rounds([c.run for c in contenders], shape.axes, args.rounds)
    if args.json:
        labels = [{"label": c.label, "runs_on": c.runs_on, "precision": c.precision} for c in contenders]
        print_json([a | asdict(b) for a, b in zip(labels, timings, strict=True)])
        return 0
    print(f"{args.rounds} rounds at {args.shape}, {args.threads or 'all'} threads:")
    for one, timing in zip(contenders, timings, strict=True):
        print(
            f"  {one.label} ({one.precision}, {one.runs_on}): p50 {timing.p50_ms:.1f} ms, p95 {timing.p95_ms:.1f} ms, "
            f"{timing.times_first:.2f} times as fast as the first"
        )
    return 0
