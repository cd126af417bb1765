"""Configuration of the conversion to 8 bits, also from a short text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ufuser.runtime.errors import InputError

MODES = ("auto", "linear", "plateau", "clahe", "fixed")
_SPELLED = (
    "auto, linear[:LOW:HIGH] (percent), plateau[:SHARE], clahe[:CLIP] or fixed[:LOW:HIGH] (counts), "
    "with ,black-hot after it to show warm as dark"
)


@dataclass(frozen=True, slots=True)
class ThermalConfig:
    """Raises InputError for an unknown mode or a value out of range."""

    mode: str = "auto"
    """"linear" stretches between two percentiles; "plateau" equalises a clipped histogram; "clahe" equalises
    tile by tile after a linear stretch; "fixed" always uses `fixed`. "auto" is "plateau" for raw counts and keeps
    8-bit pictures as they are."""
    low_percent: float = 1.0
    high_percent: float = 99.0
    """Share of the pixels below black and below white."""
    fixed: tuple[float, float] | None = None
    """Counts of black and white in mode "fixed"; None keeps 8-bit pictures as they are."""
    plateau: float = 2.0
    """Clip limit of the histogram, as a multiple of a uniform one: 1 is close to linear, a large one is full
    equalisation."""
    clahe_clip: float = 2.0
    """Clip limit of each tile, in OpenCV's units."""
    smoothing_s: float = 0.5
    """Time constant of limits and tables, seconds; 0 computes them for every frame."""
    min_span: float = 32.0
    """Smallest number of counts from black to white, so that a blank wall does not become a picture of noise.
    Below four times this, "plateau" blends into "linear"."""
    black_hot: bool = False
    """Warm is dark."""
    heal: bool = True
    """Find dead pixels and fill them from their neighbours."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"agc={self.mode!r}: expected {_SPELLED}", "agc")
        if not 0 <= self.low_percent < self.high_percent <= 100:
            raise InputError(
                f"agc='linear:{self.low_percent:g}:{self.high_percent:g}': expected two rising percentages "
                f"from 0 to 100",
                "agc",
            )
        if self.fixed is not None and not (
            all(map(math.isfinite, self.fixed)) and 0 <= self.fixed[0] < self.fixed[1] <= 65535
        ):
            raise InputError(
                f"agc='fixed:{self.fixed[0]:g}:{self.fixed[1]:g}': expected two rising counts from 0 to 65535",
                "agc",
            )
        for name, lowest in (("plateau", 1.0), ("clahe_clip", 0.1), ("smoothing_s", 0.0), ("min_span", 1.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= lowest):
                raise InputError(f"thermal {name} {value:g}: expected a number of at least {lowest:g}")

    @classmethod
    def from_text(cls, text: str) -> ThermalConfig:
        """The text form, as the option `agc` takes it: `plateau`, `linear:0.5:99.5`, `fixed:7000:9500,black-hot`, ...

        Raises:
            InputError: anything else.
        """
        tone, *words = text.split(",")
        if words not in ([], ["black-hot"], ["white-hot"]):
            raise InputError(f"agc={text!r}: expected {_SPELLED}", "agc")
        mode, *numbers = tone.split(":")
        names = {
            "linear": ("low_percent", "high_percent"),
            "plateau": ("plateau",),
            "clahe": ("clahe_clip",),
            "fixed": ("low", "high"),
        }.get(mode, ())
        if mode not in MODES or len(numbers) not in (0, len(names)):
            raise InputError(f"agc={text!r}: expected {_SPELLED}", "agc")
        try:
            values = dict(zip(names, map(float, numbers), strict=False))
        except ValueError:
            raise InputError(f"agc={text!r}: expected numbers after '{mode}:'; {_SPELLED}", "agc") from None
        fixed = (values.pop("low"), values.pop("high")) if mode == "fixed" and values else None
        return replace(cls(mode=mode, fixed=fixed, black_hot=words == ["black-hot"]), **values)  # type: ignore[arg-type]
