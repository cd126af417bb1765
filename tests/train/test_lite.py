"""U-Fuser Lite: its range, its heads and its candidates."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from ufuser import train
from ufuser.runtime.errors import InputError
from ufuser.train.models import all_options, create
from ufuser.train.models.lite import BranchedConv, Lite, LiteOptions
from ufuser.train.recipe import load_recipe

HEADS = ("picture", "mix", "gated", "sum", "affine", "guided", "lifted")


def pictures(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(size, generator=generator), torch.rand(size, generator=generator)


@pytest.mark.parametrize("options", [{"patch": 2}, {"patch": 8}, {"fine": 4}, {"separable": True}])
@pytest.mark.parametrize("head", ["gated", "picture"])
def test_every_candidate_keeps_size_and_range(options: dict[str, object], head: str) -> None:
    torch.manual_seed(0)
    network = create("lite", {"width": 8, "head": head, **options})
    fused = network(*pictures(2, 1, 24, 40))
    assert fused.shape == (2, 1, 24, 40)
    assert fused.min() >= 0
    assert fused.max() <= 1


@pytest.mark.parametrize("head", HEADS)
def test_each_picture_of_a_batch_is_fused_on_its_own(head: str) -> None:
    torch.manual_seed(0)
    network = Lite(LiteOptions(head=head)).eval()
    ir, vi = pictures(3, 1, 32, 24)
    together = network(ir, vi)
    assert (together[1:2] - network(ir[1:2], vi[1:2])).abs().max() < 1e-6


@pytest.mark.parametrize("head", ["mix", "gated"])
def test_mixing_without_residual_stays_between_the_sources(head: str) -> None:
    torch.manual_seed(0)
    mixing = Lite(LiteOptions(head=head)).mixing
    ir, vi = pictures(1, 1, 16, 16)
    share = 3 * torch.randn(1, 1, 16, 16)
    fused = mixing(ir, vi, (share, torch.zeros_like(share)))
    assert (fused >= torch.minimum(ir, vi) - 1e-6).all()
    assert (fused <= torch.maximum(ir, vi) + 1e-6).all()
    certain = mixing(ir, vi, (torch.full_like(share, 40.0), torch.zeros_like(share)))
    assert (certain - ir).abs().max() < 1e-5


def test_a_gate_prefers_the_brighter_source_where_the_maps_are_zero() -> None:
    mixing = Lite(LiteOptions(head="gated")).mixing
    ir, vi = pictures(1, 1, 16, 16)
    nothing = torch.zeros_like(ir)
    fused = mixing(ir, vi, (nothing, nothing))
    assert ((fused - vi).abs() <= (fused - ir).abs() + 1e-6)[vi > ir].all()
    assert ((fused - ir).abs() <= (fused - vi).abs() + 1e-6)[ir > vi].all()


def test_the_branches_are_a_sum() -> None:
    torch.manual_seed(0)
    conv = BranchedConv(4, 4, branches=True)
    x = torch.rand(1, 4, 9, 7)
    assert conv.point is not None
    assert torch.allclose(conv(x), conv.full(x) + conv.point(x) + x, atol=1e-6)
    plain = BranchedConv(4, 4, branches=False)
    assert torch.equal(plain(x), plain.full(x))


def test_option_errors() -> None:
    with pytest.raises(InputError, match="head is 'image': expected one of affine"):
        create("lite", {"head": "image"})
    with pytest.raises(InputError, match="patch is 3: expected one of 2, 4, 8"):
        create("lite", {"patch": 3})
    with pytest.raises(InputError, match="fine is 4, expected 0 with patch 2"):
        create("lite", {"fine": 4, "patch": 2})


RECIPES = Path(train.__file__).parent / "recipes"


@pytest.mark.parametrize("path", sorted((RECIPES / "lite_candidates").glob("*.toml")), ids=lambda p: p.stem)
def test_the_candidates_differ_in_the_network_alone_and_keep_the_budget(path: Path) -> None:
    recipe, first = load_recipe(path), load_recipe(RECIPES / "lite_candidates" / "sum.toml")
    same = msgspec.structs.replace(recipe, name=first.name, network=first.network, text=first.text)
    assert same == first
    assert set(recipe.network) == set(all_options("lite", {}))  # whatever the defaults become
    network = create("lite", recipe.network)
    assert sum(p.numel() for p in network.parameters()) <= 140_000
