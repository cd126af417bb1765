"""The published tables: whole, readable, and cell for cell what the papers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser.benchmarks import published
from ufuser.runtime.errors import InputError

SEEDS = Path(__file__).resolve().parents[3] / "shared" / "seeds"
TEXTS = {"emma": "001_*.txt", "fnet": "002_*.txt", "daefuse": "003_*.txt"}

# table, keys, column, figure: read off the papers by hand
CELLS = [
    ("emma_1", {"dataset": "MSRS", "method": "Ours"}, "VIF", 0.90),
    ("emma_1", {"dataset": "TNO", "method": "ReC"}, "Qabf", 0.48),
    ("emma_2", {"configuration": "Exp. III"}, "AG", 2.99),
    ("emma_3", {"method": "Ours"}, "mAP@0.5", 82.9),
    ("emma_4", {"method": "VI"}, "mIOU", 51.7),
    ("emma_5", {"dataset": "Harvard", "method": "ReC"}, "SD", 62.02),
    ("fnet_1_cost", {"method": "EMMA"}, "flops_g", 13.89),
    ("fnet_1_cost", {"method": "FNet"}, "flops_g", 0.33),
    ("fnet_1_quality", {"dataset": "RoadScene", "method": "FNet"}, "Qcb", 0.48),
    ("fnet_1_quality", {"dataset": "SPECT-MRI", "method": "MDA"}, "CE", 22.24),
    ("fnet_2", {"method": "FNet"}, "segmentation_Average", 0.780),
    ("fnet_3", {"dataset": "TNO", "experiment": "AE15"}, "CE", 3.87),
    ("daefuse_1_quality", {"dataset": "MRI-CT", "method": "Ours"}, "SD", 76.19),
    ("daefuse_1_detection", {"method": "TarDAL"}, "Car", 0.947),
]
ROWS = {
    "emma_1": 4 * 8,
    "emma_2": 6,
    "emma_3": 10,
    "emma_4": 10,
    "emma_5": 8,
    "fnet_1_cost": 13,
    "fnet_1_quality": 8 * 13,
    "fnet_2": 15,
    "fnet_3": 8 * 16,
    "daefuse_1_quality": 2 * 8,
    "daefuse_1_detection": 8,
}


@pytest.mark.parametrize(("table", "keys", "column", "figure"), CELLS)
def test_cells_read_by_hand(table: str, keys: dict[str, str], column: str, figure: float) -> None:
    assert published.load(table).value(column, **keys) == figure


def test_every_table_is_there_with_paper_and_setting() -> None:
    assert published.names() == list(ROWS)
    for name, count in ROWS.items():
        table = published.load(name)
        assert len(table.rows) == count
        assert len({tuple(row[key] for key in table.keys) for row in table.rows}) == count
        assert all((table.paper, table.printed_as, table.convention, table.resolution, table.gpu))
        for row in table.rows:
            assert all(float(row[column]) >= 0 for column in table.columns)


def printed_lines(table: published.Table) -> list[str]:
    """The table's figures as lines of its paper's text."""
    if table.name == "fnet_1_cost":
        return [" | ".join(row[column] for row in table.rows) for column in table.columns]
    if table.name in ("fnet_1_quality", "fnet_3"):  # there a line is a metric
        datasets = dict.fromkeys(row["dataset"] for row in table.rows)
        return [
            f"{column} {'↓' if column == 'CE' else '↑'} | "
            + " | ".join(row[column] for row in table.select(dataset=dataset))
            for dataset in datasets
            for column in table.columns
        ]
    joint = " | " if table.name == "fnet_2" else " "
    return [joint.join(row[column] for column in table.columns) for row in table.rows]


@pytest.mark.skipif(not SEEDS.is_dir(), reason="needs ../shared/seeds")
@pytest.mark.parametrize("name", ROWS)
def test_every_row_stands_in_the_paper(name: str) -> None:
    paper = next(SEEDS.glob(TEXTS[name.split("_")[0]])).read_text(encoding="utf-8")
    table = published.load(name)
    missing = [line for line in printed_lines(table) if line not in paper]
    assert not missing
    if "method" in table.keys and not name.startswith("fnet_1"):
        for row in table.rows:
            assert row["method"] in paper


def test_a_missing_table_or_row_is_said() -> None:
    with pytest.raises(InputError, match="no published table 'emma_9'"):
        published.load("emma_9")
    with pytest.raises(KeyError, match="names 4 rows"):
        published.load("emma_1").value("VIF", method="Ours")
