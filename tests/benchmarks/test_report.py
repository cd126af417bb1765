"""The report: what it shows, that the page needs no other file, and that its twin shows the same."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufuser.benchmarks import published
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.report_page import FIGURES, PAGE, TWIN
from ufuser.benchmarks.report_plots import Point, fitted, pareto
from ufuser.benchmarks.report_tables import common_setting, cost_tables, latency_tables, quality_table
from ufuser.benchmarks.results import (
    Audited,
    ConvolutionPeak,
    CopyPeak,
    Cost,
    Latency,
    OperatorShare,
    OperatorTimes,
    Quality,
    Results,
    merge,
    write,
)
from ufuser.simulation import SimConfig

VGA, SMALL = (480, 640), (264, 400)
SLOW, FAST = "PyTorch eager", "onnxruntime"


def some() -> Results:
    runs = [
        Latency.of(engine, model, size, threads, [seconds * size[0] * size[1] / 307200 / threads] * 5)
        for engine, model, seconds in ((SLOW, "ufuser", 1.2), (FAST, "ufuser", 0.4), ("mean", "", 0.001))
        for size in (SMALL, VGA)
        for threads in (1, 2)
    ]
    return Results.here(
        latency=tuple(runs),
        operators=(OperatorTimes(FAST, "ufuser", VGA, 2, {"Conv": 300.0, "Pad & more <b>": 100.0}),),
        cost=tuple(
            Cost(
                "ufuser",
                s,
                985_000,
                s[0] * s[1] * 82_000,
                s[0] * s[1] * 22_000,
                1,
                (OperatorShare("Conv", 1, 1, 1),),
            )
            for s in (SMALL, VGA)
        ),
        audit=(
            Audited("FNet", "FNet as published", "MACs (G)", SMALL, 0.33, False, 44.34, "skipped by name"),
        ),
        convolution_peaks=(ConvolutionPeak("onnxruntime", "fp32", 2, 100.0, "3x3"),),
        copy_peaks=(CopyPeak(2, 30.0),),
        energy_absent="no INA3221",
        notes=("A note with a | bar and <angles>.",),
    )


def test_ratios_are_of_contenders_that_took_turns() -> None:
    """Two runs in one report, the second in an hour twice as slow: neither is compared with the other's eager."""
    rows = [
        Results.here(
            latency=(
                Latency.of(SLOW, "ufuser", VGA, 2, [1.2 * hour] * turns),
                Latency.of(engine, "ufuser", VGA, 2, [0.4 * hour] * turns),
            )
        )
        for hour, turns, engine in ((1, 5, FAST), (2, 7, "openvino"))
    ]
    table = latency_tables(merge([merge(rows), Results.here(latency=(rows[0].latency[1],))]))[0]
    ratios = [row[table.head.index("eager / this")] for row in table.rows]  # the fastest first
    assert sorted(ratios[:2]) == ["", "3.00×"], "one of the first two was alone in its run"
    assert ratios[2:] == ["3.00×", "1.00×", "1.00×"]
    assert "5 or 7 repetitions each." in table.notes
    assert any("One row per run" in note for note in table.notes)
    assert not any("One row per run" in note for note in latency_tables(rows[0])[0].notes)


def given(tmp_path: Path) -> dict[str, Path]:
    """Results, a quality table, and folders of one pair."""
    write(tmp_path / "results.json", some())
    means = {"ufuser": {"VIF": 0.63, "EN": 7.09}, "mean": {"VIF": 0.53, "EN": 6.55}}
    methods = {
        name: {"mean": row, "mean_rank": 1.0 + (name == "mean"), "pairs": {}} for name, row in means.items()
    }
    (tmp_path / "quality.json").write_text(json.dumps({"conventions": {"pairs": 20}, "methods": methods}))
    rng = np.random.default_rng(0)
    for side in ("ir", "vi", "theirs"):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "a.png"), rng.integers(0, 256, (48, 64), np.uint8))
    return {name: tmp_path / name for name in ("results.json", "quality.json", "ir", "vi", "theirs", "out")}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return given(tmp_path)


class Page(HTMLParser):
    """Everything that the page would load, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loaded += [str(found[key]) for key in ("src", "href", "srcset") if key in found]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report's folder."""
    files = given(tmp_path_factory.mktemp("report"))
    options = ["--ir", str(files["ir"]), "--vi", str(files["vi"]), "--fused", f"theirs={files['theirs']}"]
    quality = f"RoadScene={files['quality.json']}"
    results = str(files["results.json"])
    assert (
        main(["report", "--out", str(files["out"]), "--results", results, "--quality", quality, *options])
        == 0
    )
    return files["out"]


@pytest.fixture
def page(out: Path) -> Page:
    return Page((out / PAGE).read_text())


def test_the_page_needs_no_other_file(page: Page) -> None:
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.loaded)
    assert all(image["alt"] for image in page.images)
    plots = [i for i in page.images if str(i["src"]).startswith("data:image/svg+xml")]
    assert len(plots) == 4  # pixels, operators, roofline, quality
    for plot in plots:
        ElementTree.fromstring(base64.b64decode(str(plot["src"]).split(",")[1]))
    pictures = [i for i in page.images if str(i["src"]).startswith("data:image/jpeg")]
    assert len(pictures) == 4  # infrared, visible, fused, theirs
    jpeg = np.frombuffer(base64.b64decode(str(pictures[0]["src"]).split(",")[1]), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED).shape[:2] == (48, 64)


def test_the_page_says_machine_notes_and_reasons(page: Page) -> None:
    text = " ".join(page.words)
    here = some()
    assert here.machine.cpu in text
    assert f"numpy {here.versions['numpy']}" in text
    assert "A note with a | bar and <angles>." in text  # escaped in the source, not in what is read
    assert "[1] skipped by name." in text
    assert "Not measured on this machine: no INA3221." in text


def test_the_twin_shows_the_same(page: Page, out: Path) -> None:
    twin = (out / TWIN).read_text()
    shown = re.findall(rf"\]\(({FIGURES}/[^)]+)\)", twin)
    assert len(shown) == len(page.images)
    assert sorted(shown) == sorted(
        f"{FIGURES}/{path.name}" for path in (out / FIGURES).iterdir() if path.is_file()
    )
    tables = [block for block in re.split(r"\n\n+", twin) if block.startswith("|")]
    for table in tables:  # every line has as many cells as the head
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1
    headed = re.findall(r"^###? (.*)", twin, re.MULTILINE)
    assert len(headed) > 8
    assert set(headed) <= set(page.words)


def test_the_setting_of_most_contenders_is_compared() -> None:
    runs = some().latency
    assert common_setting(runs) == (VGA, 2)
    assert common_setting([*runs, Latency.of("x", "m", SMALL, 1, [1.0])]) == (SMALL, 1)
    assert common_setting([]) is None


def test_latency_beside_eager_and_printed_runtimes() -> None:
    first, *_, printed = latency_tables(some())
    rows = {row[0]: row for row in first.rows}
    assert rows["ufuser, onnxruntime"][5] == "3.00×"
    # 480·640·82000 MACs in 200 ms under 100 GMAC/s
    assert rows["ufuser, onnxruntime"][6] == f"{480 * 640 * 82_000 / 0.2 / 100e9:.0%}"
    assert rows["ufuser, PyTorch eager"][6] == ""  # runs another graph than the counted one
    assert rows["mean"][5] == ""
    emma = next(row for row in printed.rows if row[0] == "EMMA")
    assert emma[1:3] == ("0.041", f"{0.2 * 264 * 400 / 307200:.3f} (onnxruntime fp32)")


def test_printed_quality_stands_under_the_measured() -> None:
    measured = Quality(
        "RoadScene",
        {"pairs": 3},
        {"mean": {"VIF": 0.5}, "ufuser": {"VIF": 0.6}},
        {"mean": 2.0, "ufuser": 1.0},
    )
    table = quality_table(measured)
    assert table.head == ("method", "from", "VIF", "mean rank")
    assert table.rows[:4] == (
        ("ufuser", "measured", "0.600", "1.00"),
        ("↳ EMMA", "EMMA, Table 1", "0.62", ""),
        ("↳ EMMA", "FNet, Table I", "0.66", ""),
        ("mean", "measured", "0.500", "2.00"),
    )
    assert 0 not in table.muted
    assert 1 in table.muted
    assert ("FNet", "FNet, Table I", "0.70", "") in table.rows
    assert len(quality_table(Quality("nowhere", {}, measured.means, measured.mean_rank)).rows) == 2


def test_fnet_and_daefuse_stand_beside_what_their_papers_print() -> None:
    columns = {"VIF": 0.6, "SF": 9.0}
    ranks = {"fnet": 1.0, "daefuse": 2.0, "lite": 3.0}
    table = quality_table(Quality("TNO", {"pairs": 3}, dict.fromkeys(ranks, columns), ranks))
    shown = [row[:2] for row in table.rows[:5]]
    assert shown[0] == ("fnet", "measured")
    assert shown[1] == ("↳ FNet", "FNet, Table I")
    assert shown[2] == ("daefuse", "measured")
    assert shown[3] == ("↳ DAE-Fuse", f"DAE-Fuse, {published.load('daefuse_1_quality').printed_as}")
    assert shown[4] == ("lite", "measured")  # which no paper prints
    own = published.load("daefuse_1_quality").select(dataset="TNO", method="Ours")[0]
    assert own["VIF"] in table.rows[3]
    runs = Results.here(latency=(Latency.of(FAST, "fnet", SMALL, 2, [2.0] * 3),))
    printed = latency_tables(runs)[-1]
    (fnet,) = (row for row in printed.rows if row[0] == "FNet")
    assert fnet[1:3] == ("0.051", f"2.000 ({FAST} fp32)")


def test_batches_by_pairs_a_second_and_milliseconds_a_pair() -> None:
    runs = [Latency.of(FAST, "ufuser", VGA, 2, [seconds] * 3, batch=n) for n, seconds in ((1, 0.5), (4, 1.6))]
    (table,) = (t for t in latency_tables(Results.here(latency=tuple(runs))) if t.title.startswith("Batches"))
    assert table.head == ("contender", "1", "4", "last / first")
    assert table.rows == (("ufuser, onnxruntime", "2.00 (500.0)", "2.50 (400.0)", "1.25×"),)


def test_the_audit_flags_beyond_its_tolerance() -> None:
    audit = cost_tables(some())[1]
    assert audit.rows[0] == ("FNet, MACs (G)", "0.33", "44.340", "134× [1]")
    assert audit.flagged == {0}


def test_pareto_front() -> None:
    points = [Point("a", 1, 5), Point("b", 2, 3), Point("c", 3, 4), Point("d", 9, 1), Point("e", 2, 6)]
    assert [p.name for p in pareto(points)] == ["a", "b", "d"]


def test_fitted_slope() -> None:
    runs = [Latency.of("e", "m", (1000, k), 1, [(5 + 300 * k / 1000) / 1000]) for k in (200, 400, 900)]
    slope, start = fitted(runs)
    assert slope == pytest.approx(300)
    assert start == pytest.approx(5)


def test_simulated_pictures(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ufuser.benchmarks.report_panels._SIMULATED", ((1, 3),))
    # A small street and the small network: their making is what takes time.
    monkeypatch.setattr(
        "ufuser.benchmarks.report_panels.SimConfig", partial(SimConfig, width=160, height=120)
    )
    options = ["--out", str(files["out"]), "--results", str(files["results.json"]), "--simulated"]
    options += ["--model", "lite"]
    assert main(["report", *options]) == 0
    found = Page((files["out"] / PAGE).read_text())
    assert [str(i["alt"]).split(":")[0] for i in found.images if "width" in i] == [
        "infrared",
        "visible",
        "fused, lite",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--results", "gone.json"], "cannot read gone.json"),
        ([], "--results is missing"),
        (["--results", "RESULTS", "--quality", "table.json"], "--quality table.json: expected NAME=PATH"),
        (["--results", "RESULTS", "--ir", "somewhere"], "--ir and --vi: expected both"),
        (["--results", "RESULTS", "--fused", "a=b"], "expected --ir and --vi too"),
        (["--results", "EMPTY"], "the results are empty"),
    ],
)
def test_bad_input(
    files: dict[str, Path], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = files["results.json"].with_name("empty.json")
    write(empty, Results.here())
    places = {"RESULTS": str(files["results.json"]), "EMPTY": str(empty)}
    assert main(["report", "--out", str(files["out"]), *(places.get(o, o) for o in options)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not files["out"].exists()
