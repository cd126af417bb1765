"""Records of a run: the curve, the panel, time and memory."""

from __future__ import annotations

import csv
import io
import sys

import cv2
import numpy as np
import pytest
import torch

from ufuser.train.journal import Meter, Row, curve, panel, table

CPU = torch.device("cpu")


def row(step: int, loss: float) -> Row:
    terms = {"a": 0.7 * loss, "b": 0.3 * loss}
    return {
        "step": step,
        "train": loss + 0.1,
        "validation": loss,
        **{f"train_{k}": v for k, v in terms.items()},
        **{f"validation_{k}": v for k, v in terms.items()},
        "seconds_per_step": 0.5,
        "peak_mib": None,
    }


def test_the_log_is_a_table_and_unknown_values_are_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(table([row(2, 1.0), row(4, 0.5)]).decode(), newline="")))
    assert [r["step"] for r in rows] == ["2", "4"]
    assert float(rows[1]["validation_b"]) == 0.15
    assert rows[0]["peak_mib"] == ""


def test_the_curve_shows_the_losses() -> None:
    logs = ([row(2, 1.0)], [row(2, 1.0), row(4, 0.5)], [row(2, 1.0), row(4, 2.0)])
    drawn = [cv2.imdecode(np.frombuffer(curve(log, "x"), np.uint8), cv2.IMREAD_COLOR) for log in logs]
    shapes = {x.shape for x in drawn if x is not None}
    assert shapes == {(450, 1250, 3)}
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    colours = {tuple(c) for c in drawn[1].reshape(-1, 3).tolist()}  # type: ignore[union-attr]
    assert {(180, 119, 31), (14, 127, 255)} <= colours  # matplotlib's first two, blue first: a line a term


def test_the_meter_gives_means_until_it_is_reset() -> None:
    meter = Meter(CPU)
    meter.add({"a": 1.0, "b": 2.0}, 0.25)
    meter.add({"a": 3.0, "b": 2.0}, 0.75)
    assert meter.means == {"a": 2.0, "b": 2.0}
    assert meter.cost["seconds_per_step"] == 0.5
    meter.reset()
    meter.add({"a": 7.0}, 0.125)
    assert meter.means == {"a": 7.0}
    assert meter.cost["seconds_per_step"] == 0.125


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and resets a process's high-water mark")
def test_the_peak_is_that_of_the_steps_since_the_last_reset() -> None:
    def peak(meter: Meter) -> float:
        meter.add({"a": 1.0}, 1.0)
        mib = meter.cost["peak_mib"]
        assert mib is not None
        return mib

    meter = Meter(CPU)
    before = peak(meter)
    held = np.ones(200 << 20, np.uint8)
    del held
    assert 180 < peak(meter) - before < 220
    meter.reset()
    after = peak(meter)
    if after > before + 180:
        pytest.skip("this system doesn't let a process reset its mark")
    assert abs(after - before) < 100


def test_the_panel_has_a_row_per_pair_and_clips_levels() -> None:
    rows = [[np.full((20, 40), v, np.float32) for v in (-0.5, 0.5, 1.5)] for _ in range(2)]
    shown = cv2.imdecode(np.frombuffer(panel(rows, width=40), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert shown.shape == (40, 120)
    assert [int(shown[0, x]) for x in (0, 60, 119)] == [0, 128, 255]
    wide = [[np.zeros((16, 20_000), np.float32)] * 3]
    assert cv2.imdecode(np.frombuffer(panel(wide), np.uint8), cv2.IMREAD_UNCHANGED) is not None
