"""Optimization profiles: the ranges of shapes that a TensorRT engine takes, and the choice of one for a shape."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from ufuser.runtime.errors import InputError
from ufuser.runtime.shapes import MULTIPLE, SMALLEST

_Side = Annotated[int, msgspec.Meta(ge=SMALLEST, multiple_of=MULTIPLE)]


class Extent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Batch, height and width of a network input, which has one channel."""

    batch: Annotated[int, msgspec.Meta(ge=1)]
    height: _Side
    width: _Side

    @classmethod
    def parse(cls, text: str, argument: str) -> Extent:
        """Read `BxHxW` or `HxW`. Raises InputError about the argument of this name."""
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip().lower())
        if match is None:
            raise InputError(
                f"{argument}={text!r}: expected BATCHxHEIGHTxWIDTH, as in 1x480x640", argument=argument
            )
        batch, height, width = (int(part) if part else 1 for part in match.groups())
        extent = cls(batch, height, width)
        if batch < 1 or min(height, width) < SMALLEST or height % MULTIPLE or width % MULTIPLE:
            raise InputError(
                f"{argument}={text!r}: expected a batch of 1 or more, height and width multiples of {MULTIPLE} "
                f"from {SMALLEST}; nearest is {extent.rounded_up()}",
                argument=argument,
            )
        return extent

    def rounded_up(self) -> Extent:
        """The next extent that the network takes."""
        sides = (max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE) for side in (self.height, self.width))
        return Extent(max(1, self.batch), *sides)

    def within(self, low: Extent, high: Extent) -> bool:
        """Whether low ≤ self ≤ high on every axis."""
        return all(a <= x <= b for a, x, b in zip(low.axes, self.axes, high.axes, strict=True))

    @property
    def axes(self) -> tuple[int, int, int]:
        """(batch, height, width)."""
        return self.batch, self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """NCHW, the shape of each input and of the output."""
        return self.batch, 1, self.height, self.width

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One optimization profile: shapes from `low` to `high` run, `best` runs fastest."""

    low: Extent = msgspec.field(name="min")
    best: Extent = msgspec.field(name="opt")
    high: Extent = msgspec.field(name="max")

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, best {self.best}"

    def holds(self, extent: Extent) -> bool:
        """Whether the shape runs under this profile."""
        return extent.within(self.low, self.high)

    def in_words(self) -> dict[str, str]:
        """The shapes as `BATCHxHEIGHTxWIDTH`, by their names in TensorRT."""
        return {"min": str(self.low), "opt": str(self.best), "max": str(self.high)}


def listed(profiles: Sequence[Profile]) -> str:
    """Profiles for a message."""
    return "; ".join(str(profile) for profile in profiles) or "none"


def check_profiles(profiles: Sequence[Profile]) -> list[str]:
    """Refuse profiles that no engine should be built with.

    Returns:
        Remarks, one line each, about profiles that overlap: allowed, but the overlap is built and tuned twice.

    Raises:
        InputError: min ≤ opt ≤ max fails on an axis; or a profile lies within another one with the same best shape
            and would never be chosen.
    """
    remarks = []
    for number, profile in enumerate(profiles):
        if not profile.low.within(profile.low, profile.best) or not profile.best.within(
            profile.low, profile.high
        ):
            raise InputError(
                f"profile {number}: min {profile.low}, opt {profile.best}, max {profile.high}; "
                f"expected min <= opt <= max on every axis"
            )
    for number, profile in enumerate(profiles):
        for other_number, other in enumerate(profiles[:number]):
            for (a, inner), (b, outer) in (
                ((number, profile), (other_number, other)),
                ((other_number, other), (number, profile)),
            ):
                if outer.holds(inner.low) and outer.holds(inner.high) and inner.best == outer.best:
                    raise InputError(
                        f"profile {a} ({inner}) lies within profile {b} ({outer}) and has the same best shape: "
                        f"it would never be chosen; leave it out"
                    )
            if _overlap(profile, other):
                remarks.append(
                    f"profiles {other_number} ({other}) and {number} ({profile}) overlap: a shape in both runs "
                    f"under the one whose best shape is nearer"
                )
    return remarks


def nearest_size(profiles: Sequence[Profile], width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which an engine takes a single picture.

    Args:
        profiles: of the engine; none takes every size.
        width, height: of the picture, which is padded to multiples of 8.

    Returns:
        The picture's own size if a profile holds it; else the nearest one of the same aspect ratio, rounded to pixels.

    Raises:
        InputError: no profile holds a picture of this aspect ratio.
    """
    if not profiles or any(profile.holds(_padded(width, height)) for profile in profiles):
        return width, height
    found: list[tuple[float, tuple[int, int]]] = []
    for profile in profiles:
        low, high = profile.low, profile.high
        down = min(high.width / width, high.height / height)
        up = max(low.width / width, low.height / height)
        scale, rounded = (down, math.floor) if down < 1 else (up, math.ceil)
        size = max(1, rounded(round(width * scale, 6))), max(1, rounded(round(height * scale, 6)))
        if profile.holds(_padded(*size)):
            found.append((abs(math.log(scale)), size))
    if not found:
        raise InputError(
            f"no profile of the engine ({listed(profiles)}) holds a picture with the aspect ratio of {width}x{height}: "
            f"rebuild it with a profile for this size"
        )
    return min(found)[1]


def _padded(width: int, height: int) -> Extent:
    return Extent(1, height, width).rounded_up()


def _overlap(one: Profile, other: Profile) -> bool:
    return all(
        max(a, c) <= min(b, d)
        for a, b, c, d in zip(one.low.axes, one.high.axes, other.low.axes, other.high.axes, strict=True)
    )


def choose_profile(profiles: Sequence[Profile], extent: Extent) -> int:
    """The index of the profile whose range holds a shape; of several, the one whose best shape is nearest in pixels.

    Raises InputError, naming all profiles, if none holds it.
    """
    fitting = [index for index, profile in enumerate(profiles) if profile.holds(extent)]
    if not fitting:
        raise InputError(
            f"the engine takes no {extent} (batch x height x width): its profiles are {listed(profiles)}; "
            f"rebuild it with a profile for this size, or resize the input"
        )
    pixels = extent.batch * extent.height * extent.width

    def distance(index: int) -> tuple[int, int]:
        batch, height, width = profiles[index].best.axes
        return abs(batch * height * width - pixels), index

    return min(fitting, key=distance)
