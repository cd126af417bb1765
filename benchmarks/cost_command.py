"""`ufuser bench cost`: costs of the networks, printed and recomputed."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from ufuser.benchmarks import published
from ufuser.benchmarks.names import named_models
from ufuser.benchmarks.results import Audited, Cost, OperatorShare, Results, write
from ufuser.benchmarks.sizes import Size, as_text, parse_size, parse_sizes
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.files import require_writable
from ufuser.runtime.models import find_model
from ufuser.runtime.outputs import check_outputs

if TYPE_CHECKING:
    from ufuser.benchmarks.cost import GraphCost

_MIB = 1 << 20
_WIDTH = 116


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog, description="Parameters, MACs and bytes; printed figures compared with recomputed ones."
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["ufuser"],
        metavar="[NAME=]MODEL",
        help="shipped models or ONNX files, and the names of their rows (default: ufuser)",
    )
    parser.add_argument(
        "--sizes", default="264x400,480x640", metavar="HxW,…", help="(default: 264x400,480x640)"
    )
    parser.add_argument("--no-audit", action="store_true", help="count the models only; needs no PyTorch")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the figures to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Count and print. Returns 0; raises InputError for bad input."""
    from ufuser.benchmarks.audit import audit  # with onnx
    from ufuser.benchmarks.cost import cost_of

    sizes = parse_sizes(args.sizes)
    models = [(name, find_model(m)) for name, m in named_models(args.models, "--models").items()]
    check_outputs({"json": args.json}, args.models)
    if args.json:
        require_writable(args.json)
    costs = [as_result(name, size, cost_of(path, *size)) for name, path in models for size in sizes]
    rows = [] if args.no_audit else audit(models, sizes)
    for cost in costs:
        print(cost_text(cost))
    if not args.no_audit:
        for size in sizes:
            print(audit_text([row for row in rows if row.size == size], size))
        print(not_recomputed_text())
    if args.json:
        counter = {} if args.no_audit else {"torch": version("torch")}
        write(
            args.json,
            Results.here({"onnx": version("onnx")} | counter, cost=tuple(costs), audit=tuple(rows)),
        )
    return 0


def as_result(model: str, size: Size, cost: GraphCost) -> Cost:
    """Convert a count to the form of the results file."""
    shares = tuple(
        OperatorShare(
            operator,
            sum(o.operator == operator for o in cost.operators),
            total.macs,
            total.bytes_read + total.bytes_written,
        )
        for operator, total in cost.by_operator().items()
    )
    return Cost(
        model,
        size,
        cost.parameters,
        cost.macs,
        cost.bytes_moved,
        cost.peak_activation_bytes,
        shares,
    )


def cost_text(cost: Cost) -> str:
    """Text for one model at one size, with the operators that matter."""
    lines = [
        f"{cost.model} at {as_text(cost.size)}: {cost.parameters / 1e3:.1f} K weights, {cost.macs / 1e9:.3f} GMACs "
        f"({2 * cost.macs / 1e9:.3f} GFLOPs), {cost.bytes_moved / _MIB:.0f} MiB moved, "
        f"activations up to {cost.peak_activation_bytes / _MIB:.1f} MiB",
        f"  {'operator':20s} {'nodes':>5s} {'GMACs':>9s} {'MiB moved':>10s}",
    ]
    for o in cost.operators:
        if o.macs >= 0.001 * cost.macs or o.bytes_moved >= 0.01 * cost.bytes_moved:
            lines.append(f"  {o.operator:20s} {o.nodes:5d} {o.macs / 1e9:9.3f} {o.bytes_moved / _MIB:10.1f}")
    return "\n".join(lines) + "\n"


def audit_text(rows: Sequence[Audited], size: Size) -> str:
    """Printed and recomputed figures at one size, with a reason below each flagged one."""
    from ufuser.benchmarks.audit import PARAMETERS, TOLERANCE

    table = published.load("fnet_1_cost")
    scaled = "" if size == parse_size(table.resolution) else ", printed figures scaled by the pixels"
    lines = [
        f"Printed ({table.printed_as}, {table.gpu}) against recomputed at {as_text(size)}{scaled}",
        f"  {'':34s} {'':15s} {'printed':>9s} {'recomputed':>11s} {'difference':>12s}",
    ]
    said = ""
    for row in rows:
        title = f"{row.network} ({row.definition})" if row.quantity == PARAMETERS else ""
        flag = "!" if abs(row.difference) > TOLERANCE else " "
        lines.append(
            f"{flag} {title:34s} {row.quantity:15s} {row.printed:9.2f} {row.recomputed:11.3f} {row.difference:+12.1%}"
        )
        if row.reason and row.reason != said:
            lines += textwrap.wrap(row.reason, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
            said = row.reason
    return "\n".join(lines) + "\n"


def not_recomputed_text() -> str:
    """Printed rows of networks that this package does not define, with a plausibility figure."""
    from ufuser.benchmarks.audit import weights_used

    table = published.load("fnet_1_cost")
    size = parse_size(table.resolution)
    lines = [
        "Printed operations per weight and pixel: 1 if every weight is used once per pixel, less at lower",
        "resolutions, more if weights are reused. Only EMMA and FNet are recomputed above.",
        f"  {'':12s} {'weights K':>10s} {'printed G':>10s} {'per weight and pixel':>21s}",
    ]
    lines += [
        f"  {row['method']:12s} {row['params_k']:>10s} {row['flops_g']:>10s} {weights_used(row, size):21.3f}"
        for row in table.rows
    ]
    return "\n".join(lines)
