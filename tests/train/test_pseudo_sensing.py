"""A_i and A_v are the published U-Net: its outputs, its keys, its size; and compact ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ufuser.runtime.errors import InputError
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import load_model, load_sensing, read_checkpoint, save_checkpoint
from ufuser.train.models import create
from ufuser.train.models.pseudo_sensing import PseudoSensing


def seeded_weights(layout: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The weights that the parity vector was made with (its recipe is written beside it)."""
    state = {}
    for i, (name, shape) in enumerate(layout.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        a = np.random.default_rng([5, i]).standard_normal(shape).astype(np.float32)
        if a.ndim >= 2:
            a *= 0.8 * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            a = np.abs(a) * 0.2 + 1
        elif name.endswith("weight"):
            a = 1 + 0.05 * a
        else:
            a = 0.05 * a
        state[name] = torch.from_numpy(a.astype(np.float32))
    return state


def test_an_imported_release_reproduces_the_published_output(reference: Path, tmp_path: Path) -> None:
    layouts = json.loads((reference / "release_state_dict_layouts.json").read_text(encoding="utf-8"))
    torch.save(seeded_weights(layouts["unet5"]), tmp_path / "Ai.pth")
    out = tmp_path / "A_i.safetensors"
    assert main(["import", str(tmp_path / "Ai.pth"), "--model", "pseudo_sensing", "--out", str(out)]) == 0
    assert read_checkpoint(out)[1].options == {"width": 64}

    parity = np.load(reference / "unet5_parity.npz")
    fused, expected = (
        torch.from_numpy(parity[k].astype(np.float32))[None, None] for k in ("fused", "sensed")
    )
    with torch.no_grad():
        assert (load_sensing(out, "ir")(fused) - expected).abs().max().item() <= 1e-5


def test_keys_and_shapes_are_the_releases(reference: Path) -> None:
    layout = json.loads((reference / "release_state_dict_layouts.json").read_text(encoding="utf-8"))["unet5"]
    with torch.device("meta"):
        state = PseudoSensing().state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == layout


def test_a_compact_module_keeps_the_layout_and_stores_its_width(tmp_path: Path) -> None:
    with torch.device("meta"):
        release = PseudoSensing()
    compact = create("pseudo_sensing", {"width": 4})
    assert list(compact.state_dict()) == list(release.state_dict())
    assert compact(torch.rand(2, 1, 16, 32)).shape == (2, 1, 16, 32)
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, compact.state_dict(), "pseudo_sensing", "", {"target": "vi"}, {"width": 4})
    loaded = load_sensing(path, "vi")
    assert not loaded.training
    fused = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(fused), compact.eval()(fused))
    with pytest.raises(InputError, match="was trained to sense 'vi', expected 'ir'"):
        load_sensing(path, "ir")
    with pytest.raises(InputError, match="'pseudo_sensing', expected a fusion network"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pseudo_sensing", {"widht": 4}, "unknown key 'widht'"),
        ("pseudo_sensing", {"width": 4.0}, r"width is 4\.0: expected a whole number"),
        ("pseudo_sensing", {"width": 0}, "width is 0: expected a whole number >= 1"),
        ("ufuser", {"width": 4}, "unknown key 'width', expected global_blocks, local_blocks"),
        ("ufuser", {"global_blocks": 1}, "global_blocks is 1: expected a list"),
        (
            "ufuser",
            {"global_blocks": [1, 1, 1]},
            r"global_blocks is \[1, 1, 1\]: expected a list of length 4",
        ),
        ("ufuser", {"local_blocks": [2, 2, 2, True]}, r"local_blocks\[3\] is True: expected a whole number"),
        ("ufuser", {"local_blocks": [2, 2, 2, -1]}, r"local_blocks\[3\] is -1: expected a whole number >= 0"),
        ("ufuser", {"global_blocks": [1, 1, 1, 0], "local_blocks": [2, 2, 2, 0]}, "has neither branch"),
    ],
)
def test_option_errors(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(name, options)
