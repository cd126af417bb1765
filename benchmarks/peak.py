"""`ufuser bench peak`: measured peaks of convolution and copy, and the share of them that a model reaches.

The roofs of the roofline are the fastest stack of plain 3×3 convolutions in each engine and the fastest copy of
arrays that exceed the caches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.benchmarks.results import (
    ConvolutionPeak,
    CopyPeak,
    Cost,
    Latency,
    Results,
    merge,
    read,
    write,
)
from ufuser.benchmarks.sizes import as_text, parse_threads
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.files import require_writable
from ufuser.runtime.outputs import check_outputs

LAYERS = (
    (32, 240, 320),
    (64, 120, 160),
    (128, 60, 80),
    (256, 30, 40),
)  # channels, height, width; the fastest depends on caches and vector width
DEPTH = 8
_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_RUN_THE_GRAPH = ("onnxruntime", "openvino", "tensorrt")
"""Engines that run the ONNX graph. PyTorch runs the network as trained, at another cost."""
_HALF = frozenset(("bf16", "fp16"))
_COPIED = 64 << 20  # bytes per thread; several times the size of the caches


@dataclass(frozen=True, slots=True)
class Reached:
    """One run compared with both roofs."""

    latency: Latency
    macs_per_byte: float
    """Arithmetic intensity if every operator reads and writes memory; engines that fuse operators move less."""
    gmacs_per_s: float
    convolution_ms: float
    """Time of its MACs at the measured convolution peak of its precision."""
    copy_ms: float
    """Time of its bytes at the measured copy peak."""

    @property
    def share(self) -> float:
        """Share of the convolution peak."""
        return self.convolution_ms / self.latency.p50_ms

    @property
    def bound(self) -> str:
        """The lower roof: "convolution" or "memory"."""
        return "convolution" if self.convolution_ms >= self.copy_ms else "memory"


def convolution_stack(channels: int, height: int, width: int) -> bytes:
    """An ONNX graph of `DEPTH` zero-padded 3×3 convolutions, channels → channels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shape = [1, channels, height, width]
    scale = np.float32(1 / np.sqrt(9 * channels))  # keeps the variance constant over the layers
    nodes, weights = [], []
    for layer in range(DEPTH):
        kernel = rng.standard_normal((channels, channels, 3, 3), np.float32) * scale
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(
            helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], pads=[1, 1, 1, 1])
        )
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{DEPTH}")]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def convolution_peaks(
    threads: int, seconds: float = 0.5, layers: Sequence[tuple[int, int, int]] | None = None
) -> list[ConvolutionPeak]:
    """The fastest layer for each installed engine and each precision that the processor supports.

    Args:
        threads: CPU threads of the engine.
        seconds: measuring time per layer.
        layers: channels, height and width to try; None tries `LAYERS`.
    """
    best: dict[tuple[str, str], ConvolutionPeak] = {}
    for channels, height, width in layers or LAYERS:
        model = convolution_stack(channels, height, width)
        macs = DEPTH * 9 * channels * channels * height * width
        for engine, precision, step in _runners(model, (1, channels, height, width), threads):
            rate = macs / _shortest(step, seconds) / 1e9
            found = best.get((engine, precision))
            if found is None or rate > found.gmacs_per_s:
                layer = f"3x3, {channels} to {channels}, {height}x{width}"
                best[engine, precision] = ConvolutionPeak(engine, precision, threads, rate, layer)
    return list(best.values())


def copy_peak(threads: int, seconds: float = 1.0) -> CopyPeak:
    """The fastest copy by several threads, each with its own arrays."""
    pairs = [[np.ones(_COPIED, np.uint8) for _ in range(2)] for _ in range(threads)]

    def copied(pair: list[NDArray[np.uint8]]) -> None:
        np.copyto(pair[0], pair[1])  # releases the GIL

    with ThreadPoolExecutor(threads) as pool:

        def step() -> None:
            list(pool.map(copied, pairs))

        shortest = _shortest(step, seconds)
    return CopyPeak(threads, 2 * _COPIED * threads / shortest / 1e9)


def reached(
    latency: Latency,
    costs: Iterable[Cost],
    convolution: Iterable[ConvolutionPeak],
    copying: Iterable[CopyPeak],
) -> Reached | None:
    """Compare a run with the roofs of its precision and thread count.

    Returns None if a roof was not measured or the run is not of the ONNX graph that `costs` describes.
    """
    if not latency.engine.startswith(_RUN_THE_GRAPH):
        return None
    cost = next(
        (c for c in costs if (c.model, c.size, c.batch) == (latency.model, latency.size, latency.batch)), None
    )
    rates = [
        p.gmacs_per_s
        for p in convolution
        if p.threads == latency.threads and p.precision == latency.precision
    ]
    copies = [c.gbytes_per_s for c in copying if c.threads == latency.threads]
    if cost is None or not rates or not copies or latency.device != "CPU":
        return None
    moved = cost.bytes_moved / (2 if latency.precision in _HALF else 1)  # the cost describes an fp32 graph
    return Reached(
        latency,
        cost.macs / moved,
        cost.macs / latency.p50_ms / 1e6,
        cost.macs / max(rates) / 1e6,
        moved / max(copies) / 1e6,
    )


def _runners(
    model: bytes, shape: tuple[int, ...], threads: int
) -> Iterable[tuple[str, str, Callable[[], object]]]:
    """Engine, precision and a function that runs once, for each installed engine."""
    picture = np.random.default_rng(0).random(shape, np.float32)
    if find_spec("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        yield "onnxruntime", "fp32", lambda: session.run(None, {"x0": picture})
    if find_spec("openvino"):
        import openvino

        core = openvino.Core()
        network = core.read_model(model)
        capable = {c.lower() for c in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
        for hint, precision in _PRECISIONS.items():
            if hint == "f32" or precision in capable:
                yield "openvino", precision, _openvino(core, network, hint, threads, picture)


def _openvino(
    core: Any, network: Any, hint: str, threads: int, picture: NDArray[np.float32]
) -> Callable[[], object]:
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()
    request.set_input_tensor(_tensor(picture))
    result: Callable[[], object] = request.infer
    return result


def _tensor(picture: NDArray[np.float32]) -> Any:
    import openvino

    return openvino.Tensor(picture, shared_memory=True)


def _shortest(step: Callable[[], object], seconds: float) -> float:
    """The shortest of at least five repetitions, after two for warm-up."""
    for _ in range(2):
        step()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Measured peak of convolution and copy, and the share reached.")
    parser.add_argument("--threads", default="1,2", metavar="N,…", help="(default: 1,2)")
    parser.add_argument("--seconds", type=float, default=0.5, help="measuring time per layer (default: 0.5)")
    parser.add_argument(
        "--results",
        type=file_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="results with latency and cost: print the share of the peak that each contender reaches",
    )
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the figures to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0; raises InputError for bad input."""
    counts = parse_threads(args.threads)
    check_outputs({"json": args.json}, args.results)
    measured = merge([read(path) for path in args.results]) if args.results else None
    if args.json:
        require_writable(args.json)
    convolution = [peak for threads in counts for peak in convolution_peaks(threads, args.seconds)]
    copying = [copy_peak(threads, args.seconds) for threads in counts]
    for peak in convolution:
        print(
            f"{peak.threads} threads, {peak.engine:11s} {peak.precision}: {peak.gmacs_per_s:7.1f} GMAC/s "
            f"({2 * peak.gmacs_per_s:.1f} GFLOP/s), {peak.layer}"
        )
    for copy in copying:
        print(f"{copy.threads} threads, copy: {copy.gbytes_per_s:.1f} GB/s read and written")
    for latency in measured.latency if measured else ():
        found = reached(latency, measured.cost if measured else (), convolution, copying)
        print(reached_text(found) if found else f"{_title(latency)}: no cost or peak for it")
    if args.json:
        write(
            args.json,
            Results.here(
                {"onnx": version("onnx")}, convolution_peaks=tuple(convolution), copy_peaks=tuple(copying)
            ),
        )
    return 0


def reached_text(found: Reached) -> str:
    """One line for one run."""
    return (
        f"{_title(found.latency)}: {found.latency.p50_ms:.1f} ms, {found.gmacs_per_s:.1f} GMAC/s, {found.share:.0%} "
        f"of the peak; its MACs alone {found.convolution_ms:.1f} ms, its bytes alone {found.copy_ms:.1f} ms"
    )


def _title(latency: Latency) -> str:
    engine = f"{latency.engine} {latency.precision}, {latency.threads} threads"
    return f"{latency.model} in {engine} at {as_text(latency.size)}"
