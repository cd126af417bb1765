"""The audit: it recomputes, it flags, and its reasons follow from what it counted."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from ufuser.benchmarks import published
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.audit import (
    FLOPS,
    MACS,
    PARAMETERS,
    TOLERANCE,
    Counted,
    _reasons,
    audit,
    count,
    weights_used,
)
from ufuser.benchmarks.cost import cost_of
from ufuser.benchmarks.results import Audited, read
from ufuser.runtime.models import find_model
from ufuser.train.models.fnet import FNet
from ufuser.train.models.ufuser import UFuser

TABLE_SIZE = (264, 400)


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, tuple[int, int]], Audited]:
    models = [("ours", find_model("ufuser")), ("deployed", find_model("fnet"))]
    found = audit(models, [TABLE_SIZE, (480, 640)])
    return {(row.network, row.quantity, row.size): row for row in found}


def test_the_printed_flops_of_ufuser_are_macs(rows: dict[tuple[str, str, tuple[int, int]], Audited]) -> None:
    macs, flops = rows["EMMA", MACS, TABLE_SIZE], rows["EMMA", FLOPS, TABLE_SIZE]
    assert macs.printed == flops.printed == 13.89
    assert macs.recomputed == pytest.approx(13.895, abs=0.001)
    assert macs.reason == ""
    assert flops.recomputed == 2 * macs.recomputed
    assert "counts multiply-accumulates" in flops.reason
    assert rows["EMMA", PARAMETERS, TABLE_SIZE].recomputed == 1517.657


def test_fnet_lacks_its_convolutions(rows: dict[tuple[str, str, tuple[int, int]], Audited]) -> None:
    macs = rows["FNet", MACS, TABLE_SIZE]
    assert macs.printed == 0.33
    assert macs.recomputed == pytest.approx(44.34, abs=0.01)
    assert "100% of the multiply-accumulates are in convolutions with padding='same'" in macs.reason
    assert "0.345 G multiplications element by element" in macs.reason
    assert rows["FNet", PARAMETERS, TABLE_SIZE].recomputed == 419.916


def test_ours_is_counted_from_the_graph(rows: dict[tuple[str, str, tuple[int, int]], Audited]) -> None:
    ours = rows["ours", MACS, TABLE_SIZE]
    assert ours.recomputed == cost_of(find_model("ufuser"), *TABLE_SIZE).macs / 1e9
    assert ours.recomputed < 0.7 * 13.895
    assert "rewritten exactly" in ours.reason


def test_a_deployed_fnet_stands_beside_the_printed_one(
    rows: dict[tuple[str, str, tuple[int, int]], Audited],
) -> None:
    for size in (TABLE_SIZE, (480, 640)):
        deployed, defined = rows["deployed", MACS, size], rows["FNet", MACS, size]
        assert deployed.printed == defined.printed
        assert 1 < deployed.recomputed / defined.recomputed < 1.06
        assert "not that of FNet as published either" in deployed.reason
    parameters = rows["deployed", PARAMETERS, TABLE_SIZE]
    assert parameters.printed == 420
    assert abs(parameters.difference) < TOLERANCE


def test_other_sizes_are_compared_with_scaled_figures(
    rows: dict[tuple[str, str, tuple[int, int]], Audited],
) -> None:
    scaled = rows["EMMA", MACS, (480, 640)]
    assert scaled.scaled
    assert not rows["EMMA", MACS, TABLE_SIZE].scaled
    assert scaled.printed == pytest.approx(13.89 * 480 * 640 / (264 * 400))
    assert abs(scaled.difference) < TOLERANCE


def test_what_is_flagged_has_a_reason_and_what_is_not_has_none(
    rows: dict[tuple[str, str, tuple[int, int]], Audited],
) -> None:
    assert all(bool(row.reason) == (abs(row.difference) > TOLERANCE) for row in rows.values())


def test_reasons_follow_from_the_counts() -> None:
    size = (10, 10)
    plain = Counted(macs=1000, padded_by_name=0, multiplied=50)
    assert _reasons(1000, plain, 10, size) == {
        MACS: "",
        FLOPS: "the printed figure counts multiply-accumulates, one each, not operations",
    }
    assert _reasons(2000, plain, 10, size)[FLOPS] == ""
    assert "two operations" in _reasons(2000, plain, 10, size)[MACS]
    assert _reasons(300, plain, 10, size)[MACS].startswith("not explained")
    # The same printed figure is explained only by a network whose convolutions were skipped.
    skipped = Counted(macs=1000, padded_by_name=750, multiplied=50)
    assert "75% of the multiply-accumulates" in _reasons(300, skipped, 10, size)[MACS]


def test_count_sees_padding_by_name_only_where_it_is() -> None:
    assert count(UFuser(), (64, 64)).padded_by_name == 0
    fnet = count(FNet(), (64, 64))
    assert fnet.padded_by_name == fnet.macs


def test_weights_used_once_a_pixel() -> None:
    (fnet,) = published.load("fnet_1_cost").select(method="FNet")
    assert weights_used(fnet, TABLE_SIZE) < 0.01  # printed
    assert weights_used(fnet | {"flops_g": "44.34"}, TABLE_SIZE) == pytest.approx(1, abs=0.001)


def test_a_network_that_is_no_ufuser_is_not_set_beside_it(tmp_path: Path) -> None:
    other = onnx.load(str(find_model("ufuser")))
    onnx.helper.set_model_props(other, {"model": "lite"})
    path = tmp_path / "lite.onnx"
    onnx.save(other, str(path))
    assert {row.network for row in audit([("lite", path)], [(64, 64)])} == {"EMMA", "FNet"}


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    assert main(["cost", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "recomputed at 264x400\n" in said
    assert "recomputed at 480x640, printed figures scaled by the pixels" in said
    flagged = [line for line in said.splitlines() if line.startswith("!")]
    assert len(flagged) == len([row for row in read(out).audit if abs(row.difference) > TOLERANCE]) == 12
    assert "SwinFusion" in said
