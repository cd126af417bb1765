"""U-Fuser is the published network: its outputs, its keys, its size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ufuser.runtime.errors import InputError
from ufuser.train.checkpoint import import_release, load_weights
from ufuser.train.models import create
from ufuser.train.models.ufuser import UFuser


@pytest.mark.parametrize("size", ["64x64", "96x128", "128x160"])
def test_released_weights_reproduce_the_released_outputs(reference: Path, size: str) -> None:
    model = UFuser().eval()
    load_weights(model, import_release(reference / "ufuser_release_layout.pth", "ufuser")[0], "release")
    parity = np.load(reference / "ufuser_parity.npz")
    height, width = map(int, size.split("x"))
    ir, vi, expected = (
        torch.from_numpy(parity[f"{k}_{size}"].astype(np.float32)).reshape(1, 1, height, width)
        for k in ("ir", "vi", "fused")
    )
    with torch.no_grad():
        assert (model(ir, vi) - expected).abs().max().item() <= 1e-5


def test_keys_and_shapes_are_the_releases(reference: Path) -> None:
    layout = json.loads((reference / "release_state_dict_layouts.json").read_text(encoding="utf-8"))["ufuser"]
    assert {k: list(v.shape) for k, v in UFuser().state_dict().items()} == layout


def test_parameter_count() -> None:
    assert sum(p.numel() for p in UFuser().parameters()) == 1_517_657


def test_cost_is_the_published_one() -> None:
    with torch.device("meta"):  # counts without computing
        model, image = UFuser(), torch.empty(1, 1, 264, 400)
        with FlopCounterMode(display=False) as counter:
            model(image, image)
    # The counter says two operations a multiply-accumulate.
    assert counter.get_total_flops() / 2 == pytest.approx(13.895e9, rel=5e-3)


def test_both_sources_matter_and_batches_do_not_mix() -> None:
    torch.manual_seed(0)
    model = UFuser().eval()
    ir, vi = torch.rand(2, 1, 24, 40), torch.rand(2, 1, 24, 40)
    with torch.no_grad():
        fused = model(ir, vi)
        swapped = model(vi, ir)
        alone = torch.cat([model(ir[i : i + 1], vi[i : i + 1]) for i in range(2)])
    assert fused.shape == ir.shape
    assert ((fused > 0) & (fused < 1)).all()
    assert not torch.allclose(fused, swapped, atol=1e-4)
    torch.testing.assert_close(fused, alone, atol=1e-5, rtol=0)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown model 'unet'.*ufuser"):
        create("unet")
