"""Comparison of networks: checkpoints, ONNX files of any precision on any engine, TensorRT engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ufuser.export.fidelity import Difference, Image, Network, Sample, compare, torch_network
from ufuser.export.onnx_file import load_onnx
from ufuser.export.tolerances import LARGEST_ERROR, PSNR_FLOOR
from ufuser.runtime.contact_sheet import Row, contact_sheet
from ufuser.runtime.engines import ENGINES, Engine, open_engine
from ufuser.runtime.engines.manifest import Manifest
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import write_image
from ufuser.runtime.models import find_model


@dataclass(frozen=True)
class Tolerance:
    """Limits of a comparison; None sets no limit."""

    largest: float | None = None  # absolute, levels in [0, 1]
    mean: float | None = None
    psnr_db: float | None = None

    def failures(self, found: Difference) -> list[str]:
        """The limits that are exceeded, each with the figure found."""
        checks = (
            ("largest error", found.largest, self.largest, "2e", False),
            ("mean error", found.mean, self.mean, "2e", False),
            ("PSNR", found.psnr_db, self.psnr_db, "1f", True),
        )
        # Written so that NaN fails too.
        return [
            f"{name} {value:.{form}}, expected at {'least' if is_floor else 'most'} {limit:.{form}}"
            for name, value, limit, form, is_floor in checks
            if limit is not None and not (value >= limit if is_floor else value <= limit)
        ]


@dataclass(frozen=True)
class Contender:
    """One network, ready to run."""

    label: str
    precision: str  # fp32, fp16, int8
    runs_on: str
    size: int  # bytes of its file
    nodes: int | None  # of an ONNX graph
    run: Network


@dataclass(frozen=True)
class Outcome:
    """A contender compared with the first one."""

    contender: Contender
    difference: Difference
    failures: list[str]


def open_contender(spec: str, threads: int | None) -> Contender:
    """Open one network.

    Args:
        spec: a `.safetensors` checkpoint, a shipped model's name, an `.onnx` or `.engine` file. `ENGINE:` before
            the latter three selects the engine, as in `openvino:model.onnx`.
        threads: CPU threads; None leaves the choice to the engine.

    Raises:
        InputError: a file or engine that cannot be opened.
    """
    prefix, _, rest = spec.partition(":")
    chosen, path = (prefix, rest) if rest and prefix in ENGINES else ("", spec)
    if path.endswith(".safetensors"):
        if chosen:
            raise InputError(f"{spec}: a checkpoint runs in PyTorch, expected no engine before its name")
        from ufuser.train.checkpoint import load_model  # with PyTorch

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


def engine_network(engine: Engine) -> Network:
    """A runtime engine as a function of B×1×H×W arrays, which fuses one picture after the other."""

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
    """The limit for the lower of two precisions."""
    for precision in ("int8", "fp16"):
        if precision in (one.precision, other.precision):
            return Tolerance(psnr_db=PSNR_FLOOR[precision])
    return Tolerance(largest=LARGEST_ERROR)


class Worst:
    """Keeps the answers of the sample with the largest difference, and draws them."""

    def __init__(self) -> None:
        self._error = -1.0
        self._name = ""
        self._answers: tuple[Image, Image]

    def __call__(self, sample: Sample, expected: Image, given: Image) -> None:
        error = float(np.nan_to_num(np.abs(given - expected), nan=np.inf).max())
        if error > self._error:
            self._error, self._name, self._answers = error, sample.name, (expected, given)

    def draw(self, path: Path, labels: tuple[str, str]) -> None:
        """Write both answers and a heat map of their difference side by side. Raises InputError."""
        expected, given = self._answers
        error = np.nan_to_num(np.abs(given - expected), nan=1.0, posinf=1.0)
        scale = float(error.max()) or 1.0
        row, column = (int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
        map_of_error = cv2.applyColorMap(
            np.rint(error * (255 / scale)).astype(np.uint8), cv2.COLORMAP_INFERNO
        )
        cv2.circle(map_of_error, (column, row), max(6, error.shape[1] // 40), (255, 255, 255), 1, cv2.LINE_AA)
        pictures = (*(np.clip(np.nan_to_num(x), 0, 1) for x in (expected, given)), map_of_error)
        caption = (
            f"{self._name}: black is 0, white is {scale:.2e}; largest at row {row}, column {column} (circle)"
        )
        write_image(path, contact_sheet([*labels, "difference"], [Row(pictures, caption)]))


def compare_all(
    contenders: Sequence[Contender],
    samples: Callable[[], Sequence[Sample]],
    tolerance: Tolerance | None,
    heatmap: Path | None,
) -> list[Outcome]:
    """Compare every contender with the first over the samples.

    Args:
        contenders: two or more.
        samples: returns the same samples at every call.
        tolerance: None takes `default_tolerance`.
        heatmap: PNG file for the largest difference of all; None writes none.

    Raises:
        InputError: the picture cannot be written.
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
