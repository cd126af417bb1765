"""`ufuser bench compare A.json B.json`: find slowdowns that exceed the noise of both runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ufuser.benchmarks.results import Latency, Results, read
from ufuser.benchmarks.sizes import as_text
from ufuser.runtime.command import Parser, file_path

_BLOCKS = 8
_SMALLEST_BLOCK = 3
SLOWER_EXIT = 1


@dataclass(frozen=True, slots=True)
class Change:
    """Results of one contender before and after."""

    before: Latency
    after: Latency
    noise_ms: float
    """Noise of both runs: the difference that two medians of the same contender may have."""

    @property
    def difference_ms(self) -> float:
        return self.after.p50_ms - self.before.p50_ms

    @property
    def verdict(self) -> str:
        """ "slower", "faster", or "same" where the difference is within the noise."""
        if abs(self.difference_ms) <= self.noise_ms:
            return "same"
        return "slower" if self.difference_ms > 0 else "faster"


def noise(samples_ms: Sequence[float]) -> float:
    """Noise of a run in milliseconds: half the range of the medians of its consecutive blocks.

    This includes drift during the run, which a standard error of independent samples would miss. With too few
    samples for blocks it is half the range of the samples.
    """
    blocks = min(_BLOCKS, len(samples_ms) // _SMALLEST_BLOCK)
    medians = [float(np.median(b)) for b in np.array_split(samples_ms, blocks)] if blocks > 1 else samples_ms
    return (max(medians) - min(medians)) / 2


def changes(before: Results, after: Results) -> list[Change]:
    """Contenders that were measured in both files, in the order of `after`."""
    earlier = {run.key: run for run in before.latency}
    return [
        Change(earlier[run.key], run, noise(earlier[run.key].samples_ms) + noise(run.samples_ms))
        for run in after.latency
        if run.key in earlier
    ]


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Find slowdowns between two results files.")
    parser.add_argument("before", type=file_path, metavar="A.json")
    parser.add_argument("after", type=file_path, metavar="B.json")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print every change. Returns 1 if something became slower beyond the noise, else 0."""
    before, after = read(args.before), read(args.after)
    print(text(before, after))
    return SLOWER_EXIT if any(c.verdict == "slower" for c in changes(before, after)) else 0


def text(before: Results, after: Results) -> str:
    """Differences of machine and versions, one line per common contender, and the contenders of one file only."""
    found = changes(before, after)
    lines = []
    if before.machine != after.machine:
        lines.append(f"different machines: {before.machine.cpu} before, {after.machine.cpu} after")
    for name in sorted(set(before.versions) | set(after.versions)):
        old, new = before.versions.get(name, "absent"), after.versions.get(name, "absent")
        if old != new:
            lines.append(f"{name} {old} before, {new} after")
    order = {"slower": 0, "faster": 1, "same": 2}
    for change in sorted(found, key=lambda c: order[c.verdict]):
        ratio = change.after.p50_ms / change.before.p50_ms
        lines.append(
            f"{change.verdict:6s} {_title(change.after)}: p50 {change.before.p50_ms:.2f} -> "
            f"{change.after.p50_ms:.2f} ms ({ratio - 1:+.1%}, noise of both {change.noise_ms:.2f} ms)"
        )
    both = {change.after.key for change in found}
    for where, results in (("before", before), ("after", after)):
        lines += [f"only {where}: {_title(run)}" for run in results.latency if run.key not in both]
    if not found:
        lines.append("the files have no contender in common")
    return "\n".join(lines)


def _title(run: Latency) -> str:
    batch = f", batch {run.batch}" if run.batch > 1 else ""
    engine = f"{run.engine} {run.precision}"
    return f"{run.model} in {engine} at {as_text(run.size)}, {run.threads} threads{batch}"
