"""`ufuser bench latency`: time the runtime and its peers in one run.

Each contender runs in its own process (`ufuser.benchmarks.worker`). Repetitions are interleaved (A B C A B C), so that
the drift of the machine affects all contenders equally. Ratios are computed repetition by repetition.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.benchmarks import results
from ufuser.benchmarks.names import named_models
from ufuser.benchmarks.operators import operator_times
from ufuser.benchmarks.quality.command import listed_names
from ufuser.benchmarks.quality.folder import match, read_sources
from ufuser.benchmarks.results import Error, Latency, Results
from ufuser.benchmarks.sizes import Size, as_text, parse_counts, parse_sizes, parse_threads
from ufuser.benchmarks.worker import COMPILED, EAGER, PEERS, PLAIN, SIMPLE, Spec, spec_argument
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.models import find_model
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.progress import Progress
from ufuser.runtime.shapes import MULTIPLE

TITLES = {
    EAGER: "PyTorch eager",
    COMPILED: "torch.compile",
    PLAIN: "ONNX Runtime, plain export",
    "mean": "mean",
    "maximum": "maximum",
    "laplacian": "Laplacian pyramid",
}
REFERENCE = "PyTorch eager, not rewritten"


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Time models and engines against their peers.")
    parser.add_argument("--ir", type=file_path, help="folder of infrared pictures (default: random pictures)")
    parser.add_argument("--vi", type=file_path, help="folder of visible pictures with the same names")
    parser.add_argument("--list", type=file_path, help="file of stems to use, one per line (default: all)")
    parser.add_argument(
        "--models",
        default="ufuser",
        metavar="[NAME=]A,…",
        help="shipped models or ONNX files, and the names of their rows (default: ufuser)",
    )
    parser.add_argument(
        "--engines",
        default="onnxruntime",
        metavar="A,B",
        help="runtime engines; openvino:bf16 computes in bfloat16 (default: onnxruntime)",
    )
    parser.add_argument(
        "--peers",
        default="",
        metavar="A,B",
        help=f"from {', '.join(PEERS)}; the first three need --checkpoint",
    )
    parser.add_argument(
        "--checkpoint", type=file_path, help="checkpoint of the first model, for the PyTorch peers"
    )
    parser.add_argument("--sizes", default="480x640", metavar="HxW,…", help="(default: 480x640)")
    parser.add_argument("--threads", default="2", metavar="N,…", help="(default: 2)")
    parser.add_argument(
        "--batches", default="1", metavar="N,…", help="pairs per call; a stream uses 1 (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="passes over all pairs (default: 1)")
    parser.add_argument(
        "--pairs", type=int, default=20, metavar="N", help="largest number of pairs (default: 20)"
    )
    parser.add_argument("--profile", action="store_true", help="also time each operator type")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the results to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write. Raises InputError."""
    sizes, threads = parse_sizes(args.sizes), parse_threads(args.threads)
    batches = parse_counts("--batches", args.batches)
    if args.rounds < 1 or args.pairs < 1:
        raise InputError("--rounds and --pairs: expected at least 1")
    check_outputs(
        {"json": args.json}, (args.ir, args.vi, args.list, args.checkpoint, *args.models.split(","))
    )
    if args.json:
        require_writable(args.json)
    measured: list[Latency] = []
    with tempfile.TemporaryDirectory() as folder:
        templates = contenders(args, Path(folder))
        for size in sizes:
            pairs = Path(folder) / f"{as_text(size)}.npy"
            np.save(pairs, _pairs(args.ir, args.vi, args.list, args.pairs, size))
            for count in threads:
                specs = [
                    replace(t, threads=count, pairs=str(pairs), batch=batch)
                    for batch in batches
                    for t in templates
                ]
                found = measure(specs, size, args.rounds, Path(folder))
                _print(found)
                measured += found
    operators = []
    if args.profile:
        for spec in (t for t in templates if t.kind == "engine"):
            for size in sizes:
                times = operator_times(spec, threads[-1], size)
                operators.append(times)
                _print_operators(times)
    if args.json:
        found_here = Results.here(latency=tuple(measured), operators=tuple(operators))
        results.write(args.json, found_here)
    return 0


def contenders(args: argparse.Namespace, folder: Path) -> list[Spec]:
    """All contenders, still without threads, batch and pictures. Raises InputError."""
    made = [
        _engine_spec(name, model, engine)
        for name, model in named_models(args.models.split(","), "--models").items()
        for engine in args.engines.split(",")
        if engine
    ]
    for peer in (p for p in args.peers.split(",") if p):
        if peer not in PEERS:
            raise InputError(f"unknown peer '{peer}': expected names from {', '.join(PEERS)}")
        model = ""
        if peer not in SIMPLE:
            if args.checkpoint is None:
                raise InputError(f"the peer {peer} needs --checkpoint")
            if not args.checkpoint.is_file():
                raise InputError(f"no checkpoint {args.checkpoint}")
            model = str(_plain_export(args.checkpoint, folder) if peer == PLAIN else args.checkpoint)
        made.append(Spec(peer, TITLES[peer], model, 0, ""))
    return made


def _engine_spec(title: str, model: str, engine: str) -> Spec:
    """A model in an engine such as "openvino" or "openvino:bf16"."""
    from ufuser.export.onnx_file import load_onnx, metadata_of  # needs the package onnx

    name, _, cpu_precision = engine.partition(":")
    path = find_model(model)
    precision = (
        metadata_of(load_onnx(path)[1]).get("precision", "fp32") if path.suffix == ".onnx" else "engine"
    )
    return Spec("engine", name, model, 0, "", cpu_precision or "fp32", precision, title=title)


@dataclass
class Worker:
    """The process of one contender."""

    spec: Spec
    process: subprocess.Popen[str]
    cold_start_s: float = 0.0
    samples: list[float] = field(default_factory=list)

    @classmethod
    def start(cls, spec: Spec, stack: ExitStack) -> Worker:
        """Start the process and wait for its first fused pair. Raises InputError if it fails."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "ufuser.benchmarks.worker", spec_argument(spec)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        worker = cls(spec, process)
        worker._answer()
        worker.cold_start_s = time.perf_counter() - began
        return worker

    def ask(self, request: str) -> dict[str, Any]:
        """Send a request and return the answer."""
        if self.process.stdin is not None:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise InputError(f"{self.spec.name}: {answer['error']}")
        return answer


def measure(specs: Sequence[Spec], size: Size, rounds: int, folder: Path) -> list[Latency]:
    """Time contenders at one size and thread count, interleaved."""
    with ExitStack() as stack:
        workers = [Worker.start(spec, stack) for spec in specs]
        count = np.load(specs[0].pairs, mmap_mode="r").shape[1]
        for worker in workers:  # OpenVINO compiles for a shape that repeats
            for _ in range(2):
                worker.ask("time 0")
        progress = stack.enter_context(
            Progress(f"{as_text(size)}, {specs[0].threads} threads", rounds * count)
        )
        for _ in range(rounds):
            for index in range(count):
                for worker in workers:
                    worker.samples.append(worker.ask(f"time {index}")["seconds"])
                progress.step()
        errors = _errors(workers, folder)
        return [_latency(worker, size, errors.get(id(worker))) for worker in workers]


def _latency(worker: Worker, size: Size, error: Error | None) -> Latency:
    spec = worker.spec
    return Latency.of(
        spec.name,
        spec.title or Path(spec.model).stem,
        size,
        spec.threads,
        worker.samples,
        precision=spec.precision,
        batch=spec.batch,
        peak_memory_mib=worker.ask("memory")["peak_mib"],
        cold_start_s=round(worker.cold_start_s, 2),
        error=error,
    )


def _errors(workers: Sequence[Worker], folder: Path) -> dict[int, Error]:
    """Differences of the networks' pictures from PyTorch eager's; empty if that peer does not run."""
    pictures: dict[int, NDArray[np.float32]] = {}
    for number, worker in enumerate(workers):
        if worker.spec.kind not in SIMPLE:
            worker.ask(f"picture 0 {folder / f'{number}.npy'}")
            pictures[id(worker)] = np.load(folder / f"{number}.npy")
    references = {w.spec.batch: pictures[id(w)] for w in workers if w.spec.kind == EAGER}
    found = {}
    for worker in workers:
        if id(worker) in pictures and worker.spec.kind != EAGER and worker.spec.batch in references:
            reference = references[worker.spec.batch]
            difference = np.abs(pictures[id(worker)] - reference).astype(np.float64)
            noise = float(np.mean(difference**2))
            psnr = round(-10 * float(np.log10(noise)), 1) if noise else None
            found[id(worker)] = Error(REFERENCE, float(difference.max()), psnr)
    return found


def _plain_export(checkpoint: Path, folder: Path) -> Path:
    """Export the network as trained, without rewrites."""
    from ufuser.export.exporter import trace
    from ufuser.export.onnx_file import add_metadata
    from ufuser.train.checkpoint import load_model

    print("exporting the network without rewrites (a minute or two) …", file=sys.stderr, flush=True)
    model, origin = load_model(checkpoint)
    proto = trace(model, 20)
    add_metadata(proto, {"model": origin.model, "shape_multiple": str(MULTIPLE)})
    out = folder / f"{origin.model}.onnx"
    out.write_bytes(proto.SerializeToString())
    return out


def _pairs(ir: Path | None, vi: Path | None, listed: Path | None, most: int, size: Size) -> NDArray[np.uint8]:
    """Grey pairs, 2×N×H×W, from two folders, scaled to one size; random pictures if no folders are given."""
    height, width = size
    if (ir is None) != (vi is None):
        raise InputError("expected both --ir and --vi, or neither")
    if ir is None or vi is None:
        return np.random.default_rng(0).integers(0, 256, (2, min(most, 4), height, width), np.uint8)
    matched, _ = match(ir, vi, {}, listed_names(listed) if listed else None)
    sources = [read_sources(pair) for pair in matched[:most]]
    scaled = [[cv2.resize(x, (width, height)) for x in side] for side in zip(*sources, strict=True)]
    return np.array(scaled, np.uint8)


def _print(found: Sequence[Latency]) -> None:
    """Print the table of one size, with ratios to PyTorch eager at the same batch."""
    first = found[0]
    print(f"{as_text(first.size)}, {first.threads} threads, {len(first.samples_ms)} repetitions")
    eagers = {row.batch: row for row in found if row.engine == TITLES[EAGER]}
    batches = len({row.batch for row in found}) > 1 or first.batch > 1
    for row in found:
        eager = eagers.get(row.batch)
        line = f"  {_title(row):34s}"
        line += f" batch {row.batch:3d}, {row.p50_ms / row.batch:8.1f} ms a picture " if batches else ""
        line += f" p50 {row.p50_ms:8.1f}  p95 {row.p95_ms:8.1f} ms  {row.fps:7.2f} fps"
        line += f"  {row.peak_memory_mib:6.0f} MiB" if row.peak_memory_mib else ""
        line += f"  start {row.cold_start_s:5.1f} s"
        if eager is not None and row is not eager:
            ratio = np.array(eager.samples_ms) / np.array(row.samples_ms)
            low, middle, high = np.percentile(ratio, (5, 50, 95))
            line += f"  eager/this {middle:.2f} ({low:.2f} to {high:.2f})"
        if row.error is not None:
            decibels = f"{row.error.psnr_db:.0f} dB" if row.error.psnr_db is not None else "identical"
            line += f"  error {row.error.largest:.1e}, {decibels}"
        print(line)


def _title(row: Latency) -> str:
    name = f"{row.model} {row.engine}".strip()
    return name if row.precision == "fp32" else f"{name} {row.precision}"


def _print_operators(times: results.OperatorTimes) -> None:
    total = sum(times.milliseconds.values())
    print(f"{times.model} {times.engine}, {as_text(times.size)}, {times.threads} threads, by operator")
    for name, ms in times.milliseconds.items():
        if ms >= 0.005 * total:
            print(f"  {name:28s} {ms:8.1f} ms  {100 * ms / total:5.1f} %")
