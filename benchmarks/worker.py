"""Worker process that holds one contender and times it: `python -m ufuser.benchmarks.worker SPEC`.

Contenders run in separate processes, so that the threads and memory of one do not disturb another. The parent
(`ufuser.benchmarks.latency`) writes one request per line, and the worker answers with one line of JSON:

    time I          fuse pair I, or the batch that begins there: {"seconds": …}
    picture I FILE  write the fused picture, float32 in [0, 1], as .npy: {}
    memory          {"peak_mib": …}, peak resident memory; null if the system does not report it
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ufuser.runtime.engines import Engine

Image = NDArray[Any]
Fuse = Callable[[Image, Image], Image]

EAGER, COMPILED, PLAIN = "eager", "compile", "plain"
SIMPLE = ("mean", "maximum", "laplacian")
PEERS = (EAGER, COMPILED, PLAIN, *SIMPLE)


@dataclass(frozen=True, slots=True)
class Spec:
    """The contender that a worker loads."""

    kind: str
    """ "engine", or one of `PEERS`."""
    name: str
    """Engine of the runtime, or the name of the peer."""
    model: str
    """Model name or ONNX file; a checkpoint for the PyTorch peers; unused by the simple methods."""
    threads: int
    pairs: str
    """Path of a .npy file, 2×N×H×W uint8: infrared, visible."""

    cpu_precision: str = "fp32"
    """Precision in which OpenVINO runs a float32 graph."""
    graph_precision: str = "fp32"
    """Precision in the metadata of the ONNX file."""
    batch: int = 1
    """Pairs per call."""
    title: str = ""
    """Name of the model in the results; "" takes the file's."""

    @property
    def precision(self) -> str:
        """Precision of the computation."""
        return self.graph_precision if self.cpu_precision == "fp32" else self.cpu_precision


def load(spec: Spec) -> Fuse:
    """Load the contender: (ir, vi) → fused, all uint8 or all float32 in [0, 1].

    Pictures are H×W; with `spec.batch` above 1, batch×H×W.
    """
    if spec.kind in SIMPLE:
        return _simple(spec)
    if spec.kind in (EAGER, COMPILED):
        return _torch(spec)
    from ufuser.runtime.fuser import Fuser

    engine = "onnxruntime" if spec.kind == PLAIN else spec.name
    fuser = Fuser.open(spec.model, engine, spec.threads, spec.cpu_precision)
    return fuser.fuse if spec.batch == 1 else _batched(fuser.engine)


def _batched(engine: Engine) -> Fuse:
    """Fuse batches whose sides need no padding, with the same pre- and post-processing as `Fuser.fuse`."""

    def fuse(ir: Image, vi: Image) -> Image:
        batch, height, width = ir.shape
        into_ir, into_vi, fused = engine.bind(height, width, batch)
        full = np.float32(1 if ir.dtype == np.float32 else 255)
        for buffer, given in ((into_ir, ir), (into_vi, vi)):
            np.multiply(given, 1 / full, out=buffer, casting="unsafe")
        engine.run()
        scaled = fused * full
        if ir.dtype != np.float32:
            np.rint(scaled, out=scaled)
        np.clip(scaled, 0, full, out=scaled)
        answer: Image = scaled.astype(ir.dtype, copy=False)
        return answer

    return fuse


def _torch(spec: Spec) -> Fuse:
    """The network as trained, not rewritten, with the same pre- and post-processing as the runtime."""
    import torch

    from ufuser.train.checkpoint import load_model

    torch.set_num_threads(spec.threads)
    network, _ = load_model(Path(spec.model))
    run = torch.compile(network) if spec.kind == COMPILED else network

    def fuse(ir: Image, vi: Image) -> Image:
        full = 1.0 if ir.dtype == np.float32 else 255.0
        shape = spec.batch, 1, *ir.shape[-2:]
        inputs = [
            torch.from_numpy((x.astype(np.float32) / np.float32(full)).reshape(shape)) for x in (ir, vi)
        ]
        with torch.no_grad():
            fused: Image = run(*inputs).numpy().reshape(ir.shape)
        return fused if full == 1.0 else np.rint(fused * 255).astype(np.uint8)

    return fuse


def _simple(spec: Spec) -> Fuse:
    import cv2

    from ufuser.benchmarks.quality.baselines import BASELINES

    cv2.setNumThreads(spec.threads)
    one = BASELINES[spec.kind]
    if spec.batch == 1:
        return one
    return lambda ir, vi: np.stack([one(*pair) for pair in zip(ir, vi, strict=True)])


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process; None outside Linux.

    getrusage does not serve: its figure for a new process includes the size of the parent.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    return next((round(int(x.split()[1]) / 1024, 1) for x in lines if x.startswith("VmHWM")), None)


def serve(spec: Spec) -> None:
    """Load the contender, fuse once, report ready, then answer requests until the input ends."""
    pairs = np.load(spec.pairs, mmap_mode="r")
    fuse = load(spec)
    fuse(*_chosen(pairs, 0, spec.batch))
    _send({"ready": True})
    for line in sys.stdin:
        request, *given = line.split()
        if request == "memory":
            _send({"peak_mib": peak_memory_mib()})
            continue
        ir, vi = _chosen(pairs, int(given[0]), spec.batch)
        if request == "picture":
            as_float = (x.astype(np.float32) / np.float32(255) for x in (ir, vi))
            np.save(given[1], np.asarray(fuse(*as_float), np.float32))
            _send({})
        else:
            start = time.perf_counter()
            fuse(ir, vi)
            _send({"seconds": time.perf_counter() - start})


def _chosen(pairs: Image, index: int, batch: int) -> list[Image]:
    """Infrared and visible of one pair, or of the batch that begins there; it wraps around at the end."""
    if batch == 1:
        return [np.ascontiguousarray(x) for x in pairs[:, index]]
    return list(np.take(pairs, range(index, index + batch), axis=1, mode="wrap"))


def _send(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def spec_argument(spec: Spec) -> str:
    """The spec as the worker's only argument."""
    return json.dumps(asdict(spec))


def main(argv: list[str]) -> int:
    """Entry point. An InputError is answered as {"error": …}."""
    from ufuser.runtime.errors import InputError, first_line
    from ufuser.runtime.processes import become_worker

    become_worker()
    spec = Spec(**json.loads(argv[0]))
    try:
        serve(spec)
    except InputError as e:
        _send({"error": str(e)})
        return 2
    except RuntimeError as e:  # most often a missing C++ compiler
        if spec.kind != COMPILED:
            raise
        _send({"error": f"torch.compile failed (it needs a C++ compiler): {first_line(e)}"})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
