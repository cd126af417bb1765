"""Printed tables of the papers: `tables.toml` describes them, and a CSV file per table holds the cells.

Cells are kept as printed ("0.20", not 0.2), so that a test can find every row in the text of the papers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import read_toml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Table:
    """One printed table, or a part of one with the same columns."""

    name: str
    paper: str
    """Title and venue."""
    printed_as: str
    """Number of the table in the paper."""
    caption: str
    convention: str
    """Meaning and unit of the figures, and whether higher or lower is better."""
    resolution: str
    gpu: str
    remarks: tuple[str, ...]
    keys: tuple[str, ...]
    """Columns that together identify a row."""
    labels: tuple[str, ...]
    """Columns that describe a row but hold no figures."""
    columns: tuple[str, ...]
    """Columns of figures."""
    rows: tuple[dict[str, str], ...]
    """Column → cell as printed; empty if the paper leaves it empty."""

    def select(self, **keys: str) -> tuple[dict[str, str], ...]:
        """Rows with the given cells, such as `select(dataset="TNO")`."""
        return tuple(row for row in self.rows if all(row[key] == value for key, value in keys.items()))

    def value(self, column: str, **keys: str) -> float:
        """One figure. Raises KeyError if the keys do not identify one row or the column does not exist."""
        rows = self.select(**keys)
        if len(rows) != 1 or column not in self.columns:
            raise KeyError(f"{self.name}: {column} of {keys} names {len(rows)} rows")
        return float(rows[0][column])


def names() -> list[str]:
    """All tables, in the order of `tables.toml`."""
    return list(_index()["tables"])


def load(name: str) -> Table:
    """Read a table.

    Raises:
        InputError: no table of that name.
    """
    index = _index()
    if name not in index["tables"]:
        raise InputError(f"no published table '{name}': expected one of {', '.join(index['tables'])}")
    entry = index["tables"][name]
    paper = index["papers"][entry["paper"]]
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = tuple(reader)
        head = reader.fieldnames or []
    keys, labels = tuple(entry["keys"]), tuple(entry.get("labels", ()))
    return Table(
        name,
        f"{paper['title']}, {paper['venue']}",
        entry["printed_as"],
        entry["caption"],
        entry["convention"],
        entry["resolution"],
        entry["gpu"],
        tuple(entry["remarks"]),
        keys,
        labels,
        tuple(column for column in head if column not in (*keys, *labels)),
        rows,
    )


def _index() -> dict[str, Any]:
    return read_toml(_FOLDER / "tables.toml")
