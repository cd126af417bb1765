"""Options of `ufuser calibrate`, a struct for each method."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ufuser.runtime.options import TIME, Options

_URI, _FILE = {"metavar": "URI"}, {"metavar": "FILE"}
_SIZE_PATTERN = r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"
_SIZE = {"metavar": "WxH", "expected": "two whole numbers, such as 640x480"}
_METRES = {"metavar": "M", "expected": "metres above 0"}
_DEGREES = {"metavar": "DEG", "expected": "degrees from 1 to 170"}
_PAIRS = {"metavar": "N", "expected": "1 to 1000"}
_SECONDS = {**TIME, "expected": "more than 0, up to 3600"}

_Infrared = Annotated[str, Meta(description="infrared picture, folder, video or camera", extra=_URI)]
_InfraredVideo = Annotated[str, Meta(description="infrared video or camera", extra=_URI)]
_Visible = Annotated[str, Meta(description="visible, of the same kind", extra=_URI)]
_Pairs = Annotated[int, Meta(ge=1, le=1000, description="pairs from a video or camera", extra=_PAIRS)]
_Seconds = Annotated[
    float, Meta(gt=0, le=3600, description="duration from which pairs are taken", extra=_SECONDS)
]


class _Saved(Options, frozen=True, kw_only=True):
    """A method that writes a calibration."""

    out: Annotated[str, Meta(description="the calibration, JSON", extra=_FILE)]
    distance: (
        Annotated[float, Meta(gt=0, le=1e6, description="distance where both pictures meet", extra=_METRES)]
        | None
    ) = None


class _FromScene(_Saved, frozen=True, kw_only=True):
    start: Annotated[str, Meta(description="calibration to start from", extra=_FILE)] | None = None
    baseline: (
        Annotated[float, Meta(gt=0, le=1e6, description="distance between the cameras", extra=_METRES)] | None
    ) = None
    vi_fov: (
        Annotated[float, Meta(ge=1, le=170, description="visible field of view, across", extra=_DEGREES)]
        | None
    ) = None


class PointsOptions(_FromScene, frozen=True, kw_only=True):
    """Options of `calibrate points`; `start` gives known lenses."""

    points: (
        Annotated[str, Meta(description="CSV or JSON with vi_x,vi_y,ir_x,ir_y; else click", extra=_FILE)]
        | None
    ) = None
    ir: (
        Annotated[str, Meta(description="infrared picture, to click on or for its size", extra=_URI)] | None
    ) = None
    vi: Annotated[str, Meta(description="visible picture", extra=_URI)] | None = None
    ir_size: (
        Annotated[str, Meta(pattern=_SIZE_PATTERN, description="instead of --ir, with --points", extra=_SIZE)]
        | None
    ) = None
    vi_size: (
        Annotated[str, Meta(pattern=_SIZE_PATTERN, description="instead of --vi, with --points", extra=_SIZE)]
        | None
    ) = None
    lens: Annotated[bool, Meta(description="find the distortion of the infrared lens too")] = False


class BoardOptions(_Saved, frozen=True, kw_only=True):
    """Options of `calibrate board`."""

    ir: _Infrared
    vi: _Visible
    board: Annotated[
        str,
        Meta(
            pattern=_SIZE_PATTERN,
            description="inner corners or circles, such as 9x6",
            extra={"metavar": "CxR", "expected": "two whole numbers, such as 9x6"},
        ),
    ]
    spacing: Annotated[
        float, Meta(gt=0, le=1e6, description="distance between neighbouring corners", extra=_METRES)
    ]
    pattern: Annotated[Literal["chess", "circles"], Meta(description="chessboard or asymmetric grid")] = (
        "chess"
    )


class RefineOptions(_FromScene, frozen=True, kw_only=True):
    """Options of `calibrate refine`; without `start`, both pictures are centred on each other."""

    ir: _Infrared
    vi: _Visible
    pairs: _Pairs = 4
    seconds: _Seconds = 10.0
    ir_fov: (
        Annotated[float, Meta(ge=1, le=170, description="infrared field of view, across", extra=_DEGREES)]
        | None
    ) = None
    lens: Annotated[bool, Meta(description="find the distortion of the infrared lens")] = True
    search: Annotated[bool, Meta(description="search beyond a twentieth of the picture around the start")] = (
        True
    )


class CheckOptions(Options, frozen=True, kw_only=True):
    """Options of `calibrate check`."""

    ir: _Infrared
    vi: _Visible
    calibration: Annotated[str, Meta(description="the calibration to check", extra=_FILE)]
    out: Annotated[str, Meta(description="the picture", extra={"metavar": "PNG"})]
    pairs: _Pairs = 1
    seconds: _Seconds = 1.0


class OffsetOptions(Options, frozen=True, kw_only=True):
    """Options of `calibrate offset`."""

    ir: _InfraredVideo
    vi: _Visible
    seconds: Annotated[
        float, Meta(gt=0, le=3600, description="duration of the recording", extra=_SECONDS)
    ] = 20.0
    calibration: (
        Annotated[str, Meta(description="of the two cameras; without it both see the same", extra=_FILE)]
        | None
    ) = None
    out: Annotated[str, Meta(description="the calibration with the offset", extra=_FILE)] | None = None
