"""The process in which readers are tried: with a limit of memory and, for each case, of time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

MEMORY = 3 << 30
"""Bytes of address space beyond what the libraries take."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker does with one reader."""

    reader: str
    first: int
    """Index of the first case."""
    step: int
    """From one case to the next: the number of workers."""
    least: int
    """Cases, however long they take."""
    most: int
    seconds: float
    """After `least` cases."""


def main(job: dict[str, Any]) -> None:
    """Try the shares of a job; each case is announced and reported in a line on the first stdout."""
    # The libraries' threads would only wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    from tests.robustness.readers import READERS, seeds_of

    folder, keep = Path(job["folder"]), Path(job["keep"]) if job["keep"] else None
    report, said = _redirected(folder)
    shares = [Share(**share) for share in job["shares"]]
    made = folder / "seeds"
    made.mkdir(exist_ok=True)
    seeds = {share.reader: seeds_of(READERS[share.reader], made) for share in shares}
    _limit_memory()
    for share in shares:
        began = time.monotonic()
        for done, index in enumerate(range(share.first, share.first + share.step * share.most, share.step)):
            if done >= share.least and time.monotonic() - began >= share.seconds:
                break
            _try(READERS[share.reader], seeds[share.reader], job["seed"], index, folder, said, report, keep)
    report.write("end\n")
    report.flush()
    os._exit(0)  # threads of the server or of an engine must not hold up the end


def keep_case(keep: Path | None, folder: Path, reader: str, index: int) -> str:
    """Copy the folder of the case that a worker is at; the copy's path, "" where none is kept."""
    if keep is None:
        return ""
    target = keep / f"{reader}-{index}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "case", target, ignore_dangling_symlinks=True)
    return str(target)


def _try(
    reader: Any,
    seeds: Any,
    seed: int,
    index: int,
    folder: Path,
    said: Callable[[], tuple[str, str]],
    report: TextIO,
    keep: Path | None,
) -> None:
    from tests.robustness.reader import GOOD, Case, chosen, outcome

    picked, data, rng = chosen(seeds, reader, seed, index)
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / picked.name).write_bytes(data)
    os.chdir(place)
    said()
    report.write(json.dumps({"reader": reader.name, "index": index, "began": True}) + "\n")
    report.flush()
    began = time.monotonic()
    with _time_limit(reader.seconds):
        kind, why = outcome(reader, Case(place, picked.name, data, rng, said))
    seconds = time.monotonic() - began
    kept = keep_case(keep, folder, reader.name, index) if kind not in GOOD else ""
    line = {"reader": reader.name, "index": index, "kind": kind, "why": why, "seconds": seconds, "kept": kept}
    report.write(json.dumps(line) + "\n")
    report.flush()


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the process by SIGALRM, whatever it is doing."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _redirected(folder: Path) -> tuple[TextIO, Callable[[], tuple[str, str]]]:
    """Standard output and error into files, those of native libraries too; the pipe to the parent stays."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    own = os.fdopen(os.dup(2), "w", encoding="utf-8")
    sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, trace, file=own)
    files = [folder / name for name in ("stdout", "stderr")]
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_TRUNC), number)

    def said() -> tuple[str, str]:
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for number, file in enumerate(files, 1):
            texts.append(file.read_bytes().decode("utf-8", "replace"))
            os.truncate(number, 0)
        return texts[0], texts[1]

    return report, said


def as_job(folder: Path, seed: int, shares: list[Share], keep: Path | None) -> str:
    """The text that `main` takes, decoded."""
    listed = [asdict(share) for share in shares]
    return json.dumps({"folder": str(folder), "seed": seed, "shares": listed, "keep": str(keep or "")})
