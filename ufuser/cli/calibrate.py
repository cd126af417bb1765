"""`ufuser calibrate`: the geometry of two cameras from points, a board or the scene; a check; and the time offset."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ufuser.cli.calibrate_options import (
    BoardOptions,
    CheckOptions,
    OffsetOptions,
    PointsOptions,
    RefineOptions,
)
from ufuser.cli.options import add_flags, options_of
from ufuser.runtime.alignment import Aligner, Calibration, Size
from ufuser.runtime.calibration.board import Board, calibrate_board
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
from ufuser.runtime.console import print_json
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.images import require_image_suffix, write_image
from ufuser.runtime.options import Options
from ufuser.runtime.outputs import check_outputs, of_source

_FOV, _BASELINE = 50.0, 0.06
"""Degrees and metres that the parallax table assumes where they are not known."""


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Find the geometry and the time offset between an infrared and a visible camera, for `ufuser "
        "stream --calibration`. docs/calibration.md compares the methods.",
    )
    methods = parser.add_subparsers(title="methods", required=True, metavar="METHOD")

    def add(
        name: str,
        text: str,
        kind: type[Options],
        run: Callable[[argparse.Namespace], int],
        as_json: bool = True,
    ) -> None:
        method = methods.add_parser(name, help=text)
        add_flags(method, kind)
        if as_json:
            method.add_argument("--json", action="store_true", help="print the result as JSON")
        method.set_defaults(run=run)

    add("points", "from points that are clicked or listed in a file", PointsOptions, run_points)
    add("board", "from pictures of a chessboard or a grid of circles", BoardOptions, run_board)
    add("refine", "from edges that both cameras see", RefineOptions, run_refine)
    add("check", "draw a picture to check a calibration with", CheckOptions, run_check, as_json=False)
    add("offset", "find the time offset between the cameras, from motion", OffsetOptions, run_offset)
    return parser


def run_points(args: argparse.Namespace) -> int:
    """`calibrate points`. Raises InputError."""
    options = options_of(args, PointsOptions)
    require_writable(Path(options.out))
    check_outputs({"out": options.out}, (*_sources(options), options.start, options.points))
    known = None if options.start is None else Calibration.load(options.start)
    pair = None
    if options.ir is not None and options.vi is not None:
        pair = grab_pairs(options.ir, options.vi, GrabRequest(pairs=1, seconds=1.0))[0]
    sizes = _sizes(options, pair, known)
    if options.points is not None:
        vi, ir = read_points(Path(options.points))
    elif pair is not None:
        vi, ir = click_points(*pair)
    else:
        raise InputError("no points: expected --points FILE, or --ir and --vi to click on")
    require_inside(vi, sizes[0], "visible")
    require_inside(ir, sizes[1], "infrared")
    start = Start(*sizes) if known is None else Start.of(known.scaled(*sizes))
    found = fit(start, vi, ir, find_distortion=options.lens)
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
        notes.append("few points: the residual says little about the rest of the picture")
    return _finish(args, options, calibration, notes)


def run_board(args: argparse.Namespace) -> int:
    """`calibrate board`. Raises InputError."""
    options = options_of(args, BoardOptions)
    require_writable(Path(options.out))
    check_outputs({"out": options.out}, _sources(options))
    board = Board(*_size(options.board), options.spacing, options.pattern)
    pairs = grab_pairs(options.ir, options.vi, GrabRequest(pairs=40, seconds=60))
    found = calibrate_board(pairs, board, options.distance)
    infrared, visible = found.rms
    note = f"board found in {found.used} pairs; lenses alone {infrared:.2f} px infrared, {visible:.2f} px visible"
    return _finish(args, options, found.calibration, [note])


def run_refine(args: argparse.Namespace) -> int:
    """`calibrate refine`. Raises InputError."""
    options = options_of(args, RefineOptions)
    require_writable(Path(options.out))
    check_outputs({"out": options.out}, (*_sources(options), options.start))
    known = None if options.start is None else Calibration.load(options.start)
    request = GrabRequest(options.pairs, options.seconds)
    pairs = grab_pairs(options.ir, options.vi, request, (known and known.offset_s) or 0.0)
    ir_size, vi_size = (_size_of(image) for image in pairs[0])
    if known is not None:
        start = known.scaled(vi_size, ir_size)
    elif not options.search and (options.vi_fov is None or options.ir_fov is None):
        raise InputError("--no-search needs a start: expected --start, or --vi-fov and --ir-fov")
    else:
        start = rough_start(vi_size, ir_size, options.vi_fov, options.ir_fov)
    found = refine(pairs, start, find_distortion=options.lens, search=options.search)
    note = f"edges agree by {found.agreement:.2f} (0 by chance); look at it: ufuser calibrate check"
    return _finish(args, options, found.calibration, [note])


def run_check(args: argparse.Namespace) -> int:
    """`calibrate check`. Raises InputError."""
    options = options_of(args, CheckOptions)
    out = Path(options.out)
    require_image_suffix(out)
    require_writable(out)
    check_outputs({"out": options.out}, (*_sources(options), options.calibration))
    known = Calibration.load(options.calibration)
    request = GrabRequest(options.pairs, options.seconds)
    pairs = grab_pairs(options.ir, options.vi, request, known.offset_s or 0.0)
    ir, vi = pairs[-1]
    calibration = known.scaled(_size_of(vi), _size_of(ir))
    residual, agreement = left_over(pairs, calibration)
    text = f"edges agree by {agreement:.2f}; to agree best they would move {residual.median:.1f} px (median)"
    write_image(out, check_picture(ir, vi, calibration, text))
    print(f"{text} -> {out}")
    return 0


def run_offset(args: argparse.Namespace) -> int:
    """`calibrate offset`. Raises InputError."""
    options = options_of(args, OffsetOptions)
    # The calibration itself may be the output: the offset is added to it.
    check_outputs({"out": options.out}, _sources(options))
    if options.out is not None:
        if options.calibration is None:
            raise InputError("--out writes the calibration with the offset in it: expected --calibration too")
        require_writable(Path(options.out))
    known = None if options.calibration is None else Calibration.load(options.calibration)
    recordings: dict[str, Recording] = {}
    for side, frame, repeats in grab_frames(options.ir, options.vi, options.seconds):
        if side not in recordings:
            size = _size_of(frame.image) if known is None else known.vi_size
            recordings[side] = Recording(side, None if known is None else Aligner(known), size)
        recordings[side].push(frame, repeats)
    if len(recordings) < 2:
        raise InputError("a camera gave no frames: expected two recordings of the same time")
    found = find_offset(recordings["ir"], recordings["vi"])
    if known is not None and options.out is not None:
        replace(known, offset_s=found.seconds).save(Path(options.out))
    if args.json:
        result = {
            "offset_ms": found.seconds * 1000,
            "uncertainty_ms": found.uncertainty * 1000,
            "agreement": found.agreement,
            "frames": list(found.frames),
        }
        print_json(result)
        return 0
    ahead = "ahead of" if found.seconds >= 0 else "behind"
    use = f" -> {options.out}" if options.out else f": ufuser stream --ir-offset={found.seconds:.4f}"
    print(
        f"infrared stamps are {abs(found.seconds) * 1000:.1f} ms {ahead} visible ones "
        f"(± {found.uncertainty * 1000:.1f} ms, motion agrees by {found.agreement:.2f}){use}"
    )
    return 0


_Saved = PointsOptions | BoardOptions | RefineOptions


def _finish(args: argparse.Namespace, options: _Saved, calibration: Calibration, notes: list[str]) -> int:
    """Add the measures from the command line, save, and print."""
    baseline = None if isinstance(options, BoardOptions) else options.baseline
    fov = None if isinstance(options, BoardOptions) else options.vi_fov
    calibration = replace(
        calibration,
        distance_m=options.distance if options.distance is not None else calibration.distance_m,
        baseline_m=baseline if baseline is not None else calibration.baseline_m,
    )
    calibration.save(Path(options.out))
    if args.json:
        print_json({**calibration.as_json(), "notes": notes, "out": options.out})
        return 0
    (vw, vh), (iw, ih), fitted = calibration.vi_size, calibration.ir_size, calibration.residual
    residual = (
        f": residual {fitted.rms:.2f} px rms, {fitted.largest:.2f} px largest, over {fitted.count}"
        if fitted
        else ""
    )
    print(f"visible {vw}x{vh}, infrared {iw}x{ih}{residual} -> {options.out}")
    for note in notes:
        print(f"note: {note}")
    print(_parallax(calibration, fov))
    return 0


def _parallax(calibration: Calibration, fov: float | None) -> str:
    """The table, and what it assumes."""
    assumed = []
    if calibration.vi_lens is not None:
        focal = float(calibration.vi_lens.matrix[0, 0])
    else:
        if fov is None:
            fov = _FOV
            assumed.append(f"{_FOV:g} degrees across the visible picture (--vi-fov)")
        focal = calibration.vi_size[0] / 2 / math.tan(math.radians(fov) / 2)
    baseline = calibration.baseline_m
    if baseline is None:
        baseline = _BASELINE
        assumed.append(f"cameras {_BASELINE * 100:g} cm apart (--baseline)")
    met = calibration.distance_m
    where = "far away (give their distance with --distance)" if met is None else f"at {met:g} m"
    assuming = f", assuming {' and '.join(assumed)}" if assumed else ""
    rows = table(focal, baseline, math.inf if met is None else met)
    return f"parallax with both pictures meeting {where}{assuming}:\n{rows}"


def _sources(
    options: PointsOptions | BoardOptions | RefineOptions | CheckOptions | OffsetOptions,
) -> list[Path | None]:
    """Files and folders that are read as pictures."""
    return [of_source(options.ir), of_source(options.vi)]


def _sizes(
    options: PointsOptions, pair: tuple[NDArray[Any], NDArray[Any]] | None, known: Calibration | None
) -> tuple[Size, Size]:
    """Visible and infrared size, from pictures, options or a calibration."""
    if pair is not None:
        return _size_of(pair[1]), _size_of(pair[0])
    if options.vi_size is not None and options.ir_size is not None:
        return _size(options.vi_size), _size(options.ir_size)
    if known is not None:
        return known.vi_size, known.ir_size
    raise InputError(
        "the sizes of the pictures are not known: expected --ir and --vi, or --ir-size and --vi-size"
    )


def _size(text: str) -> Size:
    """Two numbers of a text whose option has checked it."""
    width, height = text.split("x")
    return int(width), int(height)


def _size_of(image: NDArray[Any]) -> Size:
    return image.shape[1], image.shape[0]
