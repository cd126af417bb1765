"""Optimization profiles: the ranges of shapes that a TensorRT engine takes, and which of them serves a shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ufuser.runtime.errors import InputError
from ufuser.runtime.shapes import MULTIPLE, SMALLEST


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """Batch, height and width of a network input; its one channel goes without saying."""

    batch: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str, option: str) -> Extent:
        """Read `BxHxW` or `HxW`. Raises InputError, naming the command-line option."""
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip().lower())
        if match is None:
            raise InputError(f"{option} {text}: expected BATCHxHEIGHTxWIDTH, as in 1x480x640")
        batch, height, width = (int(part) if part else 1 for part in match.groups())
        extent = cls(batch, height, width)
        if batch < 1 or min(height, width) < SMALLEST or height % MULTIPLE or width % MULTIPLE:
            raise InputError(
                f"{option} {text}: expected a batch of 1 or more, height and width multiples of {MULTIPLE} "
                f"from {SMALLEST}; nearest is {extent.rounded_up()}"
            )
        return extent

    def rounded_up(self) -> Extent:
        """The next extent that the network takes."""
        sides = (max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE) for side in (self.height, self.width))
        return Extent(max(1, self.batch), *sides)

    def within(self, low: Extent, high: Extent) -> bool:
        """Whether every axis lies between those of `low` and `high`, both included."""
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


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimization profile: shapes from `low` to `high` run, `best` runs fastest."""

    low: Extent
    best: Extent
    high: Extent

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, best {self.best}"

    def holds(self, extent: Extent) -> bool:
        """Whether an engine may be given this shape under this profile."""
        return extent.within(self.low, self.high)

    def as_json(self) -> dict[str, str]:
        """For the manifest."""
        return {"min": str(self.low), "opt": str(self.best), "max": str(self.high)}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Profile:
        """The opposite of `as_json`. Raises InputError or KeyError for anything else."""
        return cls(*(Extent.parse(data[name], name) for name in ("min", "opt", "max")))


def check_profiles(profiles: Sequence[Profile]) -> list[str]:
    """Refuse profiles that no engine should be built with.

    Returns:
        Remarks, a line each: profiles that overlap are allowed, but the overlap is built and tuned twice.

    Raises:
        InputError: min ≤ opt ≤ max fails on an axis; a profile is contained in another one with the same
            best shape, so that it would never be chosen.
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


def _overlap(one: Profile, other: Profile) -> bool:
    return all(
        max(a, c) <= min(b, d)
        for a, b, c, d in zip(one.low.axes, one.high.axes, other.low.axes, other.high.axes, strict=True)
    )


def choose_profile(profiles: Sequence[Profile], extent: Extent) -> int:
    """The index of the profile for a shape: of those that hold it, the one whose best shape is nearest in pixels.

    Raises InputError naming all profiles where none holds it.
    """
    fitting = [index for index, profile in enumerate(profiles) if profile.holds(extent)]
    if not fitting:
        known = "; ".join(str(profile) for profile in profiles)
        raise InputError(
            f"the engine takes no {extent} (batch x height x width): its profiles are {known}; "
            f"rebuild it with a profile for this size, or resize the input"
        )
    pixels = extent.batch * extent.height * extent.width

    def distance(index: int) -> tuple[int, int]:
        batch, height, width = profiles[index].best.axes
        return abs(batch * height * width - pixels), index

    return min(fitting, key=distance)
