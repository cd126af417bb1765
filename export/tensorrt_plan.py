"""What shall be built: an ONNX file, optimization profiles and build options, with the key of their engine.

Nothing here needs TensorRT or a GPU.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from ufuser.export.onnx_file import load_onnx, metadata_of
from ufuser.export.tensorrt_operators import refused
from ufuser.runtime.engines import INPUTS, OUTPUT
from ufuser.runtime.engines.manifest import DeviceFacts, engine_folder, engine_key, manifest_path
from ufuser.runtime.engines.profiles import Profile, check_profiles
from ufuser.runtime.errors import InputError

_QUANTIZED_ZERO = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8"}


@dataclass(frozen=True)
class BuildFlags:
    """Options that change the engine; all of them are in its key, by these names."""

    workspace_mib: int = 1024  # most scratch memory a layer may use, while building and running
    optimization_level: int = 3  # 0 builds fastest, 5 searches longest
    tf32: bool = False  # let float32 convolutions and matrix products round to 10 bits of mantissa
    version_compatible: bool = False  # runs in later releases of the same major version
    hardware_compatible: bool = False  # runs on every GPU from Ampere on, slower than tuned for one
    refit: bool = False  # weights can be exchanged in place

    def check(self) -> None:
        """Raise InputError for values TensorRT would refuse."""
        if self.workspace_mib < 1:
            raise InputError(f"--workspace {self.workspace_mib}: expected MiB, 1 or more")
        if not 0 <= self.optimization_level <= 5:
            raise InputError(f"--optimization-level {self.optimization_level}: expected 0 to 5")


@dataclass(frozen=True)
class Plan:
    """One engine to be."""

    onnx: Path
    onnx_sha256: str
    metadata: Mapping[str, str]  # the ONNX file's
    profiles: tuple[Profile, ...]
    flags: BuildFlags
    out: Path
    remarks: tuple[str, ...]  # what the user should know before building

    @property
    def precision(self) -> str:
        """What the ONNX file says of itself."""
        return self.metadata.get("precision", "fp32")

    @property
    def timing_cache(self) -> Path:
        """Beside the engine: it makes a second build of a like network several times faster."""
        return self.out.with_name(self.out.name + ".timing")

    def key(self, device: DeviceFacts | None) -> str:
        """The engine's key on a device, or without one where there is none to ask."""
        facts = device.key if device else {}
        return engine_key(self.onnx_sha256, facts, self.profiles, asdict(self.flags))

    def command(self) -> str:
        """The `ufuser-build` line that builds this."""
        words = ["ufuser-build", "--onnx", str(self.onnx)]
        for profile in self.profiles:
            words += ["--min", str(profile.low), "--opt", str(profile.best), "--max", str(profile.high)]
        default = BuildFlags()
        if self.flags.workspace_mib != default.workspace_mib:
            words += ["--workspace", str(self.flags.workspace_mib)]
        if self.flags.optimization_level != default.optimization_level:
            words += ["--optimization-level", str(self.flags.optimization_level)]
        switches = ("tf32", "version_compatible", "hardware_compatible", "refit")
        words += ["--" + name.replace("_", "-") for name in switches if getattr(self.flags, name)]
        return shlex.join([*words, "--out", str(self.out)])

    def trtexec(self, executable: str = "trtexec") -> list[str]:
        """The equivalent trtexec lines. trtexec builds one profile an engine: several profiles, several lines."""
        lines = []
        for number, profile in enumerate(self.profiles):
            several = len(self.profiles) > 1
            engine = self.out.with_suffix(f".profile{number}{self.out.suffix}") if several else self.out
            words = [executable, f"--onnx={self.onnx}", f"--saveEngine={engine}", "--stronglyTyped"]
            for option, extent in (
                ("minShapes", profile.low),
                ("optShapes", profile.best),
                ("maxShapes", profile.high),
            ):
                shape = "x".join(map(str, extent.shape))
                words.append(f"--{option}=" + ",".join(f"{name}:{shape}" for name in INPUTS))
            words += [
                f"--memPoolSize=workspace:{self.flags.workspace_mib}",
                f"--builderOptimizationLevel={self.flags.optimization_level}",
                f"--timingCacheFile={self.timing_cache}",
                "--profilingVerbosity=detailed",
                "--skipInference",
            ]
            words += [] if self.flags.tf32 else ["--noTF32"]
            words += ["--versionCompatible"] if self.flags.version_compatible else []
            words += ["--hardwareCompatibilityLevel=ampere+"] if self.flags.hardware_compatible else []
            words += ["--refit"] if self.flags.refit else []
            lines.append(shlex.join(words))
        return lines

    def script(self) -> str:
        """A shell script that builds the engine with a Jetson's trtexec and gives it its manifest.

        Raises InputError for several profiles, which trtexec does not put into one engine.
        """
        if len(self.profiles) > 1:
            raise InputError(
                f"--script with {len(self.profiles)} profiles: trtexec builds one profile an engine; write a "
                f"script each, or run `ufuser-build` on the device"
            )
        (line,) = self.trtexec("$TRTEXEC")
        return "\n".join(
            (
                "#!/bin/sh",
                f"# Builds {self.out.name} from {self.onnx.name} on this machine. Generated by ufuser-build --script.",
                "set -eu",
                "TRTEXEC=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}",
                line.replace("'$TRTEXEC'", '"$TRTEXEC"'),
                "# The runtime loads no engine without a manifest.",
                f"{self.command()} --adopt",
                "",
            )
        )


def make_plan(onnx_file: Path, profiles: Sequence[Profile], flags: BuildFlags, out: Path | None) -> Plan:
    """Check everything that can be checked without a GPU.

    Args:
        onnx_file: written by `ufuser-export`.
        profiles: one or more.
        flags: build options.
        out: the engine file; None keeps it in the user's cache folder under its key.

    Raises:
        InputError: not an ONNX file of ours, wrong input names, quantised for a CPU only, an operator or a
            type that TensorRT's parser isn't known to take; profiles out of order; a place that can't be
            written.
    """
    flags.check()
    content, model = load_onnx(onnx_file)
    _check_inputs(onnx_file, model)
    _check_quantization(onnx_file, model)
    _check_operators(onnx_file, model)
    remarks = check_profiles(profiles)
    digest = hashlib.sha256(content).hexdigest()
    if out is None:
        out = kept_place(onnx_file, engine_key(digest, {}, tuple(profiles), asdict(flags)))
    elif out.suffix != ".engine":
        raise InputError(f"--out {out}: expected a name that ends in .engine")
    elif not out.parent.is_dir() or out.is_dir():
        raise InputError(f"cannot write {out}: expected a file name in a folder that exists")
    return Plan(onnx_file, digest, metadata_of(model), tuple(profiles), flags, out, tuple(remarks))


def kept_place(onnx_file: Path, key: str) -> Path:
    """Where an engine without a place of its own is kept: the runtime looks there."""
    return engine_folder() / f"{onnx_file.stem}-{key[:12]}.engine"


def describe(plan: Plan, device: DeviceFacts | None) -> str:
    """The plan for a person to read: what, from what, under which key, and trtexec's equivalent."""
    where = str(device) if device else "no GPU here: the key is of this plan without a device"
    lines = [
        f"engine        {plan.out}",
        f"manifest      {manifest_path(plan.out).name}, timing cache {plan.timing_cache.name}",
        f"from          {plan.onnx} ({plan.precision}, SHA-256 {plan.onnx_sha256[:16]}…), strongly typed",
        *(f"profile {n}     {profile}" for n, profile in enumerate(plan.profiles)),
        "flags         " + ", ".join(f"{k} {v}" for k, v in asdict(plan.flags).items()),
        f"device        {where}",
        f"key           {plan.key(device)}",
        *(f"note          {remark}" for remark in plan.remarks),
        *(f"trtexec       {line}" for line in plan.trtexec()),
    ]
    return "\n".join(lines)


def _check_inputs(path: Path, model: onnx.ModelProto) -> None:
    initializers = {t.name for t in model.graph.initializer}
    found = {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
        if value.name not in initializers
    }
    fits = set(found) == {*INPUTS, OUTPUT} and all(
        kind == "FLOAT" and len(shape) == 4 and shape[1] == 1 and all(isinstance(s, str) for s in shape[2:])
        for kind, shape in found.values()
    )
    if not fits:
        said = ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in found.items())
        raise InputError(
            f"{path} is no fusion model: it has {said}; expected inputs ir, vi and output fused, FLOAT, "
            f"[batch, 1, height, width] with dynamic height and width, as `ufuser-export` writes them"
        )


def _check_quantization(path: Path, model: onnx.ModelProto) -> None:
    """TensorRT quantises symmetrically: it takes int8 with a zero point of 0 and nothing else."""
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero = tensors.get(node.input[2])
        if zero is None:
            continue
        if zero.data_type != onnx.TensorProto.INT8 or onnx.numpy_helper.to_array(zero).any():
            kind = _QUANTIZED_ZERO.get(zero.data_type, "another type")
            raise InputError(
                f"{path} is quantised for a CPU ({node.name}: {kind}, or a zero point other than 0), which "
                f"TensorRT does not take: export it with --precision int8 --int8-for tensorrt"
            )


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    objections = refused(model)
    if objections:
        more = f" and {len(objections) - 4} more" if len(objections) > 4 else ""
        raise InputError(
            f"{path} holds what TensorRT's ONNX parser is not known to take: {', '.join(objections[:4])}{more}; "
            f"expected a graph of `ufuser-export`"
        )
