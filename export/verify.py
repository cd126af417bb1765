"""Compares networks: checkpoint, ONNX file of any precision on any engine, TensorRT engine.

Run as `ufuser-verify A B [C …]` or `python export/verify.py A B [C …]`: every other one against A.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from ufuser.export.fidelity import (
    Difference,
    Image,
    Sample,
    compare,
    pairs_in,
    real_samples,
    synthetic_samples,
    torch_network,
)
from ufuser.export.onnx_file import load_onnx
from ufuser.export.precision import PSNR_FLOOR
from ufuser.export.rounds import Timing, time_rounds
from ufuser.runtime.command import Parser, run_command
from ufuser.runtime.contact_sheet import Row, contact_sheet
from ufuser.runtime.engines import ENGINES, Engine, open_engine
from ufuser.runtime.engines.manifest import Manifest
from ufuser.runtime.engines.profiles import Extent
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.images import write_image
from ufuser.runtime.models import find_model
from ufuser.train.checkpoint import load_model

LARGEST = 1e-4  # absolute difference allowed to a float32 network by default
_SIZES = ("1x64x64", "1x72x104", "1x240x320")


@dataclass(frozen=True)
class Tolerance:
    """What a comparison must keep to pass; None asks nothing."""

    largest: float | None = None  # absolute, levels in [0, 1]
    mean: float | None = None
    psnr_db: float | None = None

    def failures(self, found: Difference) -> list[str]:
        """What is broken, each with the figure and its limit."""
        checks = (
            ("largest error", found.largest, self.largest, "2e", False),
            ("mean error", found.mean, self.mean, "2e", False),
            ("PSNR", found.psnr_db, self.psnr_db, "1f", True),
        )
        # Written so that NaN fails too.
        return [
            f"{name} {value:.{form}} instead of {'at least' if floor else 'at most'} {limit:.{form}}"
            for name, value, limit, form, floor in checks
            if limit is not None and not (value >= limit if floor else value <= limit)
        ]


@dataclass(frozen=True)
class Contender:
    """One network, ready to run."""

    label: str
    precision: str  # fp32, fp16, int8
    runs_on: str
    size: int  # bytes of its file
    nodes: int | None  # of an ONNX graph
    run: Callable[[Image, Image], Image]


@dataclass(frozen=True)
class Outcome:
    """One contender against the first."""

    contender: Contender
    difference: Difference
    failures: list[str]


def open_contender(spec: str, threads: int | None) -> Contender:
    """Open one side.

    Args:
        spec: a `.safetensors` checkpoint, a shipped model's name, an `.onnx` or `.engine` file; before the
            latter three `ENGINE:` chooses what runs it, as in `openvino:model.onnx`.
        threads: CPU threads; None leaves the choice to the engine.

    Raises:
        InputError: what can't be opened, by any of the reasons of its kind.
    """
    prefix, _, rest = spec.partition(":")
    chosen, path = (prefix, rest) if rest and prefix in ENGINES else ("", spec)
    if path.endswith(".safetensors"):
        if chosen:
            raise InputError(f"{spec}: a checkpoint runs in PyTorch, expected no engine's name before it")
        model, _ = load_model(Path(path))
        return Contender(spec, "fp32", "PyTorch, CPU", Path(path).stat().st_size, None, torch_network(model))
    file = find_model(path)
    name = chosen or ("tensorrt" if file.suffix == ".engine" else "onnxruntime")
    engine = open_engine(name, file, None if name == "tensorrt" else threads)
    if file.suffix == ".engine":
        nodes, precision = None, Manifest.read(file).metadata.get("precision", "fp32")
    else:
        nodes = len(load_onnx(file)[1].graph.node)
        precision = engine.metadata.get("precision", "fp32")
    return Contender(spec, precision, engine.name, file.stat().st_size, nodes, engine_network(engine))


def engine_network(engine: Engine) -> Callable[[Image, Image], Image]:
    """A runtime engine as a function of B×1×H×W arrays, one picture after the other."""

    def run(ir: Image, vi: Image) -> Image:
        answers = []
        for one_ir, one_vi in zip(ir, vi, strict=True):
            into_ir, into_vi, fused = engine.bind(*ir.shape[2:])
            into_ir[:], into_vi[:] = one_ir[0], one_vi[0]
            engine.run()
            answers.append(fused.copy()[None, None])
        return np.concatenate(answers)

    return run


def default_tolerance(one: Contender, other: Contender) -> Tolerance:
    """What the lower of two precisions is held to."""
    for precision in ("int8", "fp16"):
        if precision in (one.precision, other.precision):
            return Tolerance(psnr_db=PSNR_FLOOR[precision])
    return Tolerance(largest=LARGEST)


class Worst:
    """Keeps the answers where two networks differ most, and draws them."""

    def __init__(self) -> None:
        self._error = -1.0
        self._name = ""
        self._answers: tuple[Image, Image]

    def __call__(self, sample: Sample, expected: Image, given: Image) -> None:
        error = float(np.nan_to_num(np.abs(given - expected), nan=np.inf).max())
        if error > self._error:
            self._error, self._name, self._answers = error, sample.name, (expected, given)

    def draw(self, path: Path, labels: tuple[str, str]) -> None:
        """Write both answers and the heat map of their difference side by side. Raises InputError."""
        expected, given = self._answers
        error = np.nan_to_num(np.abs(given - expected), nan=1.0, posinf=1.0)
        scale = float(error.max()) or 1.0
        row, column = (int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
        heat = cv2.applyColorMap(np.rint(error * (255 / scale)).astype(np.uint8), cv2.COLORMAP_INFERNO)
        cv2.circle(heat, (column, row), max(6, error.shape[1] // 40), (255, 255, 255), 1, cv2.LINE_AA)
        pictures = (*(np.clip(np.nan_to_num(x), 0, 1) for x in (expected, given)), heat)
        caption = (
            f"{self._name}: black is 0, white is {scale:.2e}; largest at row {row}, column {column} (circle)"
        )
        write_image(path, contact_sheet([*labels, "difference"], [Row(pictures, caption)]))


def verify(
    contenders: Sequence[Contender],
    samples: Callable[[], Sequence[Sample]],
    tolerance: Tolerance | None,
    heatmap: Path | None,
) -> list[Outcome]:
    """Compare every contender with the first over the samples.

    Args:
        contenders: two or more.
        samples: gives the samples, the same ones each time.
        tolerance: None takes `default_tolerance`.
        heatmap: PNG to write of the largest difference of all; None writes none.

    Raises:
        InputError: the picture can't be written.
    """
    first, *others = contenders
    outcomes, worst = [], {other.label: Worst() for other in others}
    for other in others:
        found = compare(first.run, other.run, samples(), worst[other.label])
        failures = (tolerance or default_tolerance(first, other)).failures(found)
        outcomes.append(Outcome(other, found, failures))
    if heatmap is not None:
        largest = max(outcomes, key=lambda outcome: outcome.difference.largest).contender
        names = first.label, largest.label
        worst[largest.label].draw(heatmap, (Path(names[0]).name, Path(names[1]).name))
    return outcomes


def get_parser(prog: str = "ufuser verify") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Compare networks with the first one named: checkpoint, ONNX of any precision, engine.",
        epilog=f"ENGINE: one of {', '.join(ENGINES)}. Exit code 0: all within tolerance; 1: not; 2: bad input.",
    )
    parser.add_argument(
        "first", metavar="A", help=".safetensors, [ENGINE:]model.onnx, model.engine or a shipped name"
    )
    parser.add_argument("others", metavar="B", nargs="+", help="the same; several are each compared with A")
    parser.add_argument(
        "--pairs", type=Path, metavar="DIR", help="compare over DIR/ir, DIR/vi (default: made pictures)"
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="of --pairs, those named here, a stem a line"
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=_SIZES,
        metavar="BxHxW",
        help=f"of the made pictures (default: {' '.join(_SIZES)})",
    )
    parser.add_argument(
        "--max-error", type=float, metavar="E", help=f"largest absolute error (default: fp32 {LARGEST})"
    )
    parser.add_argument("--mean-error", type=float, metavar="E", help="mean absolute error")
    parser.add_argument(
        "--psnr",
        type=float,
        metavar="DB",
        help=f"least PSNR (default: fp16 {PSNR_FLOOR['fp16']:.0f}, int8 {PSNR_FLOOR['int8']:.0f})",
    )
    parser.add_argument("--heatmap", type=Path, metavar="FILE.png", help="draw the largest difference")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument("--time", action="store_true", help="time all of them, turn by turn in this process")
    parser.add_argument("--time-shape", default="1x480x640", metavar="BxHxW", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="turns to time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: expected 1 or more")
    if args.list is not None and args.pairs is None:
        raise InputError("--list without --pairs: expected the folder whose pairs it names")
    if args.rounds < 1:
        raise InputError(f"--rounds {args.rounds}: expected 1 or more")
    if args.heatmap is not None and args.heatmap.suffix.lower() != ".png":
        raise InputError(f"--heatmap {args.heatmap}: expected a name that ends in .png")
    if args.heatmap is not None:
        require_writable(args.heatmap)
    shapes = [Extent.parse(text, "--shapes").axes for text in args.shapes]
    time_shape = Extent.parse(args.time_shape, "--time-shape")
    given = Tolerance(args.max_error, args.mean_error, args.psnr)
    pairs = pairs_in(args.pairs, args.list) if args.pairs else None
    contenders = [open_contender(spec, args.threads) for spec in (args.first, *args.others)]

    def samples() -> Sequence[Sample]:
        return list(real_samples(pairs) if pairs else synthetic_samples(shapes))

    tolerance = None if given == Tolerance() else given
    outcomes = verify(contenders, samples, tolerance, args.heatmap)
    timings = time_rounds([c.run for c in contenders], time_shape.axes, args.rounds) if args.time else None
    if args.json:
        print(json.dumps(_as_json(contenders[0], outcomes, timings), indent=2))
    else:
        print(_table(contenders[0], outcomes, timings, args))
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _table(
    first: Contender, outcomes: list[Outcome], timings: list[Timing] | None, args: argparse.Namespace
) -> str:
    over = f"{args.pairs}" if args.pairs else f"made pictures of {', '.join(args.shapes)}"
    lines = [f"Compared with {first.label} ({first.precision}, {first.runs_on}) over {over}:"]
    for outcome in outcomes:
        one = outcome.contender
        verdict = f"FAIL: {'; '.join(outcome.failures)}" if outcome.failures else "pass"
        lines += [
            f"  {one.label} ({one.precision}, {one.runs_on})",
            f"    {outcome.difference}",
            f"    {verdict}",
        ]
    contenders = [first, *(outcome.contender for outcome in outcomes)]
    if timings:
        lines.append(
            f"\nIn turns at {args.time_shape}, {args.rounds} rounds, {args.threads or 'all'} threads:"
        )
    for number, one in enumerate(contenders):
        nodes = f"{one.nodes} nodes" if one.nodes is not None else "no ONNX graph"
        line = f"  {one.precision:5} {one.size / 1e6:6.2f} MB, {nodes}"
        if timings:
            t = timings[number]
            line += f", p50 {t.p50_ms:.1f} ms, p95 {t.p95_ms:.1f} ms, {t.times_first:.2f} times as fast as the first"
        lines.append(f"{line}  {one.label}")
    return "\n".join(lines)


def _as_json(first: Contender, outcomes: list[Outcome], timings: list[Timing] | None) -> dict[str, object]:
    def about(one: Contender) -> dict[str, object]:
        kept = ("label", "precision", "runs_on", "size", "nodes")
        return {name: getattr(one, name) for name in kept}

    def finite(found: Difference) -> dict[str, object]:
        # JSON knows no infinity.
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
        "timings": [asdict(t) for t in timings] if timings else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
