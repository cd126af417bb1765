"""`ufuser bench islands`: the parts of a network that half precision breaks.

Each float32 island is removed in turn, and each other part made one. Half precision is that of a GPU's tensor cores,
simulated on the CPU: the result of every operator is rounded to 16 bits, products are summed in float32.
"""

from __future__ import annotations

import argparse

from ufuser.export.tolerances import PSNR_FLOOR
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.engines.profiles import Extent
from ufuser.runtime.errors import InputError


def get_parser(prog: str = "ufuser bench islands") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("checkpoint", type=file_path, help="shipped weights by name, or a safetensors file")
    parser.add_argument(
        "--pairs", type=file_path, required=True, metavar="DIR", help="real pairs, DIR/ir, DIR/vi"
    )
    parser.add_argument(
        "--list", type=file_path, metavar="FILE", help="stems, one a line, of the pairs of --pairs to use"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use each N-th of these pairs")
    parser.add_argument("--crop", metavar="HxW", help="the middle of each (default: whole pictures)")
    parser.add_argument(
        "--extremes",
        default="1x480x640",
        metavar="BxHxW",
        help="size of black, white and noise (default: %(default)s)",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    from ufuser.benchmarks.islands import extremes, findings, middle
    from ufuser.export.fidelity import pairs_in, real_samples
    from ufuser.train.checkpoint import find_checkpoint, load_model

    if args.every < 1:
        raise InputError(f"every={args.every}: expected 1 or more", argument="every")
    _, height, width = Extent.parse(args.extremes, "extremes").axes
    crop = Extent.parse(args.crop, "crop").axes if args.crop else None
    model, _ = load_model(find_checkpoint(args.checkpoint, "checkpoint", "fusion"))
    pairs = list(real_samples(pairs_in(args.pairs, args.list)[:: args.every]))
    if crop:
        pairs = [middle(sample, *crop[1:]) for sample in pairs]
    groups = {"pairs": pairs, "extremes": extremes(height, width)}
    floor = PSNR_FLOOR["fp16"]
    for name, samples in groups.items():
        print(f"{args.checkpoint}, {len(samples)} {name}, worst picture against fp32 (floor {floor:.0f} dB):")
        for f in findings(model, samples):
            d = f.difference
            print(
                f"  {d.lowest_psnr_db:6.1f} dB, largest {d.largest:.1e}  {f.change} ({f.count})", flush=True
            )
    return 0
