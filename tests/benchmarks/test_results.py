"""Results files: what goes in comes out, and what is none is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ufuser.benchmarks import results
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.results import Audited, CopyPeak, Energy, Error, Latency, Quality, Results
from ufuser.runtime.errors import InputError
from ufuser.runtime.machine import Machine

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "results.schema.json"


def some() -> Results:
    return Results.here(
        latency=(
            Latency.of(
                "onnxruntime", "ufuser", (480, 640), 2, [0.1, 0.2, 0.3], error=Error("eager", 1e-6, 99.0)
            ),
            Latency.of("openvino", "ufuser", (480, 640), 2, [0.1], precision="bf16", peak_memory_mib=200.5),
        ),
        audit=(Audited("FNet", "as published", "MACs (G)", (264, 400), 0.33, False, 44.34, "skipped"),),
        copy_peaks=(CopyPeak(2, 20.0),),
        quality=(Quality("RoadScene", {"pairs": 20}, {"mean": {"PSNR": None, "VIF": 0.5}}, {"mean": 1.0}),),
        energy=(Energy("tensorrt", "ufuser", (480, 640), 2, "INA3221", 5.0, 12.0, 100, 10.0),),
        notes=("quiet machine",),
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, some())
    assert results.read(path) == some()
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_summary_of_samples() -> None:
    run = Latency.of("e", "m", (16, 16), 1, [0.1] * 98 + [0.2, 0.9], batch=4)
    assert (run.p50_ms, run.samples_ms[-1]) == (100.0, 900.0)
    assert 100 < run.p99_ms < 900
    assert run.fps == pytest.approx(4 * 100 / 10.9)


def test_energy_has_idle_subtracted() -> None:
    assert some().energy[0].millijoules == pytest.approx(700.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["latency"][0].update(p50_ms="fast"),
            r"latency\[0\].p50_ms is 'fast': expected a number, got text",
        ),
        (lambda r: r["latency"][1].pop("engine"), r"the key 'latency\[1\].engine' is missing"),
        # By zero is divided, and an empty list has no median.
        (lambda r: r["latency"][0].update(p50_ms=0), r"latency\[0\].p50_ms is 0: expected a number > 0"),
        (lambda r: r["latency"][0].update(fps=1e308), r"latency\[0\].fps is 1e\+308"),
        (lambda r: r["latency"][0].update(samples_ms=[]), r"latency\[0\].samples_ms is \[\]"),
        (lambda r: r["latency"][0].update(size=[0, 640]), r"latency\[0\].size\[0\] is 0"),
        (lambda r: r["energy"][0].update(frames=0), r"energy\[0\].frames is 0"),
        (lambda r: r.update(schema=99), "has schema 99: expected 1"),
        (lambda r: r.pop("schema"), "expected an object with the key 'schema'"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "results.json"
    results.write(path, some())
    content = json.loads(path.read_text())
    change(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        results.read(path)


def test_what_is_no_results_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("once upon a time")
    with pytest.raises(InputError, match="is not JSON"):
        results.read(path)
    with pytest.raises(InputError, match="cannot read"):
        results.read(tmp_path / "gone.json")
    with pytest.raises(InputError, match="cannot write"):
        results.write(tmp_path / "no" / "folder.json", some())


def test_merge_joins_sections_and_refuses_two_machines() -> None:
    here = some()
    other = Results.here({"torch": "2.0"}, energy_absent="no meter")
    both = results.merge([other, here])
    assert both.latency == here.latency
    assert both.versions["torch"] == "2.0"
    assert both.energy_absent == ""
    assert results.merge([other]).energy_absent == "no meter"
    foreign = Results(Machine("Linux aarch64", "Jetson", 6), {}, "2026-01-01")
    with pytest.raises(InputError, match=r"results of Jetson \(6 cores\)"):
        results.merge([here, foreign])


def test_quality_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    methods = {"mean": {"mean": {"VIF": 0.5, "PSNR": None}, "mean_rank": 1.5, "pairs": {}}}
    path.write_text(json.dumps({"conventions": {"pairs": 3}, "methods": methods}))
    table = results.read_quality(path, "TNO")
    assert table.means == {"mean": {"VIF": 0.5, "PSNR": None}}
    assert table.mean_rank == {"mean": 1.5}
    path.write_text("[]")
    with pytest.raises(InputError, match="was not written by `ufuser bench quality --json`"):
        results.read_quality(path, "TNO")


def test_the_documented_schema_is_current(tmp_path: Path) -> None:
    out = tmp_path / "schema.json"
    assert main(["schema", str(out)]) == 0
    assert json.loads(out.read_text()) == json.loads(SCHEMA_FILE.read_text()), (
        f"run: ufuser bench schema {SCHEMA_FILE.relative_to(Path(__file__).resolve().parents[2])}"
    )
