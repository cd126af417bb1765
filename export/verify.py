"""`ufuser verify A B [C …]` or `python export/verify.py`: the networks B, C, … compared with A."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ufuser.export.tolerances import LARGEST_ERROR, PARITY_SHAPES, PSNR_FLOOR
from ufuser.runtime.command import Parser, file_path, run_command
from ufuser.runtime.console import print_json
from ufuser.runtime.engines import ENGINES
from ufuser.runtime.engines.profiles import Extent
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.limits import require_threads
from ufuser.runtime.outputs import check_outputs, folders_of

if TYPE_CHECKING:
    from ufuser.export.comparison import Contender, Outcome
    from ufuser.export.fidelity import Difference, Sample

_SIZES = tuple("x".join(map(str, shape)) for shape in PARITY_SHAPES)


def get_parser(prog: str = "ufuser verify") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Compare networks with the first one: checkpoints, ONNX files of any precision, engines.",
        epilog=f"ENGINE is one of {', '.join(ENGINES)}. Exit code 0: all within tolerance; 1: one is not; 2: bad "
        f"input. `ufuser bench rounds` times the same networks.",
    )
    parser.add_argument(
        "first", metavar="A", help=".safetensors, [ENGINE:]model.onnx, model.engine or a shipped model's name"
    )
    parser.add_argument("others", metavar="B", nargs="+", help="likewise; each is compared with A")
    parser.add_argument(
        "--pairs",
        type=file_path,
        metavar="DIR",
        help="compare over DIR/ir, DIR/vi (default: synthetic pictures)",
    )
    parser.add_argument(
        "--list",
        type=file_path,
        metavar="FILE",
        help="stems, one a line, of the pairs of --pairs to compare over",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=_SIZES,
        metavar="BxHxW",
        help=f"of the synthetic pictures (default: {' '.join(_SIZES)})",
    )
    parser.add_argument(
        "--max-error", type=float, metavar="E", help=f"largest absolute error (default: fp32 {LARGEST_ERROR})"
    )
    parser.add_argument("--mean-error", type=float, metavar="E", help="mean absolute error")
    parser.add_argument(
        "--psnr",
        type=float,
        metavar="DB",
        help=f"least PSNR (default: fp16 {PSNR_FLOOR['fp16']:.0f}, int8 {PSNR_FLOOR['int8']:.0f})",
    )
    parser.add_argument("--heatmap", type=file_path, metavar="FILE.png", help="draw the largest difference")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    from ufuser.export.comparison import Tolerance, compare_all, open_contender
    from ufuser.export.fidelity import pairs_in, real_samples, synthetic_samples

    if args.threads is not None:
        require_threads(args.threads)
    if args.list is not None and args.pairs is None:
        raise InputError("expected --pairs too, the folder whose pairs it names", argument="list")
    if args.heatmap is not None and args.heatmap.suffix.lower() != ".png":
        raise InputError(f"heatmap={args.heatmap}: expected a name that ends in .png", argument="heatmap")
    models = [name for spec in (args.first, *args.others) for name in (spec, spec.partition(":")[2])]
    check_outputs({"heatmap": args.heatmap}, (*models, *folders_of(args.pairs), args.list))
    if args.heatmap is not None:
        require_writable(args.heatmap)
    shapes = [Extent.parse(text, "shapes").axes for text in args.shapes]
    given = Tolerance(args.max_error, args.mean_error, args.psnr)
    pairs = pairs_in(args.pairs, args.list) if args.pairs else None
    contenders = [open_contender(spec, args.threads) for spec in (args.first, *args.others)]

    def samples() -> Sequence[Sample]:
        return list(real_samples(pairs) if pairs else synthetic_samples(shapes))

    tolerance = None if given == Tolerance() else given
    outcomes = compare_all(contenders, samples, tolerance, args.heatmap)
    if args.json:
        print_json(_as_json(contenders[0], outcomes))
    else:
        over = f"{args.pairs}" if args.pairs else f"synthetic pictures of {', '.join(args.shapes)}"
        print(_table(contenders[0], outcomes, over))
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _table(first: Contender, outcomes: list[Outcome], over: str) -> str:
    lines = [f"Compared with {_described(first)} over {over}:"]
    for outcome in outcomes:
        verdict = f"FAIL: {'; '.join(outcome.failures)}" if outcome.failures else "pass"
        lines += [f"  {_described(outcome.contender)}", f"    {outcome.difference}", f"    {verdict}"]
    return "\n".join(lines)


def _described(one: Contender) -> str:
    nodes = f"{one.nodes} nodes" if one.nodes is not None else "no ONNX graph"
    return f"{one.label} ({one.precision}, {one.runs_on}, {one.size / 1e6:.2f} MB, {nodes})"


def _as_json(first: Contender, outcomes: list[Outcome]) -> dict[str, object]:
    def about(one: Contender) -> dict[str, object]:
        return {name: getattr(one, name) for name in ("label", "precision", "runs_on", "size", "nodes")}

    def finite(found: Difference) -> dict[str, object]:
        # JSON has no infinity.
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(found).items()
        }

    return {
        "reference": about(first),
        "compared": [
            about(o.contender) | finite(o.difference) | {"passed": not o.failures, "failures": o.failures}
            for o in outcomes
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
