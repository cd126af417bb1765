"""The options of `ufuser stream` and `ufuser.stream`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ufuser.runtime import schemes
from ufuser.runtime.errors import InputError
from ufuser.runtime.options import TIME, FuserOptions
from ufuser.runtime.pairing import Mode, PairingConfig
from ufuser.runtime.streaming.stream import StreamConfig
from ufuser.runtime.thermal import ThermalConfig
from ufuser.runtime.uri import mask
from ufuser.runtime.web.server import LOOPBACK

_URI, _FILE = {"metavar": "URI"}, {"metavar": "FILE"}


class StreamOptions(FuserOptions, frozen=True, kw_only=True):
    """Options of a stream. What they name is opened later.

    Raises InputError, which names the option, for a value of another type or out of range.
    """

    ir: Annotated[str, Meta(description="infrared camera", extra=_URI)]
    vi: Annotated[str, Meta(description="visible camera", extra=_URI)]
    out: Annotated[tuple[str, ...], Meta(description="output; may be given several times", extra=_URI)] = ()
    sync: Annotated[
        Mode, Meta(description="nearest pairs each frame once, hold repeats infrared for each visible frame")
    ] = "nearest"
    max_skew: Annotated[
        float, Meta(ge=0, description="nearest: largest time between the frames of a pair", extra=TIME)
    ] = 0.1
    max_age: Annotated[
        float, Meta(ge=0, description="hold: age up to which an infrared frame is repeated", extra=TIME)
    ] = 0.25
    ir_offset: (
        Annotated[
            float,
            Meta(
                ge=-1e6,
                le=1e6,
                description="time by which infrared's time stamps are ahead of the exposure, such as 12ms",
                extra=TIME | {"default": "the calibration's, else 0"},
            ),
        ]
        | None
    ) = None
    vi_offset: Annotated[
        float,
        Meta(ge=-1e6, le=1e6, description="the same of the visible camera", extra=TIME),
    ] = 0.0
    lost_after: Annotated[
        float, Meta(ge=0, description="time without a frame after which a camera counts as lost", extra=TIME)
    ] = 1.0
    calibration: (
        Annotated[
            str, Meta(description="written by `ufuser calibrate`; without it infrared is scaled", extra=_FILE)
        ]
        | None
    ) = None
    agc: Annotated[
        str,
        Meta(
            description="thermal tone mapping: linear, plateau, clahe, fixed, or auto (plateau for raw counts, "
            "8-bit pictures unchanged)",
            extra={"metavar": "MODE"},
        ),
    ] = "auto"
    grey: Annotated[bool, Meta(description="fuse luma only, without colour")] = False
    scale: Annotated[
        bool, Meta(description="scale the visible camera to a size that a TensorRT engine takes")
    ] = False
    marks: Annotated[bool, Meta(description="write 'NO INFRARED' into the picture")] = True
    report: Annotated[str, Meta(description="file for the report, JSON", extra=_FILE)] | None = None
    metrics: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=65535,
                description="serve /metrics, /healthz and /report.json; 0 takes a free port",
                extra={"metavar": "PORT"},
            ),
        ]
        | None
    ) = None
    bind: Annotated[
        str,
        Meta(
            description="address of metrics and page; others than the default need a token",
            extra={"metavar": "ADDRESS"},
        ),
    ] = LOOPBACK
    token: (
        Annotated[
            str,
            Meta(
                min_length=8,
                description="required from every client; in a settings file it does not show in the process list",
                extra={"metavar": "SECRET", "secret": True},
            ),
        ]
        | None
    ) = None
    duration: Annotated[float, Meta(gt=0, le=1e9, description="end after this time", extra=TIME)] | None = (
        None
    )
    speed: Annotated[
        float, Meta(ge=0.01, le=1000, description="run simulated or played cameras this many times faster")
    ] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config()
        for text in (self.ir, self.vi):
            if self.speed != 1 and not schemes.find(schemes.SOURCES, text).virtual:
                raise InputError(
                    f"speed={self.speed:g}: {mask(text)} is a real camera, which cannot run faster",
                    "speed",
                )

    def __repr__(self) -> str:
        return (
            f"StreamOptions(ir={mask(self.ir)!r}, vi={mask(self.vi)!r}, …)"  # neither credentials nor token
        )

    def config(self, offset: float | None = None) -> StreamConfig:
        """The configuration of the stream itself.

        Args:
            offset: of infrared, seconds, from the calibration; `ir_offset` wins.
        """
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
            scale=self.scale,
            duration=self.duration,
        )
