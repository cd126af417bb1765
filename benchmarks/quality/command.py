"""`ufuser bench quality`: a table of fusion methods on a folder of pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ufuser.benchmarks.names import named_models
from ufuser.benchmarks.quality import ssim, table
from ufuser.benchmarks.quality.baselines import BASELINES
from ufuser.benchmarks.quality.folder import Fuse, Options, holds_raw_counts, match, means, measure
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable, write_bytes
from ufuser.runtime.images import read_names
from ufuser.runtime.outputs import check_outputs


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Measure fused pictures against their sources and print a table of methods, best first.",
    )
    parser.add_argument(
        "--ir",
        type=file_path,
        required=True,
        metavar="DIR",
        help="infrared pictures; raw counts are tone mapped",
    )
    parser.add_argument(
        "--vi", type=file_path, required=True, metavar="DIR", help="visible pictures, read as grey luma"
    )
    parser.add_argument(
        "--fused",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=DIR",
        help="name of a method and the folder of its fused pictures; may be repeated",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]MODEL",
        help="shipped model or ONNX file that fuses the pairs now, and the name of its row; may be repeated",
    )
    parser.add_argument(
        "--list", type=file_path, metavar="FILE", help="file names to measure, one per line (default: all)"
    )
    parser.add_argument(
        "--json", type=file_path, metavar="FILE", help="write the means and the values of every pair"
    )
    parser.add_argument("--csv", type=file_path, metavar="FILE", help="write the table")
    parser.add_argument("--no-baselines", action="store_true", help=f"leave out {', '.join(BASELINES)}")
    parser.add_argument(
        "--stretch",
        action="store_true",
        help="stretch every fused picture to 0..255 first, as EMMA's published ones are",
    )
    parser.add_argument(
        "--ssim",
        choices=ssim.CONVENTIONS,
        default="uniform",
        help="; ".join(f"{name}: {convention}" for name, convention in ssim.CONVENTIONS.items())
        + " (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.set_defaults(run=run)
    return parser


def _fused_folders(specifications: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for specification in specifications:
        name, separator, folder = specification.partition("=")
        if not (name and separator and folder):
            raise InputError(
                f"--fused was given {specification}; NAME=DIR is expected: put a name before the folder"
            )
        _claim(name, folders, "--fused")
        folders[name] = Path(folder)
    return folders


def _claim(name: str, taken: dict[str, Path], option: str) -> None:
    if name in taken or name in BASELINES:
        raise InputError(
            f"{option} was given the name {name}, which another row or baseline has: choose a unique name"
        )


def listed_names(path: Path) -> list[str]:
    """The names of a `--list`, at least one. Raises InputError."""
    names = read_names(path)
    if not names:
        raise InputError(f"--list was given {path}, which holds no names; one name per line is expected")
    return names


def _open_models(models: Sequence[str], folders: dict[str, Path]) -> dict[str, Fuse]:
    """Open each model, by name."""
    named = named_models(models, "--model", (*folders, *BASELINES))
    if not named:
        return {}
    from ufuser.runtime.fuser import Fuser  # late: measuring files needs no inference engine

    return {name: Fuser.open(model=model).fuse for name, model in named.items()}


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the files. Returns 0; raises InputError for bad input."""
    folders = _fused_folders(args.fused)
    if not folders and not args.model and args.no_baselines:
        raise InputError(
            "there is nothing to measure; --fused NAME=DIR, --model or the baselines are expected"
        )
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers was given {args.workers}; 1 or more is expected")
    read = (args.ir, args.vi, *folders.values(), *args.model, args.list)
    check_outputs({"json": args.json, "csv": args.csv}, read)
    for path in (args.json, args.csv):
        if path is not None:
            require_writable(path)
    names = listed_names(args.list) if args.list is not None else None
    pairs, left_out = match(args.ir, args.vi, folders, names)
    options = Options(not args.no_baselines, args.stretch, ssim.CONVENTIONS[args.ssim])
    if left_out:
        print(
            f"{len(pairs)} names are common to all folders; {left_out} others are left out", file=sys.stderr
        )
    if raw := sum(map(holds_raw_counts, pairs)):
        print(f"{raw} infrared pictures hold raw counts: tone mapped to 8 bits", file=sys.stderr)

    measured = measure(pairs, options, _open_models(args.model, folders), args.workers)
    rows = table.with_mean_rank(means(measured))
    fused_pictures = "stretched to 0..255 each" if options.stretched else "as given, not stretched"
    notes = [
        f"{len(pairs)} pairs; fused pictures {fused_pictures}; MI and CE in nats",
        f"SSIM: {options.ssim_convention}",
    ]
    print(table.to_text(rows, notes))
    if args.json is not None:
        conventions = {
            "pairs": len(pairs),
            "fused_pictures": fused_pictures,
            "ssim": str(options.ssim_convention),
        }
        write_bytes(args.json, table.to_json(rows, measured, conventions).encode())
    if args.csv is not None:
        write_bytes(args.csv, table.to_csv(rows).encode())
    return 0
