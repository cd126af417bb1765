"""The JSON manifest beside a TensorRT engine: what it was built from, for which machine, and how.

An engine file says none of this itself, and on another machine it fails late or runs wrongly tuned.
`ufuser-build` writes the manifest, the runtime holds it against the machine before it loads anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ufuser.runtime.engines.profiles import Profile
from ufuser.runtime.errors import InputError

FORMAT = "ufuser-engine-1"
VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version_compatible", "hardware_compatible"
"""Names among the build flags that loosen what the runtime compares."""
_AMPERE = 8
"""Major compute capability from which TensorRT's hardware-compatible engines run."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What an engine is tied to, and what else helps to understand a failure. "" is unknown."""

    tensorrt: str
    gpu: str
    compute_capability: str
    """As in "8.7"."""
    cuda: str = ""
    """Version of the CUDA that PyCUDA was built with."""
    driver: str = ""
    """Highest CUDA version that the driver takes."""
    l4t: str = ""
    """Jetson Linux release, as in "36.4.3"; "" on other machines."""

    @property
    def key(self) -> dict[str, str]:
        """The part that an engine's key depends on."""
        return {
            "tensorrt": self.tensorrt,
            "gpu": self.gpu,
            "compute_capability": self.compute_capability,
        }

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} (compute capability {self.compute_capability})"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One engine's origin."""

    key: str
    """Equal keys mean the same engine: see `engine_key`."""
    onnx: str
    """Name of the ONNX file, without its folder."""
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    device: DeviceFacts
    profiles: tuple[Profile, ...]
    flags: Mapping[str, Any]
    """Build options by name."""
    metadata: Mapping[str, str]
    """The ONNX file's own."""
    layer_types: Mapping[str, int]
    """How many layers give each element type, read back from the engine."""
    rebuild: str
    """The command that builds this engine again."""
    toolkit: str
    """Version of this distribution."""

    def as_json(self) -> str:
        """The file's text."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data |= {
            "format": FORMAT,
            "device": asdict(self.device),
            "profiles": [profile.as_json() for profile in self.profiles],
        }
        return json.dumps(data, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, engine: Path) -> Manifest:
        """The manifest of an engine file. Raises InputError where it is missing or another kind of file."""
        path = manifest_path(engine)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{engine} has no manifest {path.name} beside it: expected both as `ufuser-build` writes them "
                f"(it makes one for an engine of trtexec with --adopt)"
            ) from None
        except (OSError, ValueError) as e:
            raise InputError(f"{path} cannot be read as an engine's manifest: {e}") from None
        try:
            if data.pop("format") != FORMAT:
                raise KeyError("format")
            data["device"] = DeviceFacts(**data["device"])
            data["profiles"] = tuple(Profile.from_json(p) for p in data["profiles"])
            return cls(**data)
        except (KeyError, TypeError, AttributeError, InputError) as e:
            raise InputError(
                f"{path} is no manifest of format '{FORMAT}' ({e}): build the engine anew"
            ) from None


def manifest_path(engine: Path) -> Path:
    """`F.engine` → `F.engine.json`."""
    return engine.with_name(engine.name + ".json")


def engine_key(
    onnx_sha256: str, device: Mapping[str, str], profiles: tuple[Profile, ...], flags: Mapping[str, Any]
) -> str:
    """SHA-256 over everything that makes one engine differ from another.

    Args:
        onnx_sha256: of the ONNX file's bytes.
        device: `DeviceFacts.key`; empty values where there is no GPU to ask.
        profiles: in their order, which is that of their indices in the engine.
        flags: every build option that changes the engine.
    """
    content = {
        "onnx": onnx_sha256,
        "device": dict(device),
        "profiles": [profile.as_json() for profile in profiles],
        "flags": dict(flags),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_engine(engine: Path, content: bytes, manifest: Manifest, here: DeviceFacts) -> None:
    """Refuse an engine that is damaged or that was built for another machine.

    Raises:
        InputError: naming what it was built for, what this machine is, and the command that rebuilds it.
    """
    if len(content) != manifest.engine_bytes:
        raise InputError(
            f"{engine} is truncated or of another build: it has {len(content)} bytes, its manifest says "
            f"{manifest.engine_bytes}; rebuild it: {manifest.rebuild}"
        )
    if hashlib.sha256(content).hexdigest() != manifest.engine_sha256:
        raise InputError(f"{engine} is damaged or not its manifest's engine; rebuild it: {manifest.rebuild}")
    reason = foreign(manifest, here)
    if reason:
        raise InputError(
            f"{engine} was built for {manifest.device}, this is {here}: {reason}; rebuild it here: "
            f"{manifest.rebuild}"
        )


def foreign(manifest: Manifest, here: DeviceFacts) -> str:
    """Why an engine does not belong to this machine; "" if it does."""
    built = manifest.device
    if built.tensorrt != here.tensorrt and not _version_serves(manifest, here):
        return "another TensorRT version"
    if (built.gpu, built.compute_capability) != (here.gpu, here.compute_capability):
        if not manifest.flags.get(HARDWARE_COMPATIBLE):
            return "another GPU"
        if int(here.compute_capability.partition(".")[0] or 0) < _AMPERE:
            return "a GPU before Ampere, for which no hardware-compatible engine works"
    if bool(built.l4t) != bool(here.l4t):
        return "a Jetson's engine and a desktop's are not exchangeable"
    return ""


def _version_serves(manifest: Manifest, here: DeviceFacts) -> bool:
    """Version-compatible engines run in later releases of their major version."""
    built, found = (_version(facts.tensorrt) for facts in (manifest.device, here))
    return bool(manifest.flags.get(VERSION_COMPATIBLE)) and built[:1] == found[:1] and built <= found


def _version(text: str) -> tuple[int, ...]:
    """Release numbers, up to the first part that is none."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def engine_folder() -> Path:
    """Where engines without a place of their own are kept: under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ufuser" / "engines"


def find_engine(onnx: Path, here: DeviceFacts, folder: Path | None = None) -> Path:
    """The kept engine that was built from an ONNX file for this machine; the newest of several.

    Raises InputError with the command that builds one where there is none.
    """
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    fitting = [
        engine
        for engine, manifest in _kept(folder or engine_folder())
        if manifest.onnx_sha256 == digest and not foreign(manifest, here)
    ]
    if not fitting:
        raise InputError(
            f"no engine was built from {onnx} for {here}: build one with `ufuser-build --onnx {onnx} "
            f"--min 1x256x320 --opt 1x480x640 --max 1x1080x1920`, or give an .engine file as the model"
        )
    return max(fitting, key=lambda engine: engine.stat().st_mtime)


def _kept(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    for engine in sorted(folder.glob("*.engine")) if folder.is_dir() else ():
        try:
            yield engine, Manifest.read(engine)
        except InputError:
            continue  # a stranger in the cache folder does not concern whoever looks for another engine
