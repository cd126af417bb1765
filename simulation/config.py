"""Configuration of a simulated camera: a frozen struct, or the options of a `sim://` URI."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import Meta

from ufuser.runtime import uri as uris
from ufuser.runtime.errors import InputError
from ufuser.runtime.options import Options
from ufuser.runtime.sources.timing import Timing
from ufuser.simulation.geometry import Pinhole, View

Kind = Literal["visible", "thermal"]
_Side = Annotated[int, Meta(ge=64, le=4096, description="pixels")]
_Angle = Annotated[float, Meta(ge=-15, le=15, description="degrees of rotation from the street's axis")]


class SimConfig(Options, frozen=True):
    """One simulated camera. Two of the same seed and size see the same street at the same moments.

    Raises:
        InputError: a value is out of range or does not fit the kind of camera.
    """

    kind: Annotated[Kind, Meta(description="visible (colour) or thermal (one channel)")] = "visible"
    width: _Side = 640
    height: _Side = 480
    fps: Annotated[float, Meta(description="frames per second")] = 25.0
    bits: Annotated[
        int, Meta(description="8 for uint8; 14 or 16 for raw uint16 counts of a thermal camera")
    ] = 8
    seed: Annotated[
        int,
        Meta(
            ge=0, le=2**31 - 1, description="selects the street, and with the kind also noise, drops, jitter"
        ),
    ] = 0
    drop: Annotated[float, Meta(description="probability that a frame is lost")] = 0.0
    jitter_ms: Annotated[float, Meta(description="largest error of a stamp, up to half a frame")] = 0.0
    stall: Annotated[
        float, Meta(description="seconds without frames, 10 s after the start and every minute")
    ] = 0.0
    ffc: Annotated[
        float,
        Meta(
            description="seconds between flat-field corrections, which freeze a thermal picture for 0.6 s; 0: none"
        ),
    ] = 0.0
    offset_ms: Annotated[
        float, Meta(description="added to every stamp: how far the camera's clock is ahead")
    ] = 0.0
    fov: Annotated[
        float,
        Meta(le=60, description="degrees across the picture, from 5; 0 is the street's own view, about 53"),
    ] = 0.0
    yaw: _Angle = 0.0
    """To the right."""
    pitch: _Angle = 0.0
    """Upwards."""
    roll: _Angle = 0.0
    """Clockwise."""
    k1: Annotated[float, Meta(ge=-0.5, le=0.5, description="radial distortion of the lens")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = (8,) if self.kind == "visible" else (8, 14, 16)
        if self.bits not in allowed:
            expected = " or ".join(str(b) for b in allowed)
            raise InputError(f"bits={self.bits}: expected {expected} for a {self.kind} camera", "bits")
        if self.ffc and self.kind != "thermal":
            raise InputError(f"ffc={self.ffc:g}: only a thermal camera has flat-field corrections", "ffc")
        if self.fov and self.fov < 5:
            raise InputError(f"fov={self.fov:g}: expected 5 to 60 degrees, or 0", "fov")
        self.timing()

    def timing(self) -> Timing:
        """Times of its frames, which of them are lost, and errors of its stamps."""
        thermal = self.kind == "thermal"
        return Timing(
            self.fps, thermal, self.seed, self.drop, self.jitter_ms, self.stall, self.ffc, self.offset_ms
        )

    def view(self) -> View:
        """Its geometry. Two views determine where a pixel of one camera is in the picture of the other."""
        return View(Pinhole(self.width, self.height), self.fov, self.yaw, self.pitch, self.roll, self.k1)

    @classmethod
    def from_uri(cls, text: str) -> SimConfig:
        """The configuration that a URI describes.

        `sim://thermal?fps=9&bits=14&size=640x480&seed=3&ffc=60&drop=0.02&jitter=8ms&stall=5&offset=12ms`, and
        `fov`, `yaw`, `pitch`, `roll`, `k1` for its geometry; all are optional. Times take `ms` or `s`; without a
        unit, `jitter` and `offset` are milliseconds, `stall` and `ffc` seconds.

        Raises:
            InputError: unknown kind or option, an option given twice, or a bad value.
        """
        uri = uris.split(text)
        kind = uri.address.rstrip("/")
        if uri.scheme != "sim" or kind not in ("visible", "thermal"):
            raise InputError(
                f"{uri.name}: expected sim://visible or sim://thermal, with ?name=value&... after it"
            )
        values: dict[str, Any] = uri.read(_PARSERS)
        width, height = values.pop("size", (cls().width, cls().height))
        fields = {"kind": kind} | {_FIELDS.get(name, name): value for name, value in values.items()}
        return cls(width=width, height=height, **fields)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("expected a number")
    return value


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise ValueError("expected a whole number")
    return int(text)


def _milliseconds(text: str) -> float:
    return uris.seconds(text) * (1000.0 if text.rstrip().endswith("s") else 1.0)


_FIELDS = {"jitter": "jitter_ms", "offset": "offset_ms"}
_PARSERS: dict[str, Callable[[str], Any]] = {
    "size": uris.size,
    "fps": _number,
    "bits": _integer,
    "seed": _integer,
    "drop": _number,
    "jitter": _milliseconds,
    "stall": uris.seconds,
    "ffc": uris.seconds,
    "offset": _milliseconds,
    "fov": _number,
    "yaw": _number,
    "pitch": _number,
    "roll": _number,
    "k1": _number,
}
