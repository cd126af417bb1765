"""`ufuser explain`: the parts of a fused picture, as pictures and numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import to_builtins

from ufuser.export.fnet_parts import FEATURES, PARTS
from ufuser.runtime.color import luma
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.console import print_json
from ufuser.runtime.contact_sheet import Layout, Row, contact_sheet
from ufuser.runtime.engines import Image
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, require_folder, write_bytes
from ufuser.runtime.images import as_uint8, read_image, write_image
from ufuser.runtime.outputs import check_outputs

if TYPE_CHECKING:
    from ufuser.export.explain import Explanation

_NAMES = {"unique_ir": "unique infrared", "common": "common", "unique_vi": "unique visible"}
_FILES = (
    *(f"{name}.png" for name in ("fused", "sheet", *PARTS, *FEATURES)),
    "explanation.json",
)
_EPILOG = """\
FNet's fused picture is the sum of three parts: unique to infrared, common to both pictures, unique to visible.
Files in --out: unique_ir.png, common.png and unique_vi.png (the parts; mid-grey is zero, one scale for all three),
features_ir.png, features_common.png and features_vi.png (the sparse features that the parts are made from: mean
magnitude over the 64 features of a pixel, one scale for all three), fused.png, sheet.png with all of them, and
explanation.json with the learnt thresholds.
"""


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Fuse a registered pair of pictures by FNet and show the parts of the fused picture.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ir", required=True, type=file_path, metavar="PATH", help="infrared picture")
    parser.add_argument(
        "--vi", required=True, type=file_path, metavar="PATH", help="visible picture of the same size"
    )
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="FOLDER", help="folder for the pictures"
    )
    parser.add_argument("--model", default="fnet", help="shipped model or ONNX file (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Fuse, write the parts and print the numbers. Raises InputError."""
    from ufuser.export.explain import explain

    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file: expected a folder")
    require_folder(args.out)
    check_outputs({"out": [args.out / name for name in _FILES]}, (args.ir, args.vi, args.model))
    ir, vi = read_image(args.ir), read_image(args.vi)
    found = explain(args.model, ir, vi, args.threads)
    limit, pictures = pictures_of(found)
    numbers = numbers_of(found, str(args.model), limit)
    make_folder(args.out)
    write_image(args.out / "fused.png", found.fused)
    for name, picture in pictures.items():
        write_image(args.out / f"{name}.png", as_uint8(picture))
    write_image(args.out / "sheet.png", sheet(found, luma(ir), luma(vi), pictures))
    write_bytes(args.out / "explanation.json", f"{json.dumps(numbers, indent=2)}\n".encode())
    if args.json:
        print_json(numbers)
    else:
        print("\n".join(lines(found, args.out)))
    return 0


def pictures_of(found: Explanation) -> tuple[float, dict[str, Image]]:
    """The end of the parts' scale, and all pictures by name, H×W float32 in [0, 1].

    Zero is mid-grey in parts and black in features; the strongest 0.1 % of the pixels are clipped.
    """
    limit = _end(found.parts)
    parts = {k: np.clip(0.5 + x / (2 * limit), 0, 1).astype(np.float32) for k, x in found.parts.items()}
    strongest = _end(found.features)
    features = {k: np.clip(x / strongest, 0, 1).astype(np.float32) for k, x in found.features.items()}
    return limit, {**parts, **features}


def _end(pictures: Mapping[str, Image]) -> float:
    return max(1e-6, *(float(np.percentile(np.abs(x), 99.9)) for x in pictures.values()))


def sheet(found: Explanation, ir: Any, vi: Any, pictures: Mapping[str, Image]) -> Any:
    """Rows of sources and fused picture, parts, and features, H×W×3 uint8."""
    rows = [
        Row((ir, luma(found.fused), vi), "infrared, fused, visible"),
        Row(
            tuple(pictures[name] for name in PARTS),
            "parts that add up to the fused picture; mid-grey is zero",
        ),
        Row(tuple(pictures[name] for name in FEATURES), "sparse features, mean magnitude"),
    ]
    return contact_sheet(["infrared", "common", "visible"], rows, Layout(tile_width=360))


def numbers_of(found: Explanation, model: str, limit: float) -> dict[str, object]:
    """The content of explanation.json."""
    return {
        "model": model,
        "parts_scale": round(limit, 6),
        "parts": {
            part: {
                "mean": round(float(found.parts[part].mean()), 6),
                "standard_deviation": round(float(found.parts[part].std()), 6),
                "features_kept": round(found.kept[part], 6),
                **to_builtins(found.thresholds[part]),
            }
            for part in PARTS
        },
    }


def lines(found: Explanation, out: Path) -> list[str]:
    """The numbers as text."""
    text = []
    for part in PARTS:
        learnt = found.thresholds[part]
        text += [
            f"{_NAMES[part]}: mean {found.parts[part].mean():+.3f}, standard deviation "
            f"{found.parts[part].std():.3f}, {found.kept[part]:.1%} of its features over the last threshold",
            f"  theta {' '.join(f'{x:.4f}' for x in learnt.theta)}   rho {' '.join(f'{x:.3f}' for x in learnt.rho)}",
        ]
    return [*text, f"pictures and explanation.json -> {out}"]
