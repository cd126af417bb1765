"""The direct loss: zeros, finite values for flat pictures, and the direction of its gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ufuser.train.losses import DirectLoss, intensity_target, sobel, stronger_gradient, structure_map
from ufuser.train.models.ufuser import UFuser
from ufuser.train.sections import LossRecipe

SIZE = (1, 1, 24, 32)


def noise(seed: int) -> Tensor:
    return torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


IMAGES = {
    "black": torch.zeros(SIZE),
    "white": torch.ones(SIZE),
    "grey": torch.full(SIZE, 0.37),
    "noise": noise(1),
    "step": torch.linspace(0, 1, 32).round().expand(SIZE).contiguous(),
}


def test_a_unit_step_has_gradient_one_and_a_flat_border_none() -> None:
    across, down = sobel(IMAGES["step"])[0]
    assert across.max() == 1
    assert across[:, :14].abs().max() == 0
    assert across[:, 18:].abs().max() == 0
    assert down.abs().max() == 0
    assert torch.equal(sobel(IMAGES["step"].mT)[0, 1].T, across)  # the other direction alike


def test_the_stronger_gradient_keeps_its_sign_and_its_source() -> None:
    falling = 1 - IMAGES["step"]
    weak = 0.3 * noise(2).mul(0.1)
    assert torch.equal(stronger_gradient(falling, torch.zeros(SIZE)), sobel(falling))
    chosen = stronger_gradient(falling, weak)
    edge = sobel(falling)[:, :1].abs() > 0.5
    assert torch.equal(chosen[:, :1][edge], sobel(falling)[:, :1][edge])
    assert torch.equal(chosen[..., :8], sobel(weak)[..., :8])


def test_structure_is_one_for_the_same_picture_at_any_level_and_falls_with_contrast() -> None:
    x = noise(3)
    assert structure_map(x, x).sub(1).abs().max() < 1e-5
    assert structure_map(x * 0.5 + 0.2, x * 0.5).sub(1).abs().max() < 1e-3
    assert structure_map(x * 0.2, x).mean() < 0.5
    assert structure_map(1 - x, x).mean() < -0.9


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.5])
def test_intensity_target_lies_between_visible_and_the_maximum(exponent: float) -> None:
    ir, vi = noise(4), noise(5)
    target = intensity_target(ir, vi, LossRecipe(infrared_exponent=exponent))
    assert (target >= vi).all()
    assert (target <= torch.maximum(ir, vi) + 1e-6).all()
    assert torch.equal(target[ir <= vi], vi[ir <= vi])
    hot = torch.ones(SIZE)  # saturated infrared arrives whole, whatever the exponent
    torch.testing.assert_close(intensity_target(hot, vi, LossRecipe(infrared_exponent=exponent)), hot)
    if exponent == 0:
        torch.testing.assert_close(target, torch.maximum(ir, vi))


def test_contrast_target_depends_on_the_difference_from_the_median_and_not_on_the_level() -> None:
    recipe = LossRecipe(target="contrast", warm=1.0, cold=0.5)
    ir, vi = torch.full((2, 1, 24, 32), 0.3), torch.full((2, 1, 24, 32), 0.5)
    ir[1] += 0.25  # each image has a median of its own
    ir[:, :, :4] += 0.2
    ir[:, :, 4:8] -= 0.2
    target = intensity_target(ir, vi, recipe)
    torch.testing.assert_close(target[0], target[1])
    for rows, level in ((slice(0, 4), 0.7), (slice(4, 8), 0.4), (slice(8, None), 0.5)):
        torch.testing.assert_close(target[:, :, rows], torch.full_like(target[:, :, rows], level))
    bright = intensity_target(ir, torch.ones_like(vi), recipe)
    assert bright.max() == 1


@pytest.mark.parametrize("name", IMAGES)
def test_all_terms_vanish_where_all_three_images_are_one(name: str) -> None:
    x = IMAGES[name]
    terms = DirectLoss(LossRecipe(infrared_exponent=1.5))(x, x, x)
    assert set(terms) == {"intensity", "gradient", "ssim"}
    assert terms["intensity"] == 0
    assert terms["gradient"] == 0
    assert abs(terms["ssim"].item()) < 1e-3  # float32 leaves 1e-7 of a variance, against C2 = 9e-4


def test_each_term_responds_to_its_own_fault_and_has_its_weight() -> None:
    ir, vi = torch.zeros(SIZE), 0.5 * noise(6)
    recipe = LossRecipe(intensity=2.0, gradient=3.0, ssim=5.0)
    level = DirectLoss(recipe)(vi + 0.25, ir, vi)  # right detail at another level
    assert level["intensity"].item() == pytest.approx(2 * 0.25, rel=1e-5)
    assert level["gradient"].item() == pytest.approx(0, abs=1e-5)
    assert level["ssim"].item() == pytest.approx(0, abs=1e-2)
    flat = DirectLoss(recipe)(torch.full(SIZE, 0.25), ir, vi)  # right level without detail
    assert flat["gradient"].item() == pytest.approx(3 * sobel(vi).abs().mean().item(), rel=1e-5)
    assert flat["ssim"].item() > 4


@pytest.mark.parametrize("exponent", [0.0, 1.5])
def test_values_and_gradients_are_finite(exponent: float) -> None:
    """For each combination of three images."""
    combinations = list(itertools.product(IMAGES.values(), repeat=3))
    pictures, ir, vi = (torch.cat(images) for images in zip(*combinations, strict=True))
    pictures.requires_grad_()
    terms = DirectLoss(LossRecipe(infrared_exponent=exponent))(pictures, ir, vi)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(t) for t in terms.values())
    assert pictures.grad is not None
    assert torch.isfinite(pictures.grad).all()


def test_gradient_descent_reaches_the_target() -> None:
    ir, vi = noise(7), 0.3 * noise(8)
    fused = torch.full(SIZE, 0.5, requires_grad=True)
    loss = DirectLoss(LossRecipe())
    optimizer = torch.optim.Adam([fused], 0.02)
    first = None
    for _ in range(40):
        optimizer.zero_grad()
        total = torch.stack(list(loss(fused, ir, vi).values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        first = total.item() if first is None else first
    assert first is not None
    assert total.item() < 0.5 * first


@pytest.mark.parametrize("name", ["black", "white", "grey"])
def test_a_featureless_pair_trains_every_weight_without_nan(name: str) -> None:
    torch.manual_seed(0)
    model, x = UFuser(), IMAGES[name]
    terms = DirectLoss(LossRecipe(infrared_exponent=1.5))(model(x, x), x, x)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {k: p.grad for k, p in model.named_parameters()}
    assert [k for k, g in gradients.items() if g is None or not torch.isfinite(g).all()] == []
    assert any(g.abs().max() > 0 for g in gradients.values() if g is not None)
