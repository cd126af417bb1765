"""Inputs of `ufuser fuse`: two pictures, two folders or two videos, as a pair of sources."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ufuser.runtime import schemes
from ufuser.runtime.errors import InputError
from ufuser.runtime.sources import ImagesSource, Source, VideoSource, kind_of, open_source, pictures_in
from ufuser.runtime.uri import mask

_NAMED = 5
"""Most files that a message names."""
_NAMES = {"image": "a picture", "folder": "a folder", "video": "a video", "recording": "a recording"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """A pair of sources."""

    kind: str
    """"image", "folder" or "video"."""
    ir: Source
    vi: Source
    unpaired_ir: tuple[str, ...]
    unpaired_vi: tuple[str, ...]
    """Names of files in a folder without a partner in the other."""
    rates: tuple[float | None, float | None] = (None, None)
    """Frames per second of infrared and visible videos; None where the file does not tell."""

    def notes(self) -> list[str]:
        """Notes for the user before the first frame, a line each."""
        notes = [
            f"{len(names)} {side} without a partner, left out: {_some(names)}"
            for side, names in (("infrared", self.unpaired_ir), ("visible", self.unpaired_vi))
            if names
        ]
        ir, vi = self.rates
        if ir and vi and abs(ir / vi - 1) > 1e-3:
            notes.append(
                f"infrared has {ir:.4g} fps, visible {vi:.4g}: fused frame by frame at the "
                f"visible's rate, without resampling"
            )
        return notes

    def total(self) -> int | None:
        """Number of pairs; None if unknown."""
        lengths = [n for n in (self.ir.length, self.vi.length) if n is not None]
        return min(lengths) if len(lengths) == 2 else None


def open_inputs(ir: str, vi: str, stack: ExitStack) -> Inputs:
    """Open both sides; `stack` closes them.

    Raises:
        InputError: a side is missing or unreadable; the two are of different kinds; two folders have no
            common names, or one has a name twice.
    """
    kinds = _kind(ir), _kind(vi)
    if kinds[0] != kinds[1]:
        raise InputError(
            f"--ir {ir} is {_NAMES[kinds[0]]}, --vi {vi} is {_NAMES[kinds[1]]}: expected two pictures, two "
            f"folders or two videos"
        )
    first, second = (Path(schemes.parse(schemes.SOURCES, text).address) for text in (ir, vi))
    if kinds[0] == "recording":
        sources = [open_source(ir), open_source(vi)]
        for source in sources:
            stack.callback(source.close)
        return Inputs("video", sources[0], sources[1], (), ())
    if kinds[0] == "video":
        left = stack.enter_context(VideoSource(first))
        right = stack.enter_context(VideoSource(second))
        return Inputs("video", left, right, (), (), (left.fps, right.fps))
    if kinds[0] == "image":
        return Inputs("image", ImagesSource([first], ir), ImagesSource([second], vi), (), ())
    of_ir, of_vi = by_stem(pictures_in(first)), by_stem(pictures_in(second))
    common = sorted(of_ir.keys() & of_vi.keys())
    if not common:
        raise InputError(
            f"no common names: {ir} has {_some([p.name for p in of_ir.values()])}, {vi} has "
            f"{_some([p.name for p in of_vi.values()])}; expected pairs that differ in suffix at most"
        )
    return Inputs(
        "folder",
        ImagesSource([of_ir[s] for s in common], ir),
        ImagesSource([of_vi[s] for s in common], vi),
        tuple(of_ir[s].name for s in sorted(of_ir.keys() - of_vi.keys())),
        tuple(of_vi[s].name for s in sorted(of_vi.keys() - of_ir.keys())),
    )


def _kind(text: str) -> str:
    """Kind of an input: a key of `_NAMES`. Raises InputError for a camera."""
    kind = kind_of(text)
    if kind in _NAMES:
        return kind
    if schemes.find(schemes.SOURCES, text).live:
        raise InputError(
            f"{mask(text)} is a camera: expected a picture, a folder or a video; `ufuser stream` fuses cameras"
        )
    return "recording"  # of a plug-in


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by name without suffix. Raises InputError if two have the same name."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(
                f"{path.parent} has both {found[path.stem].name} and {path.name}: expected one picture per name"
            )
        found[path.stem] = path
    return found


def frames_left(source: Source) -> int:
    """Frames that a video still has after the other has ended."""
    return source.count_rest() if isinstance(source, VideoSource) else 0


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
