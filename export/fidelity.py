"""The difference between the answers of two networks, over real pairs or synthetic pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_float, read_grey, read_names
from ufuser.runtime.shapes import MULTIPLE
from ufuser.runtime.thermal.still import read_infrared
from ufuser.train.data import Pair, find_pairs

if TYPE_CHECKING:
    from torch import nn

Image = NDArray[np.float32]
Network = Callable[[Image, Image], Image]
"""ir, vi → fused; each B×1×H×W float32, H and W multiples of 8."""


@dataclass(frozen=True)
class Sample:
    """One pair of pictures, padded to the sizes that networks take."""

    name: str
    ir: Image  # B×1×H×W
    vi: Image
    height: int  # of the pictures themselves, without padding
    width: int


@dataclass(frozen=True)
class Difference:
    """Two networks' answers compared over some samples. Levels in [0, 1]; infinite where one gave NaN."""

    largest: float
    mean: float
    psnr_db: float  # peak 1, of the mean squared error over all pictures, each weighing the same
    lowest_psnr_db: float  # of the worst picture
    worst: str  # the sample with the largest difference
    place: tuple[int, int]  # row and column of the largest difference in it
    samples: int

    def __str__(self) -> str:
        return (
            f"largest {self.largest:.2e} ({self.worst}, row {self.place[0]}, column {self.place[1]}), mean "
            f"{self.mean:.2e}, PSNR {self.psnr_db:.1f} dB, worst picture {self.lowest_psnr_db:.1f} dB, "
            f"{self.samples} pictures"
        )


def compare(
    reference: Network,
    candidate: Network,
    samples: Iterable[Sample],
    seen: Callable[[Sample, Image, Image], None] | None = None,
) -> Difference:
    """Run both networks over the samples.

    Args:
        reference: its answers count as correct.
        candidate: the other one.
        samples: at least one.
        seen: receives each sample with both answers, H×W without padding.

    Raises:
        ValueError: no samples.
    """
    squares: list[float] = []
    means: list[float] = []
    largest, worst, place = -1.0, "", (0, 0)
    for sample in samples:
        expected, given = (
            answer[:, 0, : sample.height, : sample.width].astype(np.float64)
            for answer in (reference(sample.ir, sample.vi), candidate(sample.ir, sample.vi))
        )
        difference = np.abs(given - expected)
        # NaN compares false with every tolerance: make it fail.
        difference[~np.isfinite(difference)] = np.inf
        squares.append(float(np.mean(difference * difference)))
        means.append(float(difference.mean()))
        if difference.max() > largest:
            largest, worst = float(difference.max()), sample.name
            _, row, column = np.unravel_index(int(difference.argmax()), difference.shape)
            place = int(row), int(column)
        if seen is not None:
            seen(sample, expected[0].astype(np.float32), given[0].astype(np.float32))
    if not squares:
        raise ValueError("no samples to compare over")
    return Difference(
        largest,
        float(np.mean(means)),
        psnr(float(np.mean(squares))),
        psnr(max(squares)),
        worst,
        place,
        len(squares),
    )


def psnr(mean_square: float) -> float:
    """Decibels, peak 1; infinite for no error, minus infinite for one without bound."""
    if mean_square == 0:
        return math.inf
    return -10 * math.log10(mean_square) if math.isfinite(mean_square) else -math.inf


def padded(name: str, ir: Image, vi: Image) -> Sample:
    """A pair of H×W float32 pictures as a sample, padded by reflection at the bottom and right, as in the runtime."""
    height, width = ir.shape
    border = ((0, -height % MULTIPLE), (0, -width % MULTIPLE))
    ir, vi = (np.ascontiguousarray(np.pad(x, border, mode="reflect"))[None, None] for x in (ir, vi))
    return Sample(name, ir, vi, height, width)


def real_samples(pairs: Sequence[Pair]) -> Iterator[Sample]:
    """Pairs from disk, whole pictures."""
    for pair in pairs:
        ir, vi = as_float(read_infrared(pair.ir)), as_float(read_grey(pair.vi))
        yield padded(pair.name, ir, vi)


def pairs_in(folder: Path, names: Path | None) -> list[Pair]:
    """Pairs of folder/ir and folder/vi; with a file of names, one stem a line, only those.

    Raises InputError for unreadable files and for names without a pair.
    """
    pairs = find_pairs(folder)
    if names is None:
        return pairs
    wanted = set(read_names(names))
    absent = sorted(wanted - {pair.name for pair in pairs})
    if absent or not wanted:
        raise InputError(
            f"{names} names pairs that are not in {folder}: {', '.join(absent[:5]) or 'none at all'}"
        )
    return [pair for pair in pairs if pair.name in wanted]


def synthetic_samples(shapes: Iterable[tuple[int, int, int]]) -> Iterator[Sample]:
    """Synthetic pictures at each batch, height and width (multiples of 8)."""
    for shape in shapes:
        ir, vi = synthetic_pair(shape)
        yield Sample("x".join(map(str, shape)), ir, vi, *shape[1:])


def synthetic_pair(shape: tuple[int, int, int]) -> tuple[Image, Image]:
    """Two different B×1×H×W pictures with smooth parts, edges, noise, black and white."""
    batch, height, width = shape
    rng = np.random.default_rng(shape)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pictures = []
    for phase in (0.0, 2.0):
        smooth = 0.5 + 0.5 * np.sin(6 * x + 4 * y * y + phase)
        edges = (np.sin(23 * x + phase) * np.sin(17 * y) > 0.3) * 0.6
        noise = rng.standard_normal((batch, 1, height, width)) * 0.1
        pictures.append(np.clip(smooth - edges + noise, 0, 1).astype(np.float32))
    return pictures[0], pictures[1]


def torch_network(model: nn.Module) -> Network:
    """A PyTorch network as a function of arrays, on the CPU."""
    import torch  # here: comparing ONNX files and engines works without it

    def run(ir: Image, vi: Image) -> Image:
        with torch.no_grad():
            answer: Image = model(torch.from_numpy(ir), torch.from_numpy(vi)).float().numpy()
        return answer

    return run


def onnx_network(model: bytes, optimized: bool = True) -> Network:
    """A serialized ONNX model as a function of arrays, by ONNX Runtime on the CPU.

    Without optimization it rounds after every operator, as the graph is written.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(ir: Image, vi: Image) -> Image:
        (answer,) = session.run(["fused"], {"ir": ir, "vi": vi})
        return np.asarray(answer, np.float32)

    return run
