"""The JSON manifest beside a TensorRT engine: its ONNX file, its machine and its build options.

An engine file holds none of this; on another machine it fails late or runs badly tuned. `ufuser build` writes the
manifest, and the runtime compares it with the machine before it loads the engine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ufuser.runtime.board import is_jetson_gpu
from ufuser.runtime.engines.profiles import Profile
from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import load_json

Flags = Mapping[str, bool | int]
"""Build options by name."""
VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version_compatible", "hardware_compatible"
"""Build flags that relax the comparison with the machine."""
_AMPERE = 8
"""Lowest major compute capability on which hardware-compatible engines run."""


class DeviceFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine that an engine depends on, with facts that explain a failure. "" is unknown."""

    tensorrt: str
    gpu: str
    compute_capability: str
    """As in "8.7"."""
    cuda: str = ""
    """Version of CUDA that PyCUDA was built with."""
    driver: str = ""
    """Highest version of CUDA that the driver supports."""
    l4t: str = ""
    """Jetson Linux release, as in "36.4.3"; "" on other machines and where a container hides it."""

    @property
    def key(self) -> dict[str, str]:
        """The part of an engine's key that describes the machine."""
        return {
            "tensorrt": self.tensorrt,
            "gpu": self.gpu,
            "compute_capability": self.compute_capability,
        }

    @property
    def jetson(self) -> bool:
        """Whether the GPU is a Jetson's."""
        return is_jetson_gpu(self.compute_capability)

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} (compute capability {self.compute_capability})"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The origin of one engine."""

    key: str
    """See `engine_key`; engines with equal keys are the same."""
    onnx: str
    """Name of the ONNX file without its folder."""
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    device: DeviceFacts
    profiles: tuple[Profile, ...]
    flags: dict[str, bool | int]
    """Build options by name."""
    metadata: dict[str, str]
    """Of the ONNX file."""
    layer_types: dict[str, int]
    """Number of layers by element type, as the engine reports them."""
    rebuild: str
    """The command that builds this engine again."""
    toolkit: str
    """Version of ufuser."""
    format: Literal["ufuser-engine-2"] = "ufuser-engine-2"

    def as_json(self) -> str:
        """The text of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @classmethod
    def read(cls, engine: Path) -> Manifest:
        """The manifest of an engine file. Raises InputError if it is missing or does not fit."""
        path = manifest_path(engine)
        if not path.exists():
            raise InputError(
                f"{engine} has no manifest {path.name} beside it: expected both as `ufuser build` writes them "
                f"(`ufuser build --adopt` writes one for an engine of trtexec)"
            )
        try:
            return load_json(path, cls)
        except InputError as e:
            raise InputError(
                f"{e}; expected the manifest of an engine: rebuild it with `ufuser build`"
            ) from None


def manifest_path(engine: Path) -> Path:
    """`F.engine` → `F.engine.json`."""
    return engine.with_name(engine.name + ".json")


def engine_key(
    onnx_sha256: str, device: Mapping[str, str], profiles: tuple[Profile, ...], flags: Flags
) -> str:
    """SHA-256 over everything that distinguishes one engine from another.

    Args:
        onnx_sha256: of the ONNX file's bytes.
        device: `DeviceFacts.key`; empty on a machine without a GPU.
        profiles: in the order of their indices in the engine.
        flags: every build option that changes the engine.
    """
    content = {
        "onnx": onnx_sha256,
        "device": dict(device),
        "profiles": [profile.in_words() for profile in profiles],
        "flags": dict(flags),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_engine(engine: Path, content: bytes, manifest: Manifest, here: DeviceFacts) -> None:
    """Reject an engine that is damaged or was built for another machine.

    Raises:
        InputError: naming both machines and the command that rebuilds the engine.
    """
    if len(content) != manifest.engine_bytes:
        raise InputError(
            f"{engine} is truncated or of another build: it has {len(content)} bytes, its manifest expects "
            f"{manifest.engine_bytes}; rebuild it: {manifest.rebuild}"
        )
    if hashlib.sha256(content).hexdigest() != manifest.engine_sha256:
        raise InputError(
            f"{engine} is damaged, or its manifest is of another engine; rebuild it: {manifest.rebuild}"
        )
    reason = foreign(manifest, here)
    if reason:
        raise InputError(
            f"{engine} was built for {manifest.device}, this is {here}: {reason}; rebuild it here: "
            f"{manifest.rebuild}"
        )


def foreign(manifest: Manifest, here: DeviceFacts) -> str:
    """Why an engine does not run on this machine; "" if it does."""
    built = manifest.device
    if built.tensorrt != here.tensorrt and not _version_serves(manifest, here):
        return "another TensorRT version"
    if (built.gpu, built.compute_capability) != (here.gpu, here.compute_capability):
        if not manifest.flags.get(HARDWARE_COMPATIBLE):
            return "another GPU"
        if int(here.compute_capability.partition(".")[0] or 0) < _AMPERE:
            return "hardware-compatible engines need an Ampere GPU or newer"
        if built.jetson or here.jetson:
            return "TensorRT has no hardware-compatible engines on a Jetson"
    return ""


def _version_serves(manifest: Manifest, here: DeviceFacts) -> bool:
    """Whether a version-compatible engine runs here: in later releases of the same major version."""
    built, found = (_version(facts.tensorrt) for facts in (manifest.device, here))
    return bool(manifest.flags.get(VERSION_COMPATIBLE)) and built[:1] == found[:1] and built <= found


def _version(text: str) -> tuple[int, ...]:
    """The numeric parts of a version, up to the first other one."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def engine_folder() -> Path:
    """The default folder of engines, in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ufuser" / "engines"


def find_engine(onnx: Path, here: DeviceFacts, folder: Path | None = None) -> Path:
    """The newest engine in the cache that was built from an ONNX file for this machine.

    Raises InputError, with the command that builds one, if there is none.
    """
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    fitting = [
        engine
        for engine, manifest in _kept(folder or engine_folder())
        if manifest.onnx_sha256 == digest and not foreign(manifest, here)
    ]
    if not fitting:
        raise InputError(
            f"no engine was built from {onnx} for {here}: build one with `ufuser build --onnx {onnx} "
            f"--min 1x256x320 --opt 1x480x640 --max 1x1080x1920`, or give an .engine file as the model"
        )
    return max(fitting, key=lambda engine: engine.stat().st_mtime)


def _kept(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    for engine in sorted(folder.glob("*.engine")) if folder.is_dir() else ():
        try:
            yield engine, Manifest.read(engine)
        except InputError:
            continue  # another file, or a damaged one: not a match
