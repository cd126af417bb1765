"""What an FNet's fused picture is made of: the parts that its graph names, and the thresholds that it has learnt.

Its graph answers the fused picture alone, so that no engine keeps what nobody asks for; the parts are tensors inside
(`ufuser-export` gives them their names). Here they are made outputs as well, in a copy in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.engines import Image
from ufuser.runtime.errors import InputError
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.models import find_model
from ufuser.runtime.shapes import SMALLEST

PARTS = ("unique_ir", "common", "unique_vi")
"""What each adds to the fused picture, B×1×H×W, in the order of the paper's figures."""
FEATURES = ("features_ir", "features_common", "features_vi")
"""What each part is made from, B×64×H×W."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What one sparse coding block has learnt, for k = 0 … N."""

    theta: tuple[float, ...]
    """Below θ_k a feature of iteration k is cut to (all but) zero; falls with k."""
    rho: tuple[float, ...]
    """Weight of the momentum in iteration k; grows with k."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One pair, taken apart. The three parts add up to the fused picture before it is clipped and rounded."""

    fused: NDArray[Any]
    """As `Fuser.fuse` gives it: in the visible picture's layout and dtype."""
    parts: Mapping[str, Image]
    """Of each of `PARTS`, H×W float32; 1 is the full scale. May be negative."""
    features: Mapping[str, Image]
    """Of each of `FEATURES`, H×W float32: mean magnitude over the features of a pixel."""
    kept: Mapping[str, float]
    """By part: share of its features whose magnitude is over the last threshold, 0 to 1."""
    thresholds: Mapping[str, Thresholds]
    """By part."""


def explain(model: str | Path, ir: NDArray[Any], vi: NDArray[Any], threads: int | None = None) -> Explanation:
    """Fuse one registered pair and take the answer apart.

    Args:
        model: shipped model's name or ONNX file; its network must be FNet.
        ir, vi: as `Fuser.fuse` takes them.
        threads: CPU threads; None takes one per core.

    Raises:
        InputError: a model without parts, or what `Fuser` refuses.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: expected at least 1")
    path = find_model(model)
    engine = PartsEngine(path, threads)
    thresholds, scale, multiple = _learnt(path, engine.metadata)
    fused = Fuser(engine, multiple, str(model)).fuse(ir, vi)
    height, width = fused.shape[:2]  # without what was mirrored at the borders

    def inner(name: str) -> Image:
        found: Image = engine.found[name][0, :, :height, :width].astype(np.float32)
        return found

    features = {name: np.abs(inner(name)) / scale for name in FEATURES}
    return Explanation(
        fused=fused,
        parts={name: inner(name)[0] for name in PARTS},
        features={name: x.mean(axis=0) for name, x in features.items()},
        kept={
            part: float((features[name] > thresholds[part].theta[-1]).mean())
            for part, name in zip(PARTS, FEATURES, strict=True)
        },
        thresholds=thresholds,
    )


class PartsEngine:
    """An `Engine` (see `ufuser.runtime.engines`) on the CPU by ONNX Runtime that keeps inner tensors."""

    def __init__(self, model: Path, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError('onnxruntime is not installed: pip install "ufuser[cpu]"') from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        try:
            content = model.read_bytes()
            plain = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as e:  # the bindings raise a class per status code, all derived from Exception alone
            reason = str(e).strip().splitlines()[0][:200]
            raise InputError(f"{model} is not an ONNX file that ONNX Runtime can load: {reason}") from None
        self._metadata = dict(plain.get_modelmeta().custom_metadata_map)
        self.found: dict[str, NDArray[Any]] = {}
        """The last run's inner tensors by name."""
        if "thresholds" not in self._metadata:
            network = self._metadata.get("model", "")
            raise InputError(
                f"{model} holds {f'the network {network!r}' if network else 'a network'}, whose answer has no parts: "
                f"expected fnet, or an ONNX file that `ufuser-export` made of one"
            )
        try:
            opened = with_outputs(content, (*PARTS, *FEATURES))
            self._session: Any = onnxruntime.InferenceSession(opened, options, providers=providers)
        except Exception as e:  # as above
            raise InputError(
                f"{model} does not name its parts ({', '.join(PARTS)}): export it anew with `ufuser-export`"
            ) from e
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
        assert self._buffers is not None  # by `bind`
        ir, vi, fused = self._buffers
        names = ("fused", *PARTS, *FEATURES)
        feeds = {name: x.reshape(-1, 1, *x.shape[-2:]) for name, x in (("ir", ir), ("vi", vi))}
        answers = self._session.run(list(names), feeds)
        self.found = dict(zip(names, answers, strict=True))
        fused[:] = self.found["fused"].reshape(fused.shape)


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """A serialised ONNX model in which the tensors of these names are outputs, too.

    Protocol buffers that follow one another are one message: fields that may repeat are added, messages within are
    merged. So a model followed by one with nothing but `graph.output` has those outputs besides its own. The `onnx`
    package would say the same, but the runtime does without it. Their types are left for the engine to infer.
    """

    def field(number: int, content: bytes) -> bytes:
        length = bytearray()
        rest = len(content)
        while rest > 127:
            length.append(rest & 127 | 128)
            rest >>= 7
        return bytes([number << 3 | 2, *length, rest]) + content

    # ModelProto.graph is field 7, GraphProto.output 12, ValueInfoProto.name 1.
    outputs = b"".join(field(12, field(1, name.encode())) for name in names)
    return model + field(7, outputs)


def _learnt(model: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Thresholds], float, int]:
    """The thresholds by part, how many times as large the graph carries its features, and its sizes' multiple."""
    try:
        table = json.loads(metadata["thresholds"])
        found = {
            part: Thresholds(*(tuple(map(float, table[part][key])) for key in ("theta", "rho")))
            for part in PARTS
        }
        scale, multiple = float(metadata["feature_scale"]), int(metadata["shape_multiple"])
    except (KeyError, TypeError, ValueError):
        found, scale, multiple = {}, 0.0, 0
    if not (scale > 0 and 1 <= multiple <= SMALLEST and found and all(t.theta for t in found.values())):
        raise InputError(
            f"{model} has damaged 'thresholds', 'feature_scale' or 'shape_multiple' in its metadata: export it anew "
            f"with `ufuser-export`"
        )
    return found, scale, multiple
