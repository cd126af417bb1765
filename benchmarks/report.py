"""`ufuser bench report --out DIR`: write the results as one self-contained HTML page and as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ufuser.benchmarks.quality.command import listed_names
from ufuser.benchmarks.results import merge, read, read_quality
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_folder
from ufuser.runtime.outputs import check_outputs

if TYPE_CHECKING:
    from ufuser.benchmarks.report_panels import Panel


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Write results as one HTML page and as Markdown.")
    parser.add_argument("--out", type=file_path, required=True, metavar="DIR")
    parser.add_argument(
        "--results",
        type=file_path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="files that latency, cost, peak and energy wrote with --json, all from one machine",
    )
    parser.add_argument(
        "--quality",
        nargs="+",
        action="extend",
        default=[],
        metavar="DATASET=FILE",
        help="file that quality wrote with --json, with the name of the data set as the papers print it",
    )
    parser.add_argument("--simulated", action="store_true", help="show fused pictures of simulated cameras")
    parser.add_argument(
        "--ir", type=file_path, metavar="DIR", help="show pictures of this folder and of --vi"
    )
    parser.add_argument("--vi", type=file_path, metavar="DIR")
    parser.add_argument(
        "--fused",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=DIR",
        help="further fused pictures to show",
    )
    parser.add_argument(
        "--list", type=file_path, metavar="FILE", help="stems of the pairs to show (default: three pairs)"
    )
    parser.add_argument(
        "--model", default="ufuser", help="model that fuses the shown pairs (default: ufuser)"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the report. Returns 0; raises InputError for bad input."""
    if not args.results:
        raise InputError("--results is missing: expected files that latency, cost, peak or energy wrote")
    qualities = _named(args.quality, "--quality")
    fused = _named(args.fused, "--fused")
    inputs = (*args.results, *qualities.values(), args.ir, args.vi, *fused.values(), args.list, args.model)
    from ufuser.benchmarks.report_page import FIGURES, PAGE, TWIN, write_report  # loads Matplotlib

    written = (args.out, args.out / FIGURES, args.out / PAGE, args.out / TWIN)
    check_outputs({"out": written}, inputs)
    require_folder(args.out)
    tables = tuple(read_quality(Path(file), name) for name, file in qualities.items())
    results = merge([read(path) for path in args.results])
    results = replace(results, quality=(*results.quality, *tables))
    write_report(args.out, results, _panels(args))
    print(f"{args.out / PAGE}\n{args.out / TWIN}")
    return 0


def _panels(args: argparse.Namespace) -> list[Panel]:
    if (args.ir is None) != (args.vi is None):
        raise InputError("--ir and --vi: expected both folders or none")
    if args.ir is None and (args.fused or args.list):
        raise InputError("--fused and --list show pictures of folders: expected --ir and --vi too")
    from ufuser.benchmarks.report_panels import from_folders, simulated

    shown = simulated(args.model) if args.simulated else []
    if args.ir is not None:
        fused = {name: Path(folder) for name, folder in _named(args.fused, "--fused").items()}
        names = listed_names(args.list) if args.list else None
        shown += from_folders(args.ir, args.vi, fused, names, args.model)
    return shown


def _named(specifications: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for specification in specifications:
        name, separator, value = specification.partition("=")
        if not (name and separator and value) or name in found:
            raise InputError(f"{option} {specification}: expected NAME=PATH with unique names")
        found[name] = value
    return found
