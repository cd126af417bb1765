"""What a reader is, and how one case of it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.robustness.mutations import Mutate
from ufuser.cli import main
from ufuser.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED, REFUSED = "accepted", "refused"
NOISE, WRONG, TRACEBACK, HANG, CRASH, HALF = "noise", "wrong", "traceback", "hang", "crash", "half-written"
GOOD, BAD = (ACCEPTED, REFUSED), (NOISE, WRONG, TRACEBACK, HANG, CRASH, HALF)


class Finding(Exception):  # noqa: N818 - neither a fault of the harness nor of the caller
    """A case that did not end well: one of `BAD`, and what was seen."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole file, or request, from which cases are made."""

    name: str
    data: bytes


@dataclass(slots=True)
class Case:
    """One mutated input in a folder of its own, which is the current one."""

    folder: Path
    name: str
    data: bytes
    rng: Random
    said: Callable[[], tuple[str, str]]
    """What has come to stdout and stderr since the last call, libraries included."""
    outputs: list[Path] = field(default_factory=list)
    """Files that must not exist if the input is refused."""

    @property
    def path(self) -> Path:
        """The mutated input."""
        return self.folder / self.name

    def out(self, name: str) -> Path:
        """A file to be written."""
        self.outputs.append(self.folder / name)
        return self.outputs[-1]

    def command(self, *words: object, good: Sequence[int] = (0,)) -> str:
        """Run `ufuser …` in this process; what it printed.

        Raises:
            InputError: it refused its input as it should.
            Finding: it printed anything else, or ended with another exit code.
        """
        self.said()
        try:
            code: Any = main(list(map(str, words)))
        except SystemExit as ended:
            code = ended.code
        out, err = self.said()
        lines = [line for line in err.splitlines() if not line.startswith("note: ")]
        if code == 2:
            if not lines or not lines[-1].startswith("error: "):
                raise Finding(WRONG, f"exit code 2 without a line that says why: {lines[-1:]}")
            if lines[:-1] or out:
                raise Finding(NOISE, f"before the error: {(lines[:-1] or [out])[0][:200]}")
            raise InputError(lines[-1].removeprefix("error: "))
        if code not in good:
            raise Finding(WRONG, f"exit code {code}: {err[-200:]}")
        if lines:
            raise Finding(NOISE, lines[0][:200])
        return out

    def reference(self, read: Callable[[], Any]) -> Any:
        """What another decoder gives; what it prints is not ours."""
        found = read()
        self.said()
        return found

    def require(self, holds: Any, what: str) -> None:
        """Raise Finding unless what was accepted is right."""
        if not bool(holds):
            raise Finding(WRONG, what)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one kind of input."""

    name: str
    seeds: Callable[[Path], Sequence[Seed]]
    """Whole inputs; the folder is for what has to be written to make them."""
    mutate: Mutate
    read: Callable[[Case], None]
    """Raises InputError where the input is refused, Finding for a fault."""
    seconds: float = 20.0
    """More than one case may take, on a slow machine too."""


def outcome(reader: Reader, case: Case) -> tuple[str, str]:
    """How a case ends, one of `GOOD` or of `BAD` but for hangs and crashes, and why."""
    try:
        reader.read(case)
        kind, why = ACCEPTED, ""
    except Finding as found:
        return found.kind, str(found)
    except InputError as refused:
        kind, why = REFUSED, str(refused)
        if not why.strip():
            return WRONG, "refused without a reason"
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        return TRACEBACK, _where(error)
    noise = "".join(case.said()).strip()
    if noise:
        return NOISE, noise.splitlines()[0][:200]
    left = [name for _, _, names in os.walk(case.folder) for name in names if ".partial" in name]
    if left:
        return HALF, left[0]
    if kind == REFUSED and any(path.exists() for path in case.outputs):
        return HALF, f"refused, but there is {[p.name for p in case.outputs if p.exists()]}: {why[:120]}"
    return kind, why


def _where(error: BaseException) -> str:
    """The exception and the innermost line of ours."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if ROOT in file.parents and "tests" not in file.parts:
            place = f"{file.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    said = next(iter(str(error).splitlines()), "")[:120]
    return f"{type(error).__name__}: {said} ({place})"


def chosen(seeds: Sequence[Seed], reader: Reader, seed: int, index: int) -> tuple[Seed, bytes, Random]:
    """The input of a case: the first ones are the seeds themselves."""
    rng = Random(f"{seed}/{reader.name}/{index}")
    if index < len(seeds):
        return seeds[index], seeds[index].data, rng
    picked = rng.choice(seeds)
    return picked, reader.mutate(picked.data, rng), rng
