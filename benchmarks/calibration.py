"""`ufuser bench calibration`: error of `ufuser calibrate` against a known ground truth.

`sim`: two simulated cameras with exact geometry. `pairs`: registered real pictures; infrared is warped by a known
random homography and cropped to its middle, like a camera with a narrower view. `offset`: a registered pair of
videos; the time stamps of infrared are shifted.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Aligner, Calibration, Matrix, Points, Size
from ufuser.runtime.calibration.fit import Start, fit
from ufuser.runtime.calibration.grab import GrabRequest, grab_frames, grab_pairs
from ufuser.runtime.calibration.offset import Recording, find_offset
from ufuser.runtime.calibration.refine import refine
from ufuser.runtime.calibration.search import rough_start
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable, write_bytes
from ufuser.runtime.images import as_uint8, read_image
from ufuser.runtime.outputs import check_outputs, of_source
from ufuser.runtime.pairing import Side
from ufuser.runtime.sources import pictures_in
from ufuser.simulation import SimConfig
from ufuser.simulation.geometry import seen_by_other

Pair = tuple[NDArray[Any], NDArray[Any]]
LOST = 5.0
"""RMS error in pixels above which a calibration counts as failed."""
_KEPT = 0.9
"""Share of each side of the infrared picture that remains after cropping the warped border."""
_SIZE, _ASKEW = (640, 480), "fov=40&yaw=1&pitch=-0.7&roll=1.5&k1=-0.2"


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Measure ufuser calibrate against a known ground truth.")
    parser.add_argument("what", choices=("sim", "pairs", "offset"))
    parser.add_argument("--ir", help="folder of registered pictures, or a video")
    parser.add_argument("--vi", help="visible folder with the same names, or a video")
    parser.add_argument(
        "--count", type=int, default=20, help="number of calibrations, evenly spaced (default: 20)"
    )
    parser.add_argument(
        "--together", type=int, default=1, help="consecutive pairs per calibration (default: 1)"
    )
    parser.add_argument("--search", action="store_true", help="refine without a trusted start")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the figures to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.what != "sim" and (args.ir is None or args.vi is None):
        raise InputError(f"calibration {args.what}: expected --ir and --vi")
    if args.count < 1 or args.together < 1:
        raise InputError(f"--count {args.count} --together {args.together}: expected at least 1")
    sources = [of_source(text) for text in (args.ir, args.vi)]
    check_outputs({"json": args.json}, sources)
    if args.json:
        require_writable(args.json)
    figures = {"sim": simulated, "pairs": real, "offset": offsets}[args.what](args)
    if args.json:
        write_bytes(args.json, f"{json.dumps(figures, indent=2)}\n".encode())
    return 0


def simulated(args: argparse.Namespace) -> dict[str, Any]:
    """Measure `refine`, `points` and `offset` on the simulated street at 640x480 against its geometry."""
    vi, ir = SimConfig("visible", *_SIZE).view(), SimConfig.from_uri(f"sim://thermal?{_ASKEW}").view()
    points = _grid(_SIZE)
    truth = seen_by_other(vi, ir, points)
    seen = ((truth >= 0) & (truth <= np.asarray(_SIZE) - 1)).all(axis=1)
    points, truth = points[seen], truth[seen]
    start = rough_start(_SIZE, _SIZE)
    thermal = f"sim://thermal?bits=14&{_ASKEW}&seed={args.seed}"
    visible = f"sim://visible?seed={args.seed}"
    found = refine(grab_pairs(thermal, visible, GrabRequest(4, 4.0)), start).calibration
    refined, before = (_rms(each.to_infrared(points) - truth) for each in (found, start))
    print(f"refine, 4 pairs, nothing known: {before:.1f} -> {refined:.2f} px rms over the overlap")
    clicked = sorted(_clicks(points, truth, seed) for seed in range(args.count))
    middle, worst = statistics.median(clicked), clicked[-1]
    print(
        f"points, 36 clicks 1 px off, lens found too, {args.count} times: median {middle:.2f}, worst {worst:.2f} px rms"
    )
    half = "size=320x240"  # a calibration holds at any resolution of its aspect
    late = [
        (ms, _offset(f"{thermal}&{half}&offset={ms}ms", f"{visible}&{half}", found)) for ms in (-113, 37, 260)
    ]
    print("offset, 10 s at 320x240: " + ", ".join(f"{ms} ms found as {got:.1f}" for ms, got in late))
    return {"start_px": before, "refine_px": refined, "points_px": clicked, "offset_ms": late}


def real(args: argparse.Namespace) -> dict[str, Any]:
    """Measure `refine` on registered pictures with warped infrared."""
    rows: list[dict[str, Any]] = []
    for number, (name, group) in enumerate(_groups(args)):
        height, width = group[0][1].shape[:2]
        size = (round(width * _KEPT), round(height * _KEPT))
        middle = np.eye(3)
        middle[:2, 2] = (np.asarray(size) - (width, height)) / 2
        true = middle @ _move(np.random.default_rng((args.seed, number)), (width, height))
        start = Calibration((width, height), size, middle)
        row: dict[str, Any] = {"name": name, "before": _off(start, replace(start, homography=true))}
        try:
            found, own = (_refined(group, start, matrix, args.search) for matrix in (true, middle))
            row["after"] = _off(found, replace(start, homography=true))
            # The data itself is registered to one to three pixels: `own` is the result of refine without a warp.
            row["beside_unmoved"] = _off(
                found, replace(start, homography=true @ np.linalg.inv(middle) @ own.homography)
            )
        except InputError as e:
            row["refused"] = str(e)
        rows.append(row)
        print(
            ", ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else value for key, value in row.items()
            )
        )
    for key in ("before", "after", "beside_unmoved"):
        values = [row[key] for row in rows if key in row]
        if values:
            print(
                f"{key}: median {np.median(values):.2f}, p90 {np.quantile(values, 0.9):.2f} px rms over {len(values)}"
            )
    refused = sum("refused" in row for row in rows)
    lost = sum(row.get("after", 0.0) > LOST for row in rows)
    print(f"{refused} of {len(rows)} refused, {lost} ended more than {LOST:g} px off")
    return {"rows": rows, "refused": refused, "lost": lost}


def _refined(pairs: list[Pair], start: Calibration, move: Matrix, search: bool) -> Calibration:
    """Refine pairs whose infrared is warped."""
    moved = [(cv2.warpPerspective(ir, move, start.ir_size), vi) for ir, vi in pairs]
    return refine(moved, start, find_distortion=False, search=search).calibration


def offsets(args: argparse.Namespace) -> dict[str, Any]:
    """Measure `offset` on two videos: unchanged, with shifted infrared stamps, and with every third infrared frame."""
    frames = list(grab_frames(args.ir, args.vi, 60.0))
    rows = []
    for added, every in ((0, 1), (40, 1), (-73, 1), (150, 1), (0, 3), (40, 3)):
        ir, vi = Recording("ir"), Recording("vi")
        for side, frame, repeats in frames:
            if side == "vi":
                vi.push(frame, repeats)
            elif frame.sequence % every == 0:
                ir.push(replace(frame, timestamp=frame.timestamp + added / 1000), repeats)
        found = find_offset(ir, vi)
        rows.append(
            {"added_ms": added, "every": every, "found_ms": found.seconds * 1000, "frames": found.frames}
        )
        print(
            f"infrared {added} ms ahead, {found.frames[0]} and {found.frames[1]} frames: {found.seconds * 1000:.1f} ms "
            f"(± {found.uncertainty * 1000:.1f}), motion agrees by {found.agreement:.2f}"
        )
    return {"offsets": rows}


def _offset(ir: str, vi: str, calibration: Calibration) -> float:
    """Milliseconds that `ufuser calibrate offset --calibration` finds in ten seconds."""
    aligner = Aligner(calibration)
    recordings: dict[Side, Recording] = {
        "ir": Recording("ir", aligner, calibration.vi_size),
        "vi": Recording("vi", None, calibration.vi_size),
    }
    for side, frame, repeats in grab_frames(ir, vi, 10.0):
        recordings[side].push(frame, repeats)
    return find_offset(recordings["ir"], recordings["vi"]).seconds * 1000


def _clicks(points: Points, truth: Points, seed: int) -> float:
    """RMS error of a calibration from 36 points, one per cell of the overlap, each with a noise of one pixel."""
    rng = np.random.default_rng(seed)
    low, span = points.min(axis=0), np.ptp(points, axis=0) + 1
    cells = ((points - low) / span * 6).astype(int) @ (6, 1)
    picks = [rng.choice(np.flatnonzero(cells == c)) for c in range(36) if (cells == c).any()]
    vi, ir = (p[picks] + rng.normal(0, 1 / math.sqrt(2), (len(picks), 2)) for p in (points, truth))
    found = fit(Start(_SIZE, _SIZE), vi, ir, find_distortion=True)
    return _rms(Calibration(_SIZE, _SIZE, found.homography, None, found.ir_lens).to_infrared(points) - truth)


def _move(rng: np.random.Generator, size: Size) -> Matrix:
    """Random warp about the centre: up to 1.5 degrees, 2 % scale, 2 % translation and slight perspective."""
    rotation, scale = math.radians(rng.uniform(-1.5, 1.5)), rng.uniform(0.98, 1.02)
    dx, dy = rng.uniform(-0.02, 0.02, 2) * size[0]
    perspective = rng.uniform(-0.02, 0.02, 2) / size[0]
    cosine, sine = scale * math.cos(rotation), scale * math.sin(rotation)
    moved = np.asarray([[cosine, -sine, dx], [sine, cosine, dy], [*perspective, 1]])
    centre = np.asarray([[1, 0, size[0] / 2], [0, 1, size[1] / 2], [0, 0, 1]])
    return np.asarray(centre @ moved @ np.linalg.inv(centre), np.float64)


def _off(found: Calibration, true: Calibration) -> float:
    """RMS distance in pixels between two calibrations over the true overlap."""
    points = _grid(true.vi_size)
    places = true.to_infrared(points)
    seen = ((places >= 0) & (places <= np.asarray(true.ir_size) - 1)).all(axis=1)
    return _rms(found.to_infrared(points[seen]) - places[seen])


def _grid(size: Size) -> Points:
    ys, xs = np.mgrid[0 : size[1] : 8, 0 : size[0] : 8]
    return np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)


def _rms(apart: Points) -> float:
    return float(np.sqrt((apart**2).sum(axis=1).mean()))


def _groups(args: argparse.Namespace) -> Iterator[tuple[str, list[Pair]]]:
    left, right = ({p.stem: p for p in pictures_in(Path(folder))} for folder in (args.ir, args.vi))
    names = sorted(left.keys() & right.keys())
    groups = [names[k : k + args.together] for k in range(0, len(names), args.together)]
    for k in sorted({round(k) for k in np.linspace(0, len(groups) - 1, min(args.count, len(groups)))}):
        yield (
            groups[k][0],
            [(as_uint8(read_image(left[name])), as_uint8(read_image(right[name]))) for name in groups[k]],
        )
