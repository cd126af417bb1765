"""A process that holds one contender and times it on request: `python -m ufuser.benchmarks.worker SPEC`.

Contenders share no process, so that neither the waiting threads of one nor its memory disturb another. The
parent (`ufuser.benchmarks.latency`) writes a request a line, the worker answers with a line of JSON:

    time I          fuse pair I, or the batch that begins there: {"seconds": …}
    picture I FILE  write what it makes of it, float32 in [0, 1], as .npy: {}
    memory          {"peak_mib": …}, the process's high-water mark; null where the system doesn't tell
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
    """What a worker loads."""

    kind: str
    """ "engine", or one of `PEERS`."""
    name: str
    """The runtime's engine; a peer's own name."""
    model: str
    """Model name or ONNX file; checkpoint for the PyTorch peers; unused by simple fusers."""
    threads: int
    pairs: str
    """A .npy file of 2×N×H×W uint8: infrared, visible."""

    cpu_precision: str = "fp32"
    """What OpenVINO computes a float32 graph in."""
    graph_precision: str = "fp32"
    """What the ONNX file's metadata say."""
    batch: int = 1
    """Pairs at once."""

    @property
    def precision(self) -> str:
        """What it computes in."""
        return self.graph_precision if self.cpu_precision == "fp32" else self.cpu_precision


def load(spec: Spec) -> Fuse:
    """The contender: two pictures, uint8 or float32 in [0, 1] → the fused one of the same type.

    Pictures are H×W; with `spec.batch` above 1, batch×H×W.
    """
    if spec.kind in SIMPLE:
        return _simple(spec)
    if spec.kind in (EAGER, COMPILED):
        return _torch(spec)
    from ufuser import Fuser

    engine = "onnxruntime" if spec.kind == PLAIN else spec.name
    fuser = Fuser.open(spec.model, engine, spec.threads, spec.cpu_precision)
    return fuser.fuse if spec.batch == 1 else _batched(fuser.engine)


def _batched(engine: Engine) -> Fuse:
    """Batches of sides that need no padding, with the work around the network that `Fuser.fuse` does for a pair.

    A camera's pairs come one by one, so the runtime itself never waits for a batch.
    """

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
    """The network as it was trained, not rewritten; reading in and writing out as the runtime does."""
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
    """The process's largest resident memory, on Linux.

    Not getrusage: what it tells of a new process includes the size of the one it was forked from.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    return next((round(int(x.split()[1]) / 1024, 1) for x in lines if x.startswith("VmHWM")), None)


def serve(spec: Spec) -> None:
    """Load, fuse once, say so, then answer requests until the input ends."""
    pairs = np.load(spec.pairs, mmap_mode="r")
    fuse = load(spec)
    fuse(*_chosen(pairs, 0, spec.batch))
    _say({"ready": True})
    for line in sys.stdin:
        request, *given = line.split()
        if request == "memory":
            _say({"peak_mib": peak_memory_mib()})
            continue
        ir, vi = _chosen(pairs, int(given[0]), spec.batch)
        if request == "picture":
            as_float = (x.astype(np.float32) / np.float32(255) for x in (ir, vi))
            np.save(given[1], np.asarray(fuse(*as_float), np.float32))
            _say({})
        else:
            start = time.perf_counter()
            fuse(ir, vi)
            _say({"seconds": time.perf_counter() - start})


def _chosen(pairs: Image, index: int, batch: int) -> list[Image]:
    """Infrared and visible of a pair, or of the batch that begins there and goes on at the start."""
    if batch == 1:
        return [np.ascontiguousarray(x) for x in pairs[:, index]]
    return list(np.take(pairs, range(index, index + batch), axis=1, mode="wrap"))


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def spec_argument(spec: Spec) -> str:
    """A spec as the worker's one argument."""
    return json.dumps(asdict(spec))


def main(argv: list[str]) -> int:
    """Entry point. An InputError becomes the answer {"error": …}."""
    from ufuser.runtime.errors import InputError

    spec = Spec(**json.loads(argv[0]))
    try:
        serve(spec)
    except InputError as e:
        _say({"error": str(e)})
        return 2
    except RuntimeError as e:  # where no C++ compiler is installed, above all
        if spec.kind != COMPILED:
            raise
        _say({"error": f"torch.compile failed (it needs a C++ compiler): {str(e).strip().splitlines()[0]}"})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
