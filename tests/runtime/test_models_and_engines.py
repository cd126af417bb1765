"""What happens when the model or the engine is not what was asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import Fuser, InputError
from runtime.engines import ENGINES
from runtime.models import shipped


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown model 'ufusser'") as caught:
        Fuser.open("ufusser")
    for name in shipped():
        assert name in str(caught.value)


@pytest.mark.parametrize("path", ["gone.onnx", "gone/ufuser"])
def test_missing_file(path: str) -> None:
    with pytest.raises(InputError, match=f"no model file {path}"):
        Fuser.open(path)


def test_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model file"):
        Fuser.open(tmp_path)


def test_unknown_engine_names_the_known_ones(max_model: Path) -> None:
    with pytest.raises(InputError, match=f"unknown engine 'tensorflow'.*{ENGINES[0]}"):
        Fuser.open(max_model, engine="tensorflow")


def test_engine_not_installed_names_the_extra(max_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"not installed.*ufuser\[cpu\]"):
        Fuser.open(max_model)


@pytest.mark.parametrize("threads", [0, -3])
def test_threads(max_model: Path, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads {threads}"):
        Fuser.open(max_model, threads=threads)


@pytest.mark.parametrize("content", [b"", b"not a model at all", None], ids=["empty", "text", "cut off"])
def test_broken_file(max_model: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    whole = max_model.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"broken\.onnx") as caught:
        Fuser.open(path)
    assert "\n" not in str(caught.value)


def test_model_of_another_kind(make_model: Any) -> None:
    path = make_model("classifier", [("Relu", ["image"], ["fused"], {})], inputs=["image"])
    with pytest.raises(InputError, match=r"no fusion model.*image.*expected inputs ir, vi"):
        Fuser.open(path)


@pytest.mark.parametrize("layout", [("b", 3, "h", "w"), (1, 1, 64, 64), ("b", "h", "w")])
def test_model_of_another_shape(make_model: Any, layout: tuple[int | str, ...]) -> None:
    path = make_model("shaped", layout=layout)
    with pytest.raises(InputError, match=r"no fusion model.*dynamic height and width"):
        Fuser.open(path)


@pytest.mark.parametrize("value", [None, "", "eight", "0", "-8", "32"])
def test_shape_multiple_must_be_there(make_model: Any, value: str | None) -> None:
    path = make_model(
        "bare", metadata={"model": "bare"} | ({} if value is None else {"shape_multiple": value})
    )
    with pytest.raises(InputError, match=r"shape_multiple.*ufuser-export"):
        Fuser.open(path)


def test_metadata_and_name_are_told(max_model: Path) -> None:
    engine = Fuser.open(max_model).engine
    assert engine.metadata["model"] == "max"
    assert engine.name.startswith("ONNX Runtime")
