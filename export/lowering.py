"""A graph in a lower precision: made, compared with fp32, and refused where it is too far off.

What it was compared over and how far it is goes into the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from ufuser.export.fidelity import (
    PARITY_SHAPES,
    Difference,
    compare,
    onnx_network,
    pairs_in,
    real_samples,
    synthetic_samples,
    torch_network,
)
from ufuser.export.onnx_file import add_metadata
from ufuser.export.precision import PSNR_FLOOR
from ufuser.runtime.errors import InputError


@dataclass(frozen=True)
class Lowering:
    """Which precision below float32, and by which pictures it is made and judged."""

    precision: str = "fp32"
    pairs: Path | None = None  # folder with ir/ and vi/; needed for int8, else the error is on made pictures
    validation: Path | None = (
        None  # names of those pairs that judge; None takes every eighth for int8, else all
    )
    target: str = "cpu"  # of int8: see `int8.TARGETS`
    crops: int = 48  # to calibrate int8 with

    def check(self) -> None:
        """Raise InputError for what can't be carried out."""
        if self.precision == "int8" and self.pairs is None:
            raise InputError(
                "--precision int8 without --calibration: expected a folder of real pairs, DIR/ir and DIR/vi"
            )
        if self.validation is not None and self.pairs is None:
            raise InputError("--validation without --calibration: expected the folder whose pairs it names")


def lower(
    reference: nn.Module, proto: onnx.ModelProto, lowering: Lowering, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    """The graph in the lower precision, with its error in its metadata.

    Args:
        reference: the network in fp32, in PyTorch.
        proto: its graph: for fp16 traced from the halved network, for int8 in fp32.
        lowering: which precision, and by which pictures.
        say: takes a line about each step.

    Raises:
        InputError: the PSNR against fp32 is below `PSNR_FLOOR`; too little to calibrate with.
    """
    if lowering.precision == "fp16":
        return _fp16(reference, proto, lowering, say)
    return _int8(proto, lowering, say)


def _fp16(
    reference: nn.Module, proto: onnx.ModelProto, lowering: Lowering, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    """The half-precision graph with its error in the metadata."""
    if lowering.pairs is None:
        samples, over = synthetic_samples(PARITY_SHAPES), "made pictures"
    else:
        pairs = pairs_in(lowering.pairs, lowering.validation)
        samples, over = real_samples(pairs), f"{len(pairs)} real pairs"
    say(f"comparing with fp32 over {over} …")
    found = compare(torch_network(reference), onnx_network(proto.SerializeToString()), samples)
    say(f"  {found}")
    if not found.psnr_db >= PSNR_FLOOR["fp16"]:
        raise InputError(
            f"fp16 reaches {found.psnr_db:.1f} dB against fp32, allowed is {PSNR_FLOOR['fp16']:.0f} or more: "
            f"this network's values leave half precision's range; nothing was written"
        )
    add_metadata(proto, _error_notes("fp16", found, over))
    return proto, found


def _int8(
    proto: onnx.ModelProto, lowering: Lowering, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, Difference]:
    """The quantised graph with its error and what was left in float in the metadata."""
    from ufuser.export import int8  # with ONNX Runtime's quantisation tools, which take seconds to import

    assert lowering.pairs is not None  # by `Lowering.check`
    pairs = pairs_in(lowering.pairs, None)
    names = [p.name for p in pairs_in(lowering.pairs, lowering.validation)] if lowering.validation else None
    calibration = int8.Calibration(*int8.split(pairs, names), lowering.crops)
    made = int8.quantize(proto, calibration, lowering.target, PSNR_FLOOR["int8"], say)
    notes = _error_notes("int8", made.difference, f"{made.difference.samples} real pairs")
    notes |= {
        "int8_for": lowering.target,
        "int8_layers": str(made.quantized),
        "int8_kept_float": json.dumps(made.kept_float),
        "int8_sensitivity_db": json.dumps({k: round(v, 1) for k, v in made.sensitivity.items()}),
    }
    add_metadata(made.model, notes)
    return made.model, made.difference


def _error_notes(precision: str, found: Difference, over: str) -> dict[str, str]:
    return {
        "precision": precision,
        "error_largest": f"{found.largest:.3e}",
        "error_mean": f"{found.mean:.3e}",
        "error_psnr_db": f"{found.psnr_db:.2f}",
        "error_lowest_psnr_db": f"{found.lowest_psnr_db:.2f}",
        "error_over": f"{over}, against fp32",
    }
