"""A table of methods as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ufuser.benchmarks.quality.registry import METRICS, RANKED, mean_rank

MEAN_RANK = "mean rank"


def with_mean_rank(table: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Add the column of mean ranks and sort the methods by it, best first."""
    rank = mean_rank(table)
    return {
        method: {**table[method], MEAN_RANK: rank[method]} for method in sorted(table, key=lambda m: rank[m])
    }


def _best(table: Mapping[str, Mapping[str, float]], column: str) -> float:
    higher_is_better = column != MEAN_RANK and METRICS[column][1]
    values = [row[column] for row in table.values()]
    return max(values) if higher_is_better else min(values)


def _digits(column: str) -> int:
    return 1 if column == "MSE" else 2 if column in ("SD", "SF", "AG", "PSNR", MEAN_RANK) else 3


def to_text(table: Mapping[str, Mapping[str, float]], notes: Sequence[str]) -> str:
    """Aligned columns in plain ASCII, with an asterisk at the best of each column and notes below."""
    columns = list(next(iter(table.values())))
    best = {column: _best(table, column) for column in columns}
    rows = [["method", *(f"{column} " for column in columns)]]
    for method, values in table.items():
        cells = (f"{values[c]:.{_digits(c)}f}{'*' if values[c] == best[c] else ' '}" for c in columns)
        rows.append([method, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    lower = [name for name, (_, higher_is_better) in METRICS.items() if not higher_is_better]
    legend = [
        f"* best in its column; lower is better for {', '.join([*lower, MEAN_RANK])}",
        f"{MEAN_RANK}: mean of the ranks in {', '.join(RANKED)} among these {len(table)} methods",
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", *legend, *notes])


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def to_json(
    table: Mapping[str, Mapping[str, float]],
    measured: Mapping[str, Mapping[str, Mapping[str, float]]],
    conventions: Mapping[str, Any],
) -> str:
    """Means, mean ranks and the values of every pair, with their conventions.

    Infinite values (PSNR of identical pictures) become null.
    """
    methods = {
        method: {
            "mean": {column: _finite(value) for column, value in row.items() if column != MEAN_RANK},
            "mean_rank": row[MEAN_RANK],
            "pairs": {
                pair: {metric: _finite(value) for metric, value in values.items()}
                for pair, values in measured[method].items()
            },
        }
        for method, row in table.items()
    }
    return json.dumps({"conventions": conventions, "methods": methods}, indent=1, allow_nan=False) + "\n"


def to_csv(table: Mapping[str, Mapping[str, float]]) -> str:
    """One line per method: its name, the mean of each metric, the mean rank."""
    columns = list(next(iter(table.values())))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", *("mean_rank" if column == MEAN_RANK else column for column in columns)])
    for method, row in table.items():
        writer.writerow([method, *(f"{row[column]:.6g}" for column in columns)])
    return buffer.getvalue()
