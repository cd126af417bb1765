"""Everything a stream can be told, as the command line, a TOML file and `ufuser.stream` spell it."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ufuser.runtime import models
from ufuser.runtime.engines import AUTO
from ufuser.runtime.errors import InputError
from ufuser.runtime.pairing import PairingConfig
from ufuser.runtime.sources.opening import parse
from ufuser.runtime.streaming.stream import StreamConfig
from ufuser.runtime.thermal import ThermalConfig
from ufuser.runtime.uri import seconds
from ufuser.runtime.web.server import LOOPBACK


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Raises InputError for a value out of range; what they name is opened later."""

    ir: str
    vi: str
    """URIs of the cameras: see `ufuser.runtime.sources.opening`."""
    out: tuple[str, ...] = ()
    """URIs of the sinks: see `ufuser.runtime.sinks.opening`."""
    model: str = models.AUTO
    """Shipped model, the path of an ONNX file, or "auto" for the shipped one that fits the engine."""
    engine: str = AUTO
    """One of `ufuser.runtime.engines.ENGINES`, or "auto" for the fastest that is installed."""
    threads: int | None = None
    """CPU threads of the engine; None takes one per physical core."""
    cpu_precision: str = "fp32"
    """What OpenVINO computes in: "fp32", or "bf16" where the CPU has it."""
    sync: str = "nearest"
    """How frames are paired: "nearest" or "hold"."""
    max_skew: float = 0.1
    """nearest: no pair's frames lie farther apart, seconds."""
    max_age: float = 0.25
    """hold: the oldest infrared frame that is shown again, seconds."""
    ir_offset: float | None = None
    """By how much infrared's stamps are ahead of the moment of capture, seconds; None takes what the calibration
    says, if `ufuser calibrate offset` has found it, else 0."""
    vi_offset: float = 0.0
    """The same of the visible camera."""
    lost_after: float = 1.0
    """Without a frame for so many seconds a camera is lost, and the other goes out alone."""
    calibration: str | None = None
    """File written by `ufuser calibrate`; without one, infrared is scaled to the visible's size."""
    agc: str = "auto"
    """Tone mapping of the thermal camera: see `ufuser.runtime.thermal.ThermalConfig.from_text`."""
    grey: bool = False
    """Fuse luma alone, without colour."""
    marks: bool = True
    """Write into the picture that a camera is lost."""
    report: str | None = None
    """File for the report, JSON."""
    metrics: int | None = None
    """Port of `/metrics`, `/healthz` and `/report.json`; 0 takes a free one."""
    bind: str = LOOPBACK
    """Address of the metrics, and of pages whose URI names none."""
    token: str | None = field(default=None, repr=False)
    """Asked of everybody who looks; needed where others can reach the address."""
    duration: float | None = None
    """Ends after so many seconds; None never."""
    speed: float = 1.0
    """Simulated and played cameras run so many times faster."""

    def __post_init__(self) -> None:
        self.config()
        for uri in (self.ir, self.vi):
            if parse(uri).scheme in ("v4l2", "csi", "gst", "rtsp", "rtsps") and self.speed != 1:
                raise InputError(
                    f"--speed {self.speed:g}: {parse(uri).name} is a real camera, which cannot run faster"
                )
        if not (math.isfinite(self.speed) and 0.01 <= self.speed <= 1000):
            raise InputError(f"--speed {self.speed:g}: expected 0.01 to 1000")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise InputError(f"--duration {self.duration:g}: expected seconds above 0")
        if self.metrics is not None and not 0 <= self.metrics <= 65535:
            raise InputError(f"--metrics {self.metrics}: expected a port from 0 to 65535")
        if self.token is not None and len(self.token) < 8:
            raise InputError("--token: expected at least 8 characters")

    def config(self, offset: float | None = None) -> StreamConfig:
        """What the stream itself is told; `offset` is infrared's as the calibration knows it."""
        pairing = PairingConfig(
            mode=self.sync,
            ir_offset_s=self.ir_offset if self.ir_offset is not None else offset or 0.0,
            vi_offset_s=self.vi_offset,
            max_skew_s=self.max_skew,
            max_age_s=self.max_age,
            lost_after_s=self.lost_after,
        )
        return StreamConfig(
            pairing,
            ThermalConfig.from_text(self.agc),
            grey=self.grey,
            marks=self.marks,
            duration=self.duration,
        )


def read_toml(path: Path) -> dict[str, Any]:
    """Options from a TOML file: names as on the command line, `out` a list.

    Raises InputError: no such file, no TOML, an unknown name or a value of the wrong type.
    """
    tomllib = _toml()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path} is no TOML: {e}") from None
    return checked(values, str(path))


def _toml() -> Any:
    for name in ("tomllib", "tomli"):  # the first from Python 3.11
        with suppress(ImportError):
            return importlib.import_module(name)
    raise InputError("--config needs tomli on Python 3.10: pip install tomli")


def checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options by their field's name. Raises InputError for an unknown name or a wrong type."""
    known = {f.name: str(f.type) for f in fields(StreamOptions)}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            near = f" (did you mean {close[0].replace('_', '-')}?)" if close else ""
            raise InputError(f"{where}: unknown option '{key}'{near}")
        if name == "out":
            value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        if known[name].startswith("float") and isinstance(value, str):
            try:
                value = seconds(value)
            except ValueError as e:
                raise InputError(f"{where}: {key} is {value!r}: {e}") from None
        if not _fits(value, known[name]):
            raise InputError(f"{where}: {key} is {value!r}, expected {_KINDS[known[name].split(' ')[0]][1]}")
        found[name] = float(value) if known[name].startswith("float") else value
    return found


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "tuple[str,": ((tuple,), "a list of texts"),
}


def _fits(value: Any, kind: str) -> bool:
    types, _ = _KINDS[kind.split(" ")[0]]
    if isinstance(value, bool) and bool not in types:
        return False
    return isinstance(value, types) and (
        not isinstance(value, tuple) or all(isinstance(v, str) for v in value)
    )
