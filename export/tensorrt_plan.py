"""Plans of engines: an ONNX file, optimization profiles and build options, with the key of the engine.

Nothing here needs TensorRT, onnx or a GPU.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ufuser.runtime.engines import INPUTS
from ufuser.runtime.engines.manifest import DeviceFacts, engine_folder, engine_key, manifest_path
from ufuser.runtime.engines.profiles import Profile
from ufuser.runtime.errors import InputError


@dataclass(frozen=True)
class BuildFlags:
    """Options that change the engine; its key contains all of them, by these names."""

    workspace_mib: int = 1024  # largest scratch memory of a layer, while building and running
    optimization_level: int = 3  # 0 builds fastest, 5 searches longest
    tf32: bool = False  # let float32 convolutions and matrix products round to 10 bits of mantissa
    version_compatible: bool = False  # runs in later releases of the same major version
    hardware_compatible: bool = False  # runs on every GPU from Ampere on, slower than tuned for one
    refit: bool = False  # weights can be exchanged in place

    def check(self) -> None:
        """Raise InputError for values that TensorRT refuses."""
        if self.workspace_mib < 1:
            raise InputError(f"workspace={self.workspace_mib}: expected MiB, 1 or more", argument="workspace")
        if not 0 <= self.optimization_level <= 5:
            raise InputError(
                f"optimization_level={self.optimization_level}: expected 0 to 5",
                argument="optimization_level",
            )


@dataclass(frozen=True)
class Plan:
    """One engine to build."""

    onnx: Path
    onnx_sha256: str
    metadata: Mapping[str, str]  # the ONNX file's
    profiles: tuple[Profile, ...]
    flags: BuildFlags
    out: Path
    remarks: tuple[str, ...]  # shown before building

    @property
    def precision(self) -> str:
        """The precision in the ONNX file's metadata."""
        return self.metadata.get("precision", "fp32")

    @property
    def timing_cache(self) -> Path:
        """Beside the engine: it makes a second build of a similar network several times faster."""
        return self.out.with_name(self.out.name + ".timing")

    def key(self, device: DeviceFacts | None) -> str:
        """The engine's key on a device, or without a device."""
        facts = device.key if device else {}
        return engine_key(self.onnx_sha256, facts, self.profiles, asdict(self.flags))

    def command(self) -> str:
        """The `ufuser build` line that builds this."""
        words = ["ufuser", "build", "--onnx", str(self.onnx)]
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
        """The equivalent trtexec lines, one per profile: trtexec builds engines of one profile."""
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
        """A shell script that builds the engine with a Jetson's trtexec and writes its manifest.

        Raises InputError for several profiles, which trtexec cannot combine in one engine, and for hardware
        compatibility, which Jetsons do not have.
        """
        if len(self.profiles) > 1:
            raise InputError(
                f"{len(self.profiles)} profiles: trtexec builds engines of one profile; write one script per "
                f"profile, or run `ufuser build` on the device",
                argument="script",
            )
        if self.flags.hardware_compatible:
            raise InputError(
                "hardware_compatible: the script is for a Jetson, where TensorRT has no hardware-compatible "
                "engines: leave it out",
                argument="hardware_compatible",
            )
        (line,) = self.trtexec("$TRTEXEC")
        return "\n".join(
            (
                "#!/bin/sh",
                f"# Builds {self.out.name} from {self.onnx.name} on this machine. Generated by ufuser build --script.",
                "set -eu",
                "TRTEXEC=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}",
                line.replace("'$TRTEXEC'", '"$TRTEXEC"'),
                "# The runtime loads only engines with a manifest.",
                f"{self.command()} --adopt",
                "",
            )
        )


def cached_path(onnx_file: Path, key: str) -> Path:
    """The engine's path in the user's cache folder, where the runtime looks."""
    return engine_folder() / f"{onnx_file.stem}-{key[:12]}.engine"


def describe(plan: Plan, device: DeviceFacts | None) -> str:
    """The plan as text: engine, sources, key, and the equivalent trtexec line."""
    where = str(device) if device else "no GPU here: the key is that of this plan without a device"
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
