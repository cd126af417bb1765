"""Shares cases out among worker processes, starts a worker again after a crash or a hang, and counts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.robustness.reader import BAD, CRASH, GOOD, HANG
from tests.robustness.worker import Share, as_job, keep_case

ROOT = Path(__file__).resolve().parents[2]
WORKER = (sys.executable, "-m", "tests.robustness", "--worker")
"""The command of a worker, to which a job is added."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A case that did not end well."""

    reader: str
    index: int
    kind: str
    why: str
    kept: str
    """A copy of its folder; "" where none is kept."""


@dataclass(slots=True)
class Table:
    """Counts by reader, and the faults."""

    seed: int
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    report: Callable[[str], None] = print
    """Is told each distinct fault when it is first seen."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: set[tuple[str, str, str]] = field(default_factory=set)

    def add(self, reader: str, index: int, kind: str, why: str, kept: str) -> None:
        """Count a case that has ended."""
        with self._lock:
            self.counts[reader][kind] += 1
            if kind not in BAD:
                return
            self.faults.append(Fault(reader, index, kind, why, kept))
            alike = reader, kind, re.sub(r"[^a-z ]+", "", why.lower())[:40]
            if alike not in self._seen:
                self._seen.add(alike)
                again = f"--reader {reader} --case {index} --seed {self.seed}"
                self.report(f"{kind} in {reader}: {why}\n    {again}   {kept}")

    def markdown(self) -> str:
        """The table with a row for each reader and their sum."""
        kinds = ("tried", *GOOD, *BAD)
        rows = [(name, {"tried": counts.total(), **counts}) for name, counts in self.counts.items()]
        total: Counter[str] = Counter()
        for _, counts in rows:
            total.update(counts)
        lines = [f"| reader | {' | '.join(kinds)} |", f"|---|{'--:|' * len(kinds)}"]
        for name, found in (*rows, ("**all**", total)):
            lines.append(f"| {name} | {' | '.join(str(found.get(kind, 0)) for kind in kinds)} |")
        return "\n".join(lines)


def run(
    names: Sequence[str],
    seed: int,
    *,
    seconds: float,
    least: int = 1,
    most: int = 10**9,
    jobs: int = 1,
    first: int = 0,
    keep: Path | None = None,
    report: Callable[[str], None] = print,
    worker: Sequence[str] = WORKER,
) -> Table:
    """Try readers.

    Args:
        names: of the readers.
        seed: of the mutations.
        seconds: in all, over all readers, as long as each has tried `least`.
        least, most: cases of each reader.
        jobs: worker processes.
        first: index of the first case.
        keep: folder for the inputs that broke something; None keeps none.
        report: is told each distinct fault when it is first seen.
        worker: command of a worker.
    """
    table = Table(seed, {name: Counter() for name in names}, report=report)
    threads = []
    for job in range(jobs):
        share = Share("", first + job, jobs, -(-least // jobs), -(-most // jobs), seconds / len(names))
        shares = [replace(share, reader=name) for name in names]
        threads.append(threading.Thread(target=_work, args=(shares, table, keep, worker)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return table


def _work(shares: list[Share], table: Table, keep: Path | None, worker: Sequence[str]) -> None:
    """One worker process after the other, until all is tried."""
    with tempfile.TemporaryDirectory() as folder:
        while shares:
            shares = _process(shares, table, keep, Path(folder), worker)


def _process(
    shares: list[Share], table: Table, keep: Path | None, folder: Path, worker: Sequence[str]
) -> list[Share]:
    """Run one worker; what is left where it ended too early."""
    job = as_job(folder, table.seed, shares, keep)
    command = [*worker, job]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        current, spent, open_, ended = None, 0.0, False, False
        for line in process.stdout:
            if line == "end\n":
                ended = True
                continue
            found = json.loads(line)
            if "began" in found:
                if current is None or current[0] != found["reader"]:
                    spent = 0.0
                current, open_ = (found["reader"], found["index"]), True
                continue
            open_ = False
            spent += found["seconds"]
            table.add(*(found[key] for key in ("reader", "index", "kind", "why", "kept")))
    if ended:
        return []
    if current is None or not open_:
        raise RuntimeError(f"a worker ended with {process.returncode} between two cases")
    name, index = current
    kind = HANG if process.returncode == -signal.SIGALRM else CRASH
    table.add(name, index, kind, f"ended by {process.returncode}", keep_case(keep, folder, name, index))
    left = shares[[share.reader for share in shares].index(name) :]
    done = (index - left[0].first) // left[0].step + 1
    rest = replace(
        left[0],
        first=index + left[0].step,
        least=max(0, left[0].least - done),
        most=left[0].most - done,
        seconds=max(0.0, left[0].seconds - spent),
    )
    return [rest, *left[1:]] if rest.most > 0 else left[1:]
