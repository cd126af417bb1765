"""The parts of an FNet's fused picture, and the thresholds that the network has learnt.

The graph's only output is the fused picture, so that engines need not keep the parts, which are inner tensors with
names given by `ufuser export`. Here they become outputs too, in a copy in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ufuser.export.fnet_parts import FEATURES, PARTS
from ufuser.export.onnx_file import load_onnx, metadata_of
from ufuser.runtime.engines import Image
from ufuser.runtime.engines.operators import require_no_control_flow
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.limits import require_threads
from ufuser.runtime.models import find_model
from ufuser.runtime.shapes import SMALLEST


class Thresholds(msgspec.Struct, frozen=True):
    """Learnt values of one sparse coding block, for k = 0 … N."""

    theta: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]
    """Below θ_k, a feature of iteration k is cut to nearly zero; falls with k."""
    rho: tuple[float, ...]
    """Weight of the momentum in iteration k; grows with k."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts of one fused pair: they add up to the fused picture before it is clipped and rounded."""

    fused: NDArray[Any]
    """From `Fuser.fuse`: in the visible picture's layout and dtype."""
    parts: Mapping[str, Image]
    """Of each of `PARTS`, H×W float32; 1 is the full scale. May be negative."""
    features: Mapping[str, Image]
    """Of each of `FEATURES`, H×W float32: mean magnitude over the features of a pixel."""
    kept: Mapping[str, float]
    """By part: share of its features with a magnitude over the last threshold, 0 to 1."""
    thresholds: Mapping[str, Thresholds]
    """By part."""


def explain(model: str | Path, ir: NDArray[Any], vi: NDArray[Any], threads: int | None = None) -> Explanation:
    """Fuse one registered pair and return its parts.

    Args:
        model: shipped model's name or ONNX file; its network must be FNet.
        ir, vi: as for `Fuser.fuse`.
        threads: CPU threads; None takes one per core.

    Raises:
        InputError: a model without parts, or pictures that `Fuser` refuses.
    """
    if threads is not None:
        require_threads(threads)
    path = find_model(model)
    engine = PartsEngine(path, threads)
    learnt = _learnt(path, engine.metadata)
    fused = Fuser(engine, learnt.shape_multiple, str(model)).fuse(ir, vi)
    height, width = fused.shape[:2]  # without the padding

    def inner(name: str) -> Image:
        found: Image = engine.found[name][0, :, :height, :width].astype(np.float32)
        return found

    features = {name: np.abs(inner(name)) / learnt.feature_scale for name in FEATURES}
    return Explanation(
        fused=fused,
        parts={name: inner(name)[0] for name in PARTS},
        features={name: x.mean(axis=0) for name, x in features.items()},
        kept={
            part: float((features[name] > learnt.thresholds[part].theta[-1]).mean())
            for part, name in zip(PARTS, FEATURES, strict=True)
        },
        thresholds=learnt.thresholds,
    )


class PartsEngine:
    """An `Engine` (see `ufuser.runtime.engines`) on the CPU by ONNX Runtime that keeps inner tensors."""

    def __init__(self, model: Path, threads: int | None) -> None:
        require_no_control_flow(model)
        proto = load_onnx(model)[1]
        self._metadata = metadata_of(proto)
        if "thresholds" not in self._metadata:
            network = self._metadata.get("model", "")
            raise InputError(
                f"{model} holds {f'the network {network!r}' if network else 'a network'}, whose answer has no parts: "
                f"expected fnet, or an ONNX file that `ufuser export` wrote from one"
            )
        made = {name for node in proto.graph.node for name in node.output}
        if not made.issuperset((*PARTS, *FEATURES)):
            raise InputError(
                f"{model} does not name its parts ({', '.join(PARTS)}): export it again with `ufuser export`"
            )
        add_outputs(proto, (*PARTS, *FEATURES))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # the bindings raise a class per status code, all derived from Exception alone
            reason = first_line(e)
            raise InputError(f"{model} cannot be loaded by ONNX Runtime: {reason}") from None
        self.found: dict[str, NDArray[Any]] = {}
        """The last run's inner tensors by name."""
        self._buffers: tuple[Image, Image, Image] | None = None

    @property
    def name(self) -> str:
        return "ONNX Runtime, parts"

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def close(self) -> None:
        self._session, self._buffers = None, None

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        shape = (height, width) if batch == 1 else (batch, height, width)
        if self._buffers is None or self._buffers[0].shape != shape:
            ir, vi, fused = (np.zeros(shape, np.float32) for _ in range(3))
            self._buffers = ir, vi, fused
        return self._buffers

    def run(self) -> None:
        if self._buffers is None:
            raise RuntimeError("run before bind: there are no pictures to fuse")
        ir, vi, fused = self._buffers
        names = ("fused", *PARTS, *FEATURES)
        feeds = {name: x.reshape(-1, 1, *x.shape[-2:]) for name, x in (("ir", ir), ("vi", vi))}
        answers = self._session.run(list(names), feeds)
        self.found = dict(zip(names, answers, strict=True))
        fused[:] = self.found["fused"].reshape(fused.shape)


def add_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make inner tensors outputs as well, in place. The engine infers their types."""
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)


class _Metadata(msgspec.Struct):
    thresholds: dict[str, Thresholds]  # by part
    feature_scale: Annotated[float, msgspec.Meta(gt=0)]  # by which the graph multiplies its features
    shape_multiple: Annotated[int, msgspec.Meta(ge=1, le=SMALLEST)]


def _learnt(model: Path, metadata: Mapping[str, str]) -> _Metadata:
    """The metadata that the exporter wrote. Raises InputError for missing or damaged values."""
    try:
        values = {**metadata, "thresholds": msgspec.json.decode(metadata["thresholds"])}
        found = msgspec.convert(values, _Metadata, strict=False)
        if set(found.thresholds) == set(PARTS):
            return found
    except msgspec.MsgspecError:
        pass
    raise InputError(
        f"{model} has damaged 'thresholds', 'feature_scale' or 'shape_multiple' in its metadata: export it again "
        f"with `ufuser export`"
    )
