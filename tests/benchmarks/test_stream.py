"""`ufuser bench stream`: a whole stream beside its model alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.runtime.models import find_model


def test_it_measures_both_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "f.json"
    words = [
        "stream",
        "--model",
        str(find_model("ufuser")),
        "--size",
        "64x96",
        "--frames",
        "6",
        "--rounds",
        "2",
    ]
    assert main([*words, "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert len(figures["ratio"]) == 2
    for alone, whole, ratio in zip(
        figures["model_alone_fps"], figures["stream_fps"], figures["ratio"], strict=True
    ):
        assert ratio == pytest.approx(whole / alone)
    assert figures["drops"] == {}
    assert figures["stages_ms"]["fuse"]["frames"] == 6
    assert "of the model's own rate" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--size", "big"], ["--frames", "1"], ["--model", "gone"]])
def test_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
