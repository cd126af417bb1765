"""A graph in a lower precision: made, compared with fp32, refused if it is too far off.

The file's metadata name the pictures it was compared over and the difference found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from ufuser.export.fidelity import (
    Difference,
    compare,
    onnx_network,
    pairs_in,
    real_samples,
    synthetic_samples,
    torch_network,
)
from ufuser.export.onnx_file import add_metadata
from ufuser.export.tolerances import CROPS, PARITY_SHAPES, PSNR_FLOOR
from ufuser.runtime.errors import InputError


@dataclass(frozen=True)
class Lowering:
    """A precision below float32, and the pictures it is calibrated with and compared over."""

    precision: str = "fp32"
    calibration: Path | None = None  # folder with ir/ and vi/; required for int8, optional for fp16
    validation: Path | None = (
        None  # stems of the pairs to compare over; None: every eighth for int8, else all
    )
    target: str = "cpu"  # of int8, one of `INT8_TARGETS`
    crops: int = CROPS  # to calibrate int8 with

    def check(self) -> None:
        """Raise InputError for options that contradict each other, and for pairs that are not there."""
        if self.precision == "int8" and self.calibration is None:
            raise InputError(
                "precision='int8': expected calibration too, a folder of real pairs DIR/ir and DIR/vi",
                argument="precision",
            )
        if self.validation is not None and self.calibration is None:
            raise InputError(
                "expected calibration too, the folder whose pairs it names", argument="validation"
            )
        if self.calibration is not None:
            pairs_in(self.calibration, self.validation)


def lower(
    reference: nn.Module, proto: onnx.ModelProto, lowering: Lowering, report: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    """The graph in the lower precision, with its error in its metadata.

    Args:
        reference: the network in fp32, in PyTorch.
        proto: its graph: for fp16 traced from the halved network, for int8 in fp32.
        lowering: the precision and the pictures.
        report: receives a line about each step.

    Raises:
        InputError: the PSNR against fp32 is below `PSNR_FLOOR`; too few pictures to calibrate with.
    """
    if lowering.precision == "fp16":
        return _fp16(reference, proto, lowering, report)
    if lowering.calibration is None:
        raise InputError("int8 without pictures to calibrate with", argument="calibration")
    return _int8(proto, lowering, lowering.calibration, report)


def _fp16(
    reference: nn.Module, proto: onnx.ModelProto, lowering: Lowering, report: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    if lowering.calibration is None:
        samples, over = synthetic_samples(PARITY_SHAPES), "synthetic pictures"
    else:
        pairs = pairs_in(lowering.calibration, lowering.validation)
        samples, over = real_samples(pairs), f"{len(pairs)} real pairs"
    report(f"comparing with fp32 over {over} …")
    found = compare(torch_network(reference), onnx_network(proto.SerializeToString()), samples)
    report(f"  {found}")
    if not found.psnr_db >= PSNR_FLOOR["fp16"]:
        raise InputError(
            f"fp16 reaches {found.psnr_db:.1f} dB against fp32, expected {PSNR_FLOOR['fp16']:.0f} or more: "
            f"values of this network leave the range of half precision; nothing was written"
        )
    add_metadata(proto, _error_notes("fp16", found, over))
    return proto, found


def _int8(
    proto: onnx.ModelProto, lowering: Lowering, folder: Path, report: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    from ufuser.export import int8  # imports ONNX Runtime's quantization tools, which takes seconds

    pairs = pairs_in(folder, None)
    names = [p.name for p in pairs_in(folder, lowering.validation)] if lowering.validation else None
    calibration = int8.Calibration(*int8.split(pairs, names), lowering.crops)
    quantized = int8.quantize(proto, calibration, lowering.target, PSNR_FLOOR["int8"], report)
    notes = _error_notes("int8", quantized.difference, f"{quantized.difference.samples} real pairs")
    notes |= {
        "int8_for": lowering.target,
        "int8_layers": str(quantized.layers),
        "int8_kept_float": json.dumps(quantized.kept_float),
        "int8_sensitivity_db": json.dumps({k: round(v, 1) for k, v in quantized.sensitivity.items()}),
    }
    add_metadata(quantized.model, notes)
    return quantized.model, quantized.difference


def _error_notes(precision: str, found: Difference, over: str) -> dict[str, str]:
    return {
        "precision": precision,
        "error_largest": f"{found.largest:.3e}",
        "error_mean": f"{found.mean:.3e}",
        "error_psnr_db": f"{found.psnr_db:.2f}",
        "error_lowest_psnr_db": f"{found.lowest_psnr_db:.2f}",
        "error_over": f"{over}, against fp32",
    }
