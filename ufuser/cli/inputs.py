"""What `ufuser fuse` was given: two pictures, two folders or two videos, opened as a pair of sources."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ufuser.runtime.errors import InputError
from ufuser.runtime.sources import ImagesSource, Source, VideoSource, kind_of, open_pair, pictures_in

_NAMED = 5
"""How many of many files a message names."""
_CALLED = {"image": "a picture", "folder": "a folder", "video": "a video", "sim": "a simulated camera"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Both sides, frame by frame in step."""

    kind: str
    """"image", "folder" or "video"."""
    ir: Source
    vi: Source
    unpaired_ir: tuple[str, ...]
    unpaired_vi: tuple[str, ...]
    """Names of files that found no partner; empty except for folders."""

    def notes(self) -> list[str]:
        """What the user should know before the first frame, a line each."""
        notes = [
            f"{len(names)} {side} without a partner, left out: {_some(names)}"
            for side, names in (("infrared", self.unpaired_ir), ("visible", self.unpaired_vi))
            if names
        ]
        if self.kind == "video" and self.ir.fps and self.vi.fps and abs(self.ir.fps / self.vi.fps - 1) > 1e-3:
            notes.append(
                f"infrared has {self.ir.fps:.4g} fps, visible {self.vi.fps:.4g}: fused frame by frame at the "
                f"visible's rate, without resampling"
            )
        return notes

    def total(self) -> int | None:
        """Pairs to expect; None if unknown."""
        lengths = [n for n in (self.ir.length, self.vi.length) if n is not None]
        return min(lengths) if len(lengths) == 2 else None


def open_inputs(ir: str, vi: str, out: Path, stack: ExitStack) -> Inputs:
    """Open both sides; `stack` closes them.

    Raises:
        InputError: a side is missing or unreadable; the two are of different kinds; two folders have no
            common names, or one has a name twice; `out` is one of the inputs.
    """
    kinds = kind_of(ir), kind_of(vi)
    if kinds[0] != kinds[1]:
        raise InputError(
            f"--ir {ir} is {_CALLED[kinds[0]]}, --vi {vi} is {_CALLED[kinds[1]]}: expected two pictures, two "
            f"folders or two videos"
        )
    if kinds[0] == "sim":
        raise InputError("simulated cameras never end: `ufuser demo` fuses them")
    for side in (ir, vi):
        if out.exists() and os.path.samefile(side, out):
            raise InputError(f"--out {out} is the same file or folder as the input {side}: expected another")
    if kinds[0] != "folder":
        first, second = open_pair(ir, vi)
        return Inputs(kinds[0], stack.enter_context(first), stack.enter_context(second), (), ())
    left, right = by_stem(pictures_in(Path(ir))), by_stem(pictures_in(Path(vi)))
    common = sorted(left.keys() & right.keys())
    if not common:
        raise InputError(
            f"no common names: {ir} has {_some([p.name for p in left.values()])}, {vi} has "
            f"{_some([p.name for p in right.values()])}; expected pairs that differ in suffix at most"
        )
    return Inputs(
        "folder",
        stack.enter_context(ImagesSource([left[s] for s in common], ir)),
        stack.enter_context(ImagesSource([right[s] for s in common], vi)),
        tuple(left[s].name for s in sorted(left.keys() - right.keys())),
        tuple(right[s].name for s in sorted(right.keys() - left.keys())),
    )


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by name without suffix. Raises InputError where two have the same: neither may win in silence."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(
                f"{path.parent} has both {found[path.stem].name} and {path.name}: expected one picture a name"
            )
        found[path.stem] = path
    return found


def frames_left(source: Source) -> int:
    """Frames a video still has after the other side ended."""
    return source.count_rest() if isinstance(source, VideoSource) else 0


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
