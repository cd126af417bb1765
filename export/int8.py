"""INT8: quantize and dequantize nodes around convolutions, calibrated on real pairs.

Static quantization by ONNX Runtime's tools. The layers are chosen by measurement: each is quantized alone, and the
costliest stay in float until the whole network is close enough to fp32.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from ufuser.export.fidelity import Difference, Image, Network, compare, onnx_network, psnr, real_samples
from ufuser.export.tolerances import CROPS, LEAST_CROPS
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_float, read_grey
from ufuser.runtime.shapes import MULTIPLE
from ufuser.runtime.thermal.still import read_infrared
from ufuser.train.data import Pair

QUANTIZED = ("Conv", "ConvTranspose")
NARROW = 16  # channels in or out; below, a convolution gains less than its conversions cost
_STEP = 0.05  # share of the remaining layers that go back to float at a time


@dataclass(frozen=True)
class Calibration:
    """Pairs that the ranges are measured on, and other pairs that the result is compared over."""

    pairs: Sequence[Pair]
    validation: Sequence[Pair]
    crops: int = CROPS
    height: int = 256  # pixels of a crop; the whole height of smaller pictures
    width: int = 320

    def check(self) -> None:
        """Raise InputError for too few crops, or no pairs on one side."""
        if self.crops < LEAST_CROPS:
            raise InputError(f"crops={self.crops}: expected {LEAST_CROPS} or more", argument="crops")
        if not self.pairs or not self.validation:
            raise InputError(
                f"{len(self.pairs)} pairs to calibrate with, {len(self.validation)} to validate with: expected both"
            )

    def samples(self) -> list[tuple[Image, Image]]:
        """The crops, 1×1×h×w each: every pair in turn, at positions seeded by the crop's number."""
        taken = []
        for number in range(self.crops):
            pair = self.pairs[number % len(self.pairs)]
            ir, vi = as_float(read_infrared(pair.ir)), as_float(read_grey(pair.vi))
            rng = np.random.default_rng(number)
            height, width = (
                min(wanted, side // MULTIPLE * MULTIPLE)
                for wanted, side in ((self.height, ir.shape[0]), (self.width, ir.shape[1]))
            )
            top, left = (
                int(rng.integers(side - w + 1)) for side, w in zip(ir.shape, (height, width), strict=True)
            )
            window = slice(top, top + height), slice(left, left + width)
            taken.append((ir[window][None, None].copy(), vi[window][None, None].copy()))
        return taken


@dataclass(frozen=True)
class Quantized:
    """A quantized model."""

    model: onnx.ModelProto
    difference: Difference  # from fp32 on the validation pairs
    sensitivity: dict[str, float]  # dB of the network with this layer alone in INT8, costliest first
    kept_float: tuple[str, ...]  # layers that stay in float for quality
    layers: int  # in INT8


class _Crops(CalibrationDataReader):  # type: ignore[misc]  # untyped base
    def __init__(self, samples: Sequence[tuple[Image, Image]]) -> None:
        self._left = iter(tqdm(samples, desc="calibrating", unit="crop"))

    def get_next(self) -> dict[str, Image] | None:
        pair = next(self._left, None)
        return None if pair is None else {"ir": pair[0], "vi": pair[1]}


def quantize(
    model: onnx.ModelProto,
    calibration: Calibration,
    target: str,
    floor_db: float,
    report: Callable[[str], None],
) -> Quantized:
    """An INT8 (QDQ) copy of an fp32 model.

    Args:
        model: from `ufuser.export.exporter.trace`.
        calibration: pairs for the ranges and for the comparison.
        target: `cpu`: unsigned activations, weights of 7 bits, because the 8-bit products of processors
            without VNNI instructions saturate; `tensorrt`: symmetric, 8 bits, biases in float, outputs left
            to TensorRT's fusion.
        floor_db: least PSNR against fp32 on the validation pairs.
        report: receives a line about each step.

    Raises:
        InputError: too few crops, no layer that gains by INT8, or the floor is not reached with any layer in INT8.
    """
    calibration.check()
    tool, layers = prepare(model, calibration.samples(), target)
    sensitivity = _sensitivity(tool, layers, calibration.samples()[:2])
    report("costliest layers, network with that layer alone in INT8 against fp32:")
    for layer, decibels in list(sensitivity.items())[:8]:
        report(f"  {decibels:5.1f} dB  {layer}")
    reference = _cached(onnx_network(tool.plain.SerializeToString()))
    samples = list(real_samples(calibration.validation))
    costliest = list(sensitivity)
    left_out = 0
    while left_out < len(costliest):
        kept = costliest[left_out:]
        quantized = tool.quantized([node for layer in kept for node in layers[layer]])
        difference = compare(reference, tool.network(quantized), samples)
        report(f"{len(kept)} layers in INT8, {left_out} left in float: {difference}")
        if difference.psnr_db >= floor_db:
            onnx.checker.check_model(quantized, full_check=True)
            return Quantized(quantized, difference, sensitivity, tuple(costliest[:left_out]), len(kept))
        left_out += max(1, round(_STEP * len(kept)))
    raise InputError(
        f"no INT8 layer is left and {floor_db:.0f} dB against fp32 are not reached: are the calibration pairs "
        f"like the validation pairs?"
    )


def prepare(
    model: onnx.ModelProto, samples: Sequence[tuple[Image, Image]], target: str
) -> tuple[Quantizer, dict[str, list[str]]]:
    """A quantizer with ranges measured over the samples, and the layers that gain by INT8 (`quantizable`).

    Raises:
        InputError: there is no such layer.
    """
    named = _prepared(model)
    layers = quantizable(named)
    if not layers:
        raise InputError(
            f"no layer of this network gains by INT8: expected convolutions larger than 1x1, in one group, with "
            f"{NARROW} channels or more in and out; export it with --precision fp16 or fp32"
        )
    with tempfile.TemporaryDirectory() as folder:
        ranges = _ranges(named, samples, target, Path(folder))
    return Quantizer(named, ranges, target), layers


def quantizable(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Layers that gain by INT8: names of their nodes by names of their weights.

    A layer that both pictures go through is two nodes of the same weights.

    Grouped convolutions, those with fewer than `NARROW` channels in or out, and those of one pixel or position stay
    in float: they gain nothing (and the means and variances of the norms are among them).
    """
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type not in QUANTIZED or node.input[1] not in shapes:
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        outputs, inputs, *kernel = shapes[node.input[1]]
        if groups == 1 and min(outputs, inputs) >= NARROW and prod(kernel) > 1:
            found.setdefault(node.input[1].removesuffix(".weight"), []).append(node.name)
    return found


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a unique name and every tensor a type."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for number, node in enumerate(named.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{number}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inferred.onnx"
        quant_pre_process(named, str(path), skip_optimization=True, skip_symbolic_shape=True)
        return onnx.load(path)


def _ranges(
    model: onnx.ModelProto, samples: Sequence[tuple[Image, Image]], target: str, folder: Path
) -> TensorsData:
    """Smallest and largest value of every convolution's input and output over the crops."""
    path = folder / "calibrated.onnx"
    onnx.save(model, path)
    calibrator = create_calibrator(
        path,
        list(QUANTIZED),
        str(folder / "augmented.onnx"),
        CalibrationMethod.MinMax,
        extra_options={"symmetric": target == "tensorrt"},
    )
    calibrator.collect_data(_Crops(samples))
    return calibrator.compute_data()


class Quantizer:
    """Quantizes any choice of layers with ranges that were measured once."""

    def __init__(self, model: onnx.ModelProto, ranges: TensorsData, target: str) -> None:
        self.plain, self._ranges, self._target = model, ranges, target

    def quantized(self, nodes: Sequence[str]) -> onnx.ModelProto:
        """A copy of the model with these nodes, by name, between quantize and dequantize nodes.

        Expects at least one name: the library quantizes every node for an empty list.
        """
        for_cpu = self._target == "cpu"
        options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": not for_cpu}
        if not for_cpu:
            options |= {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": list(QUANTIZED)}
        tool = QDQQuantizer(
            copy.deepcopy(self.plain),
            per_channel=True,
            reduce_range=for_cpu,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8 if for_cpu else QuantType.QInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=list(QUANTIZED),
            extra_options=options,
        )
        tool.quantize_model()
        tool.model.topological_sort()
        model: onnx.ModelProto = tool.model.model
        del model.graph.value_info[:]
        return model

    def network(self, model: onnx.ModelProto) -> Network:
        """The quantized model as a function: by ONNX Runtime's INT8 kernels, or simulated in float for TensorRT's."""
        content = model.SerializeToString()
        return onnx_network(content) if self._target == "cpu" else simulated(content)


def simulated(model: bytes) -> Network:
    """A QDQ model whose convolutions compute in float between rounding to 8 bits, as written in the graph."""
    return onnx_network(model, optimized=False)


def _sensitivity(
    tool: Quantizer, layers: dict[str, list[str]], crops: Sequence[tuple[Image, Image]]
) -> dict[str, float]:
    """PSNR against fp32 of the network with each layer alone in INT8, the costliest layer first."""
    small = [(ir[..., :128, :160], vi[..., :128, :160]) for ir, vi in crops]
    small = [(np.ascontiguousarray(ir), np.ascontiguousarray(vi)) for ir, vi in small]
    plain = simulated(tool.plain.SerializeToString())
    expected = [plain(ir, vi) for ir, vi in small]
    found = {}
    for layer, nodes in tqdm(layers.items(), desc="sensitivity", unit="layer"):
        run = simulated(tool.quantized(nodes).SerializeToString())
        squares = [
            float(np.mean((run(ir, vi) - answer) ** 2))
            for (ir, vi), answer in zip(small, expected, strict=True)
        ]
        found[layer] = psnr(float(np.mean(squares)))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _cached(network: Network) -> Network:
    """A network that computes each picture once: every round compares the same pictures with the reference."""
    answers: dict[int, tuple[Image, Image]] = {}

    def run(ir: Image, vi: Image) -> Image:
        if id(ir) not in answers:
            answers[id(ir)] = ir, network(ir, vi)  # holding ir keeps its id unique
        return answers[id(ir)][1]

    return run


def split(pairs: Sequence[Pair], validation: Sequence[str] | None) -> tuple[list[Pair], list[Pair]]:
    """(calibration, validation): by names, or every eighth pair for validation."""
    if validation is None:
        return [p for n, p in enumerate(pairs) if n % 8], [p for n, p in enumerate(pairs) if n % 8 == 0]
    names = set(validation)
    return [p for p in pairs if p.name not in names], [p for p in pairs if p.name in names]
