"""`python -m benchmarks latency`: the runtime beside the same network in PyTorch eager, in one run.

Repetitions are interleaved (A B A B), so that a machine's drift hits both alike; the ratio is taken pair by
pair. Peak memory is that of a fresh process each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.command import listed_names
from benchmarks.quality.folder import match, read_sources
from runtime.errors import InputError
from runtime.machine import Machine, versions
from runtime.models import find_model
from runtime.telemetry import Durations

EAGER = "PyTorch eager"
Pair = tuple[NDArray[Any], NDArray[Any]]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("latency", help="time the runtime beside PyTorch eager on real pairs")
    parser.add_argument("--ir", type=Path, required=True, help="folder of infrared pictures")
    parser.add_argument("--vi", type=Path, required=True, help="folder of visible pictures, equally named")
    parser.add_argument(
        "--list", type=Path, help="file with the stems to use, one a line (default: all common)"
    )
    parser.add_argument("--model", default="ufuser", help="shipped model or ONNX file (default: ufuser)")
    parser.add_argument("--engines", default="onnxruntime", metavar="A,B", help="(default: onnxruntime)")
    parser.add_argument(
        "--checkpoint", type=Path, help="checkpoint for the PyTorch peer; without it no peer is timed"
    )
    parser.add_argument(
        "--size", default="480x640", metavar="HxW", help="pictures are scaled to this (default: 480x640)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="passes over all pairs (default: 1)")
    parser.add_argument(
        "--memory", default="480x640,1080x1920", metavar="HxW,…", help="sizes to measure memory at"
    )
    parser.add_argument(
        "--profile", action="store_true", help="also print time by operator (ONNX Runtime's profile)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    height, width = _size(args.size)
    sizes = [_size(text) for text in args.memory.split(",")] if args.memory else []
    pairs = _pairs(args.ir, args.vi, args.list, height, width)
    contenders = {name: _runtime(args.model, name, args.threads) for name in args.engines.split(",")}
    if args.checkpoint:
        contenders[EAGER] = _eager(args.checkpoint, args.threads)
    times = interleave(contenders, pairs, args.rounds)
    figures: dict[str, Any] = {
        "machine": asdict(Machine.here()),
        "threads": args.threads,
        "versions": versions() | ({"torch": version("torch")} if args.checkpoint else {}),
        "size": [height, width],
        "frames": len(pairs) * args.rounds,
        "times": {name: _summary(seconds) for name, seconds in times.items()},
    }
    if args.checkpoint:
        eager = np.array(times.pop(EAGER))
        ratios = {name: eager / np.array(seconds) for name, seconds in times.items()}
        figures["times_faster_than_eager"] = {
            name: {f"p{q}": round(float(np.percentile(ratio, q)), 2) for q in (5, 50, 95)}
            for name, ratio in ratios.items()
        }
    figures["peak_memory_mib"] = {
        f"{name} at {h}x{w}": peak_memory(args.model, name, args.threads, h, w)
        for name in times
        for h, w in sizes
    }
    if args.profile:
        figures["milliseconds_by_operator"] = operator_profile(
            find_model(args.model), args.threads, height, width
        )
    _print(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def interleave(
    contenders: dict[str, Callable[[Pair], object]], pairs: list[Pair], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every contender for every pair, in turns; each is warmed up twice before."""
    for fuse in contenders.values():
        for pair in pairs[:2]:
            fuse(pair)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for pair in pairs:
            for name, fuse in contenders.items():
                start = time.perf_counter()
                fuse(pair)
                times[name].append(time.perf_counter() - start)
    return times


def peak_memory(model: str, engine: str, threads: int, height: int, width: int) -> int:
    """Largest resident memory, in MiB, of a fresh process that opens the model and fuses three pairs (Linux)."""
    code = (
        "import sys, numpy as np\n"
        "from runtime import Fuser\n"
        "model, engine = sys.argv[1:3]; threads, h, w = map(int, sys.argv[3:])\n"
        "rng = np.random.default_rng(0)\n"
        "ir = rng.integers(0, 256, (h, w), np.uint8); vi = rng.integers(0, 256, (h, w, 3), np.uint8)\n"
        "fuser = Fuser.open(model, engine, threads)\n"
        "for _ in range(3): fuser.fuse(ir, vi)\n"
        # Not getrusage: what it tells of a new process includes the size of the one it was forked from.
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(int(line.split()[1]) >> 10 for line in lines if line.startswith('VmHWM')))\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(find_model(model)),
        engine,
        *map(str, (threads, height, width)),
    ]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def operator_profile(model: Path, threads: int, height: int, width: int, runs: int = 5) -> dict[str, float]:
    """Milliseconds a frame by operator type, dearest first, from ONNX Runtime's profile; the first run is left out."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feeds = {n: rng.random((1, 1, height, width), np.float32) for n in ("ir", "vi")}
        for _ in range(runs + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    first = next(e for e in events if e["name"] == "model_run")
    spent: Counter[str] = Counter()
    for event in events:
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["ts"] > first["ts"] + first["dur"]:
            spent[event["args"]["op_name"]] += event["dur"]
    return {name: round(total / runs / 1000, 1) for name, total in spent.most_common()}


def _runtime(model: str, engine: str, threads: int) -> Callable[[Pair], object]:
    from runtime import Fuser

    fuser = Fuser.open(model, engine, threads)
    return lambda pair: fuser.fuse(*pair)


def _eager(checkpoint: Path, threads: int) -> Callable[[Pair], object]:
    """The network as it was trained, not rewritten; only its forward pass, without reading in or writing out."""
    import torch

    from train.checkpoint import load_model

    torch.set_num_threads(threads)
    network, _ = load_model(checkpoint)

    def fuse(pair: Pair) -> None:
        ir, vi = (torch.from_numpy(x.astype(np.float32) / 255)[None, None] for x in pair)
        with torch.no_grad():
            network(ir, vi)

    return fuse


def _pairs(ir: Path, vi: Path, listed: Path | None, height: int, width: int) -> list[Pair]:
    """Grey pairs of two folders, all scaled to one size."""
    matched, _ = match(ir, vi, {}, listed_names(listed) if listed else None)
    ways = (read_sources(pair) for pair in matched)
    return [tuple(cv2.resize(x, (width, height)) for x in sources) for sources in ways]  # type: ignore[misc]


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) >= 16 and int(p) % 8 == 0 for p in parts):
        raise InputError(f"size '{text}': expected HEIGHTxWIDTH, both multiples of 8, as in 480x640")
    return int(parts[0]), int(parts[1])


def _summary(seconds: list[float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in asdict(Durations.of(seconds)).items()}


def _print(figures: dict[str, Any]) -> None:
    machine = figures["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {figures['threads']} threads")
    print(", ".join(f"{name} {number}" for name, number in figures["versions"].items()))
    print(f"{figures['frames']} frames of {figures['size'][0]}x{figures['size'][1]}")
    for name, row in figures["times"].items():
        print(
            f"  {name:14s} p50 {row['p50_ms']:8.1f} ms   p95 {row['p95_ms']:8.1f} ms   {row['fps']:6.2f} frames/s"
        )
    if "times_faster_than_eager" in figures:
        for name, r in figures["times_faster_than_eager"].items():
            print(f"  eager / {name}, frame by frame: {r['p50']}x (5 % to 95 %: {r['p5']}x to {r['p95']}x)")
    for where, mib in figures["peak_memory_mib"].items():
        print(f"  peak memory of {where}: {mib} MiB")
    operators = figures.get("milliseconds_by_operator", {})
    total = sum(operators.values())
    for name, ms in operators.items():
        if ms >= 0.005 * total:
            print(f"  {name:20s} {ms:8.1f} ms  {100 * ms / total:5.1f} %")
