"""Checkpoints round-trip; released files are imported completely or refused, and no code in them runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ufuser.runtime.errors import InputError
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import (
    find_checkpoint,
    import_release,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from ufuser.train.models import create
from ufuser.train.models.ufuser import UFuser

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> State:
    torch.manual_seed(0)
    return UFuser().state_dict()


@pytest.fixture
def released(tmp_path: Path) -> Callable[[object], Path]:
    """Write a file as a release has it."""

    def write(content: object) -> Path:
        torch.save(content, tmp_path / "release.pth")
        return tmp_path / "release.pth"

    return write


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def refused(capsys: pytest.CaptureFixture[str], release: Path, out: Path) -> str:
    """The error line of an import that must leave nothing at `out`."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    assert main(["import", str(release), "--out", str(out)]) == 2
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else None) == before
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def test_round_trip(tmp_path: Path, weights: State) -> None:
    path = tmp_path / "x.safetensors"
    model = UFuser().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.load_state_dict(weights)
    save_checkpoint(path, model.state_dict(), "ufuser", 'name = "é"\n', {"step": 3})
    state, metadata = read_checkpoint(path)
    assert same(state, weights)
    assert (metadata.model, metadata.recipe) == ("ufuser", 'name = "é"\n')
    assert metadata.notes == {"step": 3}
    loaded, _ = load_model(path, "ufuser")
    assert same(loaded.state_dict(), weights)
    assert not loaded.training
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_import_through_the_command(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own; errors in this one."""
    release, out = reference / "ufuser_release_layout.pth", tmp_path / "x.safetensors"
    command = [sys.executable, "-m", "ufuser.train", "import", str(release), "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ufuser, 1,517,657 parameters" in done.stdout
    content = torch.load(release, weights_only=True)
    content = content.get("model", content)
    state, metadata = read_checkpoint(out)
    assert same(state, {k.removeprefix("module."): v for k, v in content.items()})
    assert metadata.notes["imported_from"] == "ufuser_release_layout.pth"

    assert main(["import", str(tmp_path / "none.pth"), "--out", str(tmp_path / "y.safetensors")]) == 2
    message, error = capsys.readouterr()
    assert message == ""
    assert error == f"error: no file {tmp_path / 'none.pth'}: expected a released checkpoint (.pth)\n"
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [None, "model", "state_dict", "params"])
def test_wrapped_releases(
    released: Callable[[object], Path], weights: State, wrap: str | None, prefix: str
) -> None:
    state = {prefix + k: v for k, v in weights.items()}
    path = released(state if wrap is None else {wrap: state, "epoch": 3})
    assert same(import_release(path, "ufuser")[0], weights)


def test_half_precision_and_shared_memory_are_imported_as_float32(
    released: Callable[[object], Path], weights: State, tmp_path: Path
) -> None:
    state = {k: v.half() for k, v in weights.items()}
    state["f_1.GlobalFeature.norm2.body.weight"] = state["f_1.GlobalFeature.norm1.body.weight"]
    out = tmp_path / "x.safetensors"
    assert main(["import", str(released(state)), "--out", str(out)]) == 0
    assert same(read_checkpoint(out)[0], {k: v.half().float() for k, v in weights.items()})


def test_keys_that_do_not_fit_are_listed(
    released: Callable[[object], Path], weights: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(weights)
    state = {k: v for k, v in weights.items() if k not in names[:6]} | {"extra.weight": torch.zeros(1)}
    state[names[8]] = torch.zeros(3, 2)
    message = refused(capsys, released(state), tmp_path / "x.safetensors")
    assert f"6 missing ({', '.join(names[:5])}, …)" in message
    assert "1 unexpected (extra.weight)" in message
    assert f"1 wrongly shaped ({names[8]} [3, 2] instead of {list(weights[names[8]].shape)})" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    released: Callable[[object], Path],
    weights: State,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    value: float,
) -> None:
    bad = weights["last.0.bias"].clone().fill_(value)
    message = refused(capsys, released(weights | {"last.0.bias": bad}), tmp_path / "x.safetensors")
    assert "not finite: last.0.bias" in message


class _Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_release_is_not_run(
    tmp_path: Path, weights: State, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    release, sprung = tmp_path / "release.pth", tmp_path / "sprung"
    torch.save({"model": weights, "trap": _Trap(sprung)}, release, _use_new_zipfile_serialization=zipped)
    assert "cannot read" in refused(capsys, release, tmp_path / "x.safetensors")
    assert not sprung.exists()
    torch.load(release, weights_only=False)
    assert sprung.exists()  # the trap does work


@pytest.mark.parametrize("content", [{"model": [1, 2]}, [torch.zeros(1)], {"epoch": 3}, 7])
def test_a_file_without_a_state_dict(
    released: Callable[[object], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    assert "holds no state dict" in refused(capsys, released(content), tmp_path / "x.safetensors")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), start=st.binary(max_size=40))
def test_broken_files_are_refused(tmp_path: Path, weights: State, cut: float, start: bytes) -> None:
    broken, whole = tmp_path / "broken.pth", tmp_path / "whole.pth"
    if not whole.exists():
        torch.save(weights, whole)
        save_checkpoint(tmp_path / "whole.safetensors", weights, "ufuser", "", {})
    data = whole.read_bytes()
    for content in (data[: int(cut * len(data))], start):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.pth"):
            import_release(broken, "ufuser")
    data = (tmp_path / "whole.safetensors").read_bytes()
    for content in (data[: int(cut * len(data))], start):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.pth is not a readable safetensors file"):
            read_checkpoint(broken)


def test_foreign_safetensors_and_other_models(tmp_path: Path, weights: State) -> None:
    path = tmp_path / "x.safetensors"
    save_file(weights, path)
    with pytest.raises(InputError, match="no checkpoint of this toolkit"):
        read_checkpoint(path)
    save_checkpoint(path, weights, "ufuser", "", {})
    with pytest.raises(InputError, match="holds the model 'ufuser', expected 'lite'"):
        load_model(path, "lite")
    save_checkpoint(path, weights, "later", "", {})
    with pytest.raises(InputError, match="unknown model 'later'"):
        load_model(path)
    with pytest.raises(InputError, match="no checkpoint"):
        load_model(tmp_path / "none.safetensors")


def test_places_that_cannot_be_written(
    released: Callable[[object], Path], weights: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = released(weights)
    (tmp_path / "taken.safetensors").mkdir()
    (tmp_path / "file").touch()
    for out in ("none/x.safetensors", "file/x.safetensors", "taken.safetensors", "x" * 300 + ".safetensors"):
        assert "cannot write" in refused(capsys, release, tmp_path / out)
    assert "expected a name ending in .safetensors" in refused(capsys, release, tmp_path / "x.pth")


@pytest.mark.parametrize(("key", "value"), [("options", "[1]"), ("options", "{"), ("notes", '"x"')])
def test_damaged_metadata_are_one_line(tmp_path: Path, weights: State, key: str, value: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(weights, path, {"format": "ufuser-checkpoint-1", "model": "ufuser", key: value})
    with pytest.raises(InputError, match=rf"{key}.*x\.safetensors|x\.safetensors.*{key}") as error:
        load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fnet", "lite", "pseudo_sensing", "ufuser"])
def test_the_network_of_a_release_is_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    release, out = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save({f"module.{k}": v for k, v in create(name).state_dict().items()}, release)
    assert main(["import", str(release), "--out", str(out)]) == 0
    assert f"{out}: {name}, " in capsys.readouterr().out
    assert read_checkpoint(out)[1].model == name
    other = "daefuse"
    assert main(["import", str(release), "--out", str(out), "--model", other]) == 2
    assert f"does not fit {other}, but {name}: give --model {name}" in capsys.readouterr().err


def test_weights_of_another_kind_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1)}, release)
    assert main(["import", str(release), "--out", str(tmp_path / "x.safetensors")]) == 2
    assert "fits no network of this toolkit: expected weights of ufuser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a tensor of torch.qint8"),
        (torch.ones(3).to_sparse(), "a torch.sparse_coo tensor"),
        (torch.ones(3, device="meta"), "without values"),
        (torch.ones(3, dtype=torch.complex64), "a tensor of torch.complex64"),
    ],
)
def test_tensors_that_are_no_weights(
    released: Callable[[object], Path],
    weights: State,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tensor: Tensor,
    said: str,
) -> None:
    name = next(iter(weights))
    release = released(weights | {name: tensor})
    answer = refused(capsys, release, tmp_path / "x.safetensors")
    assert f"'{name}' is" in answer
    assert said in answer


def test_an_old_release_is_read_without_warnings(
    weights: State, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(import_release(tmp_path / "old.pth", "ufuser")[0], weights)
    assert not recwarn.list


def test_shipped_weights_are_found_by_name(tmp_path: Path) -> None:
    path = find_checkpoint(Path("ufuser"), "checkpoint", "fusion")
    assert read_checkpoint(path)[1].model == "ufuser"
    assert find_checkpoint(tmp_path / "x", "checkpoint") == tmp_path / "x"
    with pytest.raises(InputError, match="checkpoint=sensing_ir: expected one of fnet, lite, ufuser, or a"):
        find_checkpoint(Path("sensing_ir"), "checkpoint", "fusion")
