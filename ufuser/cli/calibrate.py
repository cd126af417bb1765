"""`ufuser calibrate`: how two cameras lie to each other, from points, a board or the scene; checked, and in time."""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ufuser.runtime.alignment import Aligner, Calibration, Residual, Size
from ufuser.runtime.calibration.board import PATTERNS, Board, calibrate_board
from ufuser.runtime.calibration.check import check_picture
from ufuser.runtime.calibration.clicking import click_points
from ufuser.runtime.calibration.fit import FEWEST_FOR_LENS, Start, fit
from ufuser.runtime.calibration.grab import GrabRequest, grab_frames, grab_pairs
from ufuser.runtime.calibration.offset import Recording, find_offset
from ufuser.runtime.calibration.parallax import table
from ufuser.runtime.calibration.points import read_points, require_inside
from ufuser.runtime.calibration.refine import left_over, refine
from ufuser.runtime.calibration.search import rough_start
from ufuser.runtime.command import Parser
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.images import require_image_suffix, write_image

_FOV, _BASELINE = 50.0, 0.06
"""Degrees and metres the parallax table assumes, and says so, where they are not known."""


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Find how an infrared and a visible camera lie to each other. The file is for "
        "`ufuser stream --calibration`. docs/calibration.md tells which way suits when.",
    )
    commands = parser.add_subparsers(title="ways", required=True, metavar="WAY")

    points = commands.add_parser("points", help="from points clicked, or listed in a file")
    points.add_argument("--points", type=Path, metavar="FILE", help="CSV or JSON: vi_x,vi_y,ir_x,ir_y")
    points.add_argument("--ir", metavar="PICTURE", help="infrared picture, to click on; or for its size")
    points.add_argument("--vi", metavar="PICTURE", help="visible picture")
    points.add_argument("--ir-size", metavar="WxH", help="instead of --ir, with --points")
    points.add_argument("--vi-size", metavar="WxH", help="instead of --vi")
    points.add_argument("--lens", action="store_true", help="find the bend of the infrared lens as well")
    _add_common(points, run_points, start="known lenses, from `board`")

    board = commands.add_parser("board", help="from pictures of a chessboard or a grid of circles")
    _add_sources(board, "folder")
    board.add_argument("--board", required=True, metavar="CxR", help="inner corners or circles, such as 9x6")
    board.add_argument("--spacing", required=True, type=float, metavar="M", help="metres between neighbours")
    board.add_argument("--pattern", default="chess", help=f"{' or '.join(PATTERNS)} (default: %(default)s)")
    _add_common(board, run_board)

    refining = commands.add_parser("refine", help="from the edges both cameras see, from a rough start")
    _add_sources(refining, "picture, folder, video or camera")
    _add_time(refining, pairs=4, seconds=10.0)
    refining.add_argument(
        "--ir-fov", type=float, metavar="DEG", help="infrared degrees across, for the start"
    )
    refining.add_argument("--no-lens", action="store_true", help="keep the infrared lens as the start has it")
    refining.add_argument(
        "--no-search", action="store_true", help="trust the start to a twentieth of the picture"
    )
    _add_common(refining, run_refine, start="where to begin, else both pictures are laid on each other")

    check = commands.add_parser("check", help="a picture to judge a calibration by")
    _add_sources(check, "picture, folder, video or camera")
    _add_time(check, pairs=1, seconds=1.0)
    check.add_argument("--calibration", required=True, metavar="FILE", help="to be judged")
    check.add_argument("--out", required=True, type=Path, metavar="PNG", help="the picture")
    check.set_defaults(run=run_check)

    offset = commands.add_parser("offset", help="the fixed time between both cameras, from what moves")
    _add_sources(offset, "video or camera")
    offset.add_argument("--seconds", type=float, default=20.0, help="recording (default: %(default)s)")
    offset.add_argument("--calibration", metavar="FILE", help="of the two cameras: else both see the same")
    offset.add_argument("--out", type=Path, metavar="FILE", help="the calibration with the offset in it")
    offset.add_argument("--json", action="store_true", help="print the result as JSON")
    offset.set_defaults(run=run_offset)
    return parser


def _add_sources(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--ir", required=True, metavar="URI", help=f"infrared: a {what}")
    parser.add_argument("--vi", required=True, metavar="URI", help="visible: of the same kind")


def _add_time(parser: argparse.ArgumentParser, pairs: int, seconds: float) -> None:
    parser.add_argument(
        "--pairs", type=int, default=pairs, metavar="N", help="of a video or camera (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="to take them from (default: %(default)s)"
    )


def _add_common(parser: argparse.ArgumentParser, run: Any, start: str = "") -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the calibration, JSON")
    if start:
        parser.add_argument("--start", metavar="FILE", help=f"a calibration: {start}")
    parser.add_argument("--distance", type=float, metavar="M", help="metres at which both pictures meet")
    if run is not run_board:
        parser.add_argument("--baseline", type=float, metavar="M", help="metres between the cameras")
        parser.add_argument("--vi-fov", type=float, metavar="DEG", help="visible degrees across")
    parser.add_argument("--json", action="store_true", help="print the calibration as JSON")
    parser.set_defaults(run=run)


# The ways


def run_points(args: argparse.Namespace) -> int:
    """`calibrate points`. Raises InputError."""
    _check_measures(args)
    require_writable(args.out)
    known = None if args.start is None else Calibration.load(args.start)
    pair = None
    if args.ir is not None and args.vi is not None:
        pair = grab_pairs(args.ir, args.vi, GrabRequest(pairs=1, seconds=1.0))[0]
    sizes = _sizes(args, pair, known)
    if args.points is not None:
        vi, ir = read_points(args.points)
    elif pair is not None:
        vi, ir = click_points(*pair)
    else:
        raise InputError("nothing to take points from: expected --points FILE, or --ir and --vi to click on")
    require_inside(vi, sizes[0], "visible")
    require_inside(ir, sizes[1], "infrared")
    start = Start(*sizes)
    if known is not None:
        start = Start.of(known.scaled(*sizes))
    found = fit(start, vi, ir, find_distortion=args.lens)
    calibration = Calibration(
        *sizes,
        homography=found.homography,
        vi_lens=start.vi_lens,
        ir_lens=found.ir_lens,
        method="points",
        residual=found.residual,
        baseline_m=known.baseline_m if known is not None else None,
        offset_s=known.offset_s if known is not None else None,
    )
    notes = [
        f"point {n + 1} is {found.distances[n]:.1f} px off and was left out"
        for n in range(len(vi))
        if not found.inliers[n]
    ]
    if found.inliers.sum() < FEWEST_FOR_LENS:
        notes.append("few points: the residual says little about the places between them")
    return _finish(args, calibration, notes)


def run_board(args: argparse.Namespace) -> int:
    """`calibrate board`. Raises InputError."""
    _check_measures(args)
    require_writable(args.out)
    columns, rows = _size(args.board, "--board", "9x6")
    board = Board(columns, rows, args.spacing, args.pattern)
    found = calibrate_board(
        grab_pairs(args.ir, args.vi, GrabRequest(pairs=40, seconds=60)), board, args.distance
    )
    infrared, visible = found.rms
    note = f"board found in {found.used} pairs; lenses alone {infrared:.2f} px infrared, {visible:.2f} px visible"
    return _finish(args, found.calibration, [note])


def run_refine(args: argparse.Namespace) -> int:
    """`calibrate refine`. Raises InputError."""
    _check_measures(args)
    require_writable(args.out)
    known = None if args.start is None else Calibration.load(args.start)
    pairs = grab_pairs(
        args.ir, args.vi, GrabRequest(args.pairs, args.seconds), (known and known.offset_s) or 0.0
    )
    ir_size, vi_size = ((image.shape[1], image.shape[0]) for image in pairs[0])
    if known is not None:
        start = known.scaled(vi_size, ir_size)
    elif args.no_search and (args.vi_fov is None or args.ir_fov is None):
        raise InputError("--no-search has nothing to begin with: expected --start, or --vi-fov and --ir-fov")
    else:
        start = rough_start(vi_size, ir_size, args.vi_fov, args.ir_fov)
    found = refine(pairs, start, find_distortion=not args.no_lens, search=not args.no_search)
    note = f"edges agree by {found.agreement:.2f} (0 by chance); look at it: ufuser calibrate check"
    return _finish(args, found.calibration, [note])


def run_check(args: argparse.Namespace) -> int:
    """`calibrate check`. Raises InputError."""
    require_image_suffix(args.out)
    require_writable(args.out)
    known = Calibration.load(args.calibration)
    pairs = grab_pairs(args.ir, args.vi, GrabRequest(args.pairs, args.seconds), known.offset_s or 0.0)
    ir, vi = pairs[-1]
    calibration = known.scaled((vi.shape[1], vi.shape[0]), (ir.shape[1], ir.shape[0]))
    residual, agreement = left_over(pairs, calibration)
    says = f"edges agree by {agreement:.2f}; to agree best they would move {residual.median:.1f} px (median)"
    write_image(args.out, check_picture(ir, vi, calibration, says))
    print(f"{says} -> {args.out}")
    return 0


def run_offset(args: argparse.Namespace) -> int:
    """`calibrate offset`. Raises InputError."""
    if args.out is not None:
        if args.calibration is None:
            raise InputError("--out writes the calibration with the offset in it: expected --calibration too")
        require_writable(args.out)
    GrabRequest(seconds=args.seconds)
    known = None if args.calibration is None else Calibration.load(args.calibration)
    recordings: dict[str, Recording] = {}
    vi_size: Size | None = None if known is None else known.vi_size
    for side, frame, repeats in grab_frames(args.ir, args.vi, args.seconds):
        if side not in recordings:
            size = vi_size or (frame.image.shape[1], frame.image.shape[0])
            recordings[side] = Recording(side, None if known is None else Aligner(known), size)
        recordings[side].push(frame, repeats)
    if len(recordings) < 2:
        raise InputError("a side gave no frames: expected two recordings of one time")
    found = find_offset(recordings["ir"], recordings["vi"])
    if known is not None and args.out is not None:
        replace(known, offset_s=found.seconds).save(args.out)
    if args.json:
        result = {
            "offset_ms": found.seconds * 1000,
            "uncertainty_ms": found.uncertainty * 1000,
            "agreement": found.agreement,
            "frames": list(found.frames),
        }
        print(json.dumps(result, indent=2))
        return 0
    ahead = "ahead of" if found.seconds >= 0 else "behind"
    print(
        f"infrared stamps are {abs(found.seconds) * 1000:.1f} ms {ahead} visible ones "
        f"(± {found.uncertainty * 1000:.1f} ms, motion agrees by {found.agreement:.2f})"
        + (f" -> {args.out}" if args.out is not None else f": ufuser stream --ir-offset={found.seconds:.4f}")
    )
    return 0


# What they share


def _finish(args: argparse.Namespace, calibration: Calibration, notes: list[str]) -> int:
    """Complete, write and tell."""
    baseline = getattr(args, "baseline", None)
    calibration = replace(
        calibration,
        distance_m=args.distance if args.distance is not None else calibration.distance_m,
        baseline_m=baseline if baseline is not None else calibration.baseline_m,
    )
    calibration.save(args.out)
    if args.json:
        print(json.dumps({**calibration.as_json(), "notes": notes, "out": str(args.out)}, indent=2))
        return 0
    (vw, vh), (iw, ih) = calibration.vi_size, calibration.ir_size
    print(f"visible {vw}x{vh}, infrared {iw}x{ih}{_told(calibration.residual)} -> {args.out}")
    for note in notes:
        print(f"note: {note}")
    print(_parallax(args, calibration))
    return 0


def _told(residual: Residual | None) -> str:
    if residual is None:
        return ""
    return f": residual {residual.rms:.2f} px rms, {residual.largest:.2f} px largest, over {residual.count}"


def _parallax(args: argparse.Namespace, calibration: Calibration) -> str:
    """The table, and what it assumes."""
    width, assumed = calibration.vi_size[0], []
    fov = getattr(args, "vi_fov", None)
    if calibration.vi_lens is not None:
        focal = float(calibration.vi_lens.matrix[0, 0])
    else:
        if fov is None:
            fov = _FOV
            assumed.append(f"{_FOV:g} degrees across the visible picture (--vi-fov)")
        focal = width / 2 / math.tan(math.radians(fov) / 2)
    baseline = calibration.baseline_m
    if baseline is None:
        baseline = _BASELINE
        assumed.append(f"cameras {_BASELINE * 100:g} cm apart (--baseline)")
    met = calibration.distance_m if calibration.distance_m is not None else math.inf
    where = f"{met:g} m" if math.isfinite(met) else "far away"
    told = f", assuming {' and '.join(assumed)}" if assumed else ""
    return (
        f"parallax with both pictures meeting at {where} (--distance){told}:\n{table(focal, baseline, met)}"
    )


def _check_measures(args: argparse.Namespace) -> None:
    for name in ("distance", "baseline"):
        value = getattr(args, name, None)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value:g}: expected metres above 0")
    for name in ("vi_fov", "ir_fov"):
        value = getattr(args, name, None)
        if value is not None and not 1 <= value <= 170:
            raise InputError(f"--{name.replace('_', '-')} {value:g}: expected degrees from 1 to 170")


def _sizes(args: argparse.Namespace, pair: Any, known: Calibration | None) -> tuple[Size, Size]:
    """Visible and infrared size, from pictures, options or a calibration."""
    if pair is not None:
        return (pair[1].shape[1], pair[1].shape[0]), (pair[0].shape[1], pair[0].shape[0])
    if args.vi_size is not None and args.ir_size is not None:
        return _size(args.vi_size, "--vi-size", "640x480"), _size(args.ir_size, "--ir-size", "640x512")
    if known is not None:
        return known.vi_size, known.ir_size
    raise InputError(
        "the sizes of the pictures are not known: expected --ir and --vi, or --ir-size and --vi-size"
    )


def _size(text: str, option: str, example: str) -> Size:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None or "0" in match.groups():
        raise InputError(f"{option} {text}: expected two whole numbers, such as {example}")
    return int(match.group(1)), int(match.group(2))
