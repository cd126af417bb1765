"""How a simulated camera is asked for: a frozen configuration, or a `sim://` URI that spells one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ufuser.runtime.errors import InputError
from ufuser.runtime.sources.timing import Timing, require_between
from ufuser.simulation.geometry import Pinhole, View

KINDS = ("visible", "thermal")
SMALLEST, LARGEST = 64, 4096
"""Pixels, of either side of a picture."""
NARROWEST, WIDEST, ASKEW, BENT = 5.0, 60.0, 15.0, 0.5
"""Degrees of the field of view, and of each mounting angle; the radial distortion."""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """One simulated camera. Two of the same seed and size see the same street at the same moments.

    Raises:
        InputError: a value is out of range or does not fit the kind of camera.
    """

    kind: str = "visible"
    """"visible" (colour) or "thermal" (one channel)."""
    width: int = 640
    height: int = 480
    """Pixels, 64 to 4096 each."""
    fps: float = 25.0
    """Frames per second."""
    bits: int = 8
    """8 for uint8 pictures; 14 or 16 for a thermal camera's raw uint16 counts."""
    seed: int = 0
    """Chooses the street; with the kind it also chooses noise, drops and jitter."""
    drop: float = 0.0
    """Probability that a frame is lost, 0 to below 1."""
    jitter_ms: float = 0.0
    """Each stamp is off by up to this much either way: at most half a frame, to keep stamps in order."""
    stall: float = 0.0
    """Seconds without frames, 10 s after the start and then every minute."""
    ffc: float = 0.0
    """Seconds between flat-field corrections, each a freeze of 0.6 s of the thermal picture; 0 for none."""
    offset_ms: float = 0.0
    """Added to every stamp: how far this camera's clock is ahead."""
    fov: float = 0.0
    """Degrees across the picture; 0 is the street's own view, about 53. See `ufuser.simulation.geometry.View`."""
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    """Degrees the camera is mounted off, to the right, upwards, clockwise."""
    k1: float = 0.0
    """Radial distortion of its lens."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            expected = f"{', '.join(KINDS)}{_near(self.kind, KINDS)}"
            raise InputError(f"simulated camera {self.kind!r}: expected one of {expected}")
        _whole("seed", self.seed, 0, 2**31 - 1)
        _whole("width", self.width, SMALLEST, LARGEST)
        _whole("height", self.height, SMALLEST, LARGEST)
        allowed = (8,) if self.kind == "visible" else (8, 14, 16)
        if self.bits not in allowed:
            expected = " or ".join(str(b) for b in allowed)
            raise InputError(f"bits={self.bits}: a {self.kind} simulated camera gives {expected} bits")
        if self.ffc and self.kind != "thermal":
            raise InputError(f"ffc={self.ffc:g}: only a thermal camera has flat-field corrections")
        self.timing()
        if self.fov:
            require_between("fov", self.fov, NARROWEST, WIDEST)
        for name in ("yaw", "pitch", "roll"):
            require_between(name, getattr(self, name), -ASKEW, ASKEW)
        require_between("k1", self.k1, -BENT, BENT)

    def view(self) -> View:
        """Its geometry: two of them tell exactly where a pixel of one camera is seen by the other."""
        return View(Pinhole(self.width, self.height), self.fov, self.yaw, self.pitch, self.roll, self.k1)

    def timing(self) -> Timing:
        """When it takes its frames, which are lost, and how its stamps err."""
        thermal = self.kind == "thermal"
        return Timing(
            self.fps, thermal, self.seed, self.drop, self.jitter_ms, self.stall, self.ffc, self.offset_ms
        )

    @classmethod
    def from_uri(cls, uri: str) -> SimConfig:
        """The configuration a URI spells.

        `sim://thermal?fps=9&bits=14&size=640x480&seed=3&ffc=60&drop=0.02&jitter=8ms&stall=5&offset=12ms`, and
        `fov`, `yaw`, `pitch`, `roll`, `k1` for its geometry; every parameter may be left out. Times take `ms`
        or `s`; without a unit, `jitter` and `offset` are milliseconds, `stall` and `ffc` seconds.

        Raises:
            InputError: unknown kind or parameter, a parameter given twice, or a bad value.
        """
        parts = urlsplit(uri)
        if parts.scheme != "sim":
            raise InputError(
                f"{uri!r}: expected sim://visible or sim://thermal, with ?name=value&... after it"
            )
        kind = parts.netloc + parts.path.rstrip("/")
        if kind not in KINDS:
            expected = f"{', '.join(KINDS)}{_near(kind, KINDS)}"
            raise InputError(f"{uri!r}: unknown camera {kind!r}, expected one of {expected}")
        values: dict[str, Any] = {"kind": kind}
        seen: set[str] = set()
        for name, text in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _PARAMETERS:
                raise InputError(
                    f"{uri!r}: unknown parameter {name!r}, expected one of {', '.join(_PARAMETERS)}"
                    f"{_near(name, tuple(_PARAMETERS))}"
                )
            if name in seen:
                raise InputError(f"{uri!r}: {name!r} is given twice")
            seen.add(name)
            values.update(_PARAMETERS[name](name, text))
        return cls(**values)


def _near(given: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(given, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}={value}: expected a whole number from {low} to {high}", name)


def _number(field: str) -> Callable[[str, str], dict[str, Any]]:
    def parse(name: str, text: str) -> dict[str, Any]:
        try:
            return {field: float(text)}
        except ValueError:
            raise InputError(f"{name}={text}: expected a number, such as {name}=0.5") from None

    return parse


def _integer(field: str) -> Callable[[str, str], dict[str, Any]]:
    def parse(name: str, text: str) -> dict[str, Any]:
        if not re.fullmatch(r"-?[0-9]{1,10}", text):
            raise InputError(f"{name}={text}: expected a whole number, such as {name}=8")
        return {field: int(text)}

    return parse


def _time(field: str, unit: str) -> Callable[[str, str], dict[str, Any]]:
    """A time with an optional unit, converted to the `unit` ("ms" or "s") the field is in."""

    def parse(name: str, text: str) -> dict[str, Any]:
        match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+))(ms|s)?", text.strip())
        if match is None:
            raise InputError(f"{name}={text}: expected a time, such as {name}=8ms or {name}=0.5s")
        given = match.group(2) or unit
        factor = {("ms", "s"): 0.001, ("s", "ms"): 1000.0}.get((given, unit), 1.0)
        return {field: float(match.group(1)) * factor}

    return parse


def _size(name: str, text: str) -> dict[str, Any]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise InputError(f"{name}={text}: expected WIDTHxHEIGHT in pixels, such as {name}=640x480")
    return {"width": int(match.group(1)), "height": int(match.group(2))}


_PARAMETERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "size": _size,
    "fps": _number("fps"),
    "bits": _integer("bits"),
    "seed": _integer("seed"),
    "drop": _number("drop"),
    "jitter": _time("jitter_ms", "ms"),
    "stall": _time("stall", "s"),
    "ffc": _time("ffc", "s"),
    "offset": _time("offset_ms", "ms"),
    "fov": _number("fov"),
    "yaw": _number("yaw"),
    "pitch": _number("pitch"),
    "roll": _number("roll"),
    "k1": _number("k1"),
}
