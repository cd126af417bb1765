"""Time per operator type from the engines' own profilers."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from ufuser.benchmarks.results import OperatorTimes
from ufuser.benchmarks.sizes import Size
from ufuser.benchmarks.worker import Spec
from ufuser.runtime.errors import InputError
from ufuser.runtime.models import find_model

RUNS = 5
"""Profiled runs, after one warm-up run."""


def operator_times(spec: Spec, threads: int, size: Size) -> OperatorTimes:
    """Milliseconds per frame and operator type, largest first. Raises InputError for an engine without a profiler."""
    engine, precision = spec.name, spec.precision
    model = find_model(spec.model)
    if engine == "onnxruntime":
        spent = _onnxruntime(model, threads, size)
    elif engine == "openvino":
        spent = _openvino(model, threads, size, spec.cpu_precision)
    else:
        raise InputError(f"no profile of {engine}: expected onnxruntime or openvino")
    milliseconds = {name: round(total / RUNS, 2) for name, total in spent.most_common()}
    return OperatorTimes(engine, spec.title or model.stem, size, threads, milliseconds, precision)


def _feeds(size: Size) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random((1, 1, *size), np.float32) for name in ("ir", "vi")}


def _onnxruntime(model: Path, threads: int, size: Size) -> Counter[str]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS + 1):
            session.run(None, _feeds(size))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    first = next(e for e in events if e["name"] == "model_run")
    spent: Counter[str] = Counter()
    for event in events:
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["ts"] > first["ts"] + first["dur"]:
            spent[event["args"]["op_name"]] += event["dur"] / 1000
    return spent


def _openvino(model: Path, threads: int, size: Size, precision: str) -> Counter[str]:
    import openvino

    core = openvino.Core()
    network = core.read_model(str(model))
    network.reshape({name: [1, 1, *size] for name in ("ir", "vi")})
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "PERF_COUNT": True,
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()
    spent: Counter[str] = Counter()
    for run in range(RUNS + 1):
        request.infer(_feeds(size))
        for node in request.profiling_info if run else ():
            milliseconds = node.real_time.total_seconds() * 1000
            if milliseconds:  # a node that was fused into another has no time
                spent[node.node_type] += milliseconds
    return spent
