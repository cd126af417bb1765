"""The EMMA loss: Eq. (4) as written, the sensing modules frozen, each option doing what it says."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ufuser.runtime.errors import InputError
from ufuser.train.emma import EmmaObjective
from ufuser.train.losses import DirectLoss, distance, masked_mean
from ufuser.train.models.pseudo_sensing import PseudoSensing
from ufuser.train.processes import Share
from ufuser.train.recipe import EmmaRecipe, LossRecipe, Recipe, TransformRecipe, load_recipe

CPU = torch.device("cpu")
SIZE = (3, 1, 32, 32)
NO_DIRECT = LossRecipe(intensity=0, gradient=0, ssim=0)


class Blend(nn.Module):
    """The smallest fusion network: one weight a source, so that what it must answer can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        return self.mix(torch.cat((ir, vi), 1)).sigmoid()  # type: ignore[no-any-return]


@pytest.fixture
def recipe(project: Path) -> Recipe:
    base = load_recipe(project / "tiny.toml")
    return replace(base, emma=EmmaRecipe(alpha0=2.0, alpha1=3.0, alpha2=5.0), loss=NO_DIRECT)


@pytest.fixture
def sensing() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    return PseudoSensing(width=2), PseudoSensing(width=2)


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SIZE, generator=generator), torch.rand(SIZE, generator=generator)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def emma(recipe: Recipe, **changes: object) -> Recipe:
    assert recipe.emma is not None
    return replace(recipe, emma=replace(recipe.emma, **changes))  # type: ignore[arg-type]


def test_no_gradient_reaches_the_sensing_modules_and_their_statistics_stay(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module]
) -> None:
    torch.manual_seed(0)
    model = Blend().train()
    objective = EmmaObjective(recipe, sensing, CPU)
    before = copy.deepcopy([a.state_dict() for a in sensing])
    optimizer = torch.optim.SGD([*model.parameters(), *(p for a in sensing for p in a.parameters())], 0.1)
    for _ in range(2):
        terms = objective.train(model, *images(), rng())
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for network, kept in zip(sensing, before, strict=True):
        assert not any(m.training for m in network.modules())
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
        assert all(torch.equal(v, kept[k]) for k, v in network.state_dict().items())
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


def test_the_terms_are_equation_4(recipe: Recipe, sensing: tuple[nn.Module, nn.Module]) -> None:
    """Written out here a second time, with one transformation only: reflection left to right."""
    group = TransformRecipe(shifts=0, rotations=0, reflections=1)
    objective = EmmaObjective(replace(recipe, transforms=group), sensing, CPU)
    model, (ir, vi) = Blend(), images()
    terms = objective.train(model, ir, vi, rng())
    fused = model(ir, vi)
    mirrored = fused.flip(-1)
    refused = model(sensing[0](mirrored), sensing[1](mirrored))
    expected = {
        "sensing_ir": 2 * (sensing[0](fused) - ir).abs().mean(),
        "sensing_vi": 3 * (sensing[1](fused) - vi).abs().mean(),
        "equivariance": 5 * (mirrored - refused).abs().mean(),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_the_full_set_takes_ten_of_each_and_agrees_with_computing_them_apart(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module]
) -> None:
    full = replace(recipe, transforms=TransformRecipe(mode="full"))
    seen: list[int] = []

    class Counting(Blend):
        def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
            seen.append(len(ir))
            return super().forward(ir, vi)

    model = Counting()
    terms = EmmaObjective(full, sensing, CPU).train(model, *images(), rng())
    assert seen == [3, 30]
    apart = EmmaObjective(emma(full, alpha0=0.0, alpha1=0.0), sensing, CPU).train(model, *images(), rng())
    assert apart.keys() == {"equivariance"}  # nothing known of A f beforehand here
    torch.testing.assert_close(apart["equivariance"], terms["equivariance"])


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_a_part_of_the_batch_can_do_for_equivariance(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module], mode: str
) -> None:
    part = emma(replace(recipe, transforms=TransformRecipe(mode=mode)), equivariant_batch=1)
    model, (ir, vi) = Blend(), images()
    terms = EmmaObjective(part, sensing, CPU).train(model, ir, vi, rng())
    alone = EmmaObjective(part, sensing, CPU).train(model, ir[:1], vi[:1], rng())
    torch.testing.assert_close(terms["equivariance"], alone["equivariance"])
    assert not torch.allclose(terms["sensing_ir"], alone["sensing_ir"])


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_stopping_gradients_changes_gradients_only(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module], mode: str
) -> None:
    only = emma(replace(recipe, transforms=TransformRecipe(mode=mode)), alpha0=0.0, alpha1=0.0)
    torch.manual_seed(0)
    model, found = Blend(), {}
    for target in (True, False):
        for source in (True, False):
            objective = EmmaObjective(emma(only, target_gradient=target, input_gradient=source), sensing, CPU)
            model.zero_grad()
            value = objective.train(model, *images(), rng())["equivariance"]
            value.backward()  # type: ignore[no-untyped-call]
            assert model.mix.weight.grad is not None
            found[target, source] = value.item(), model.mix.weight.grad.clone()
    assert len({round(value, 6) for value, _ in found.values()}) == 1
    gradients = {key: g for key, (_, g) in found.items()}
    # Both ways of reaching f add up.
    torch.testing.assert_close(
        gradients[True, True] - gradients[False, True], gradients[True, False] - gradients[False, False]
    )
    assert (gradients[True, True] - gradients[False, True]).abs().max() > 1e-4
    assert (gradients[False, True] - gradients[False, False]).abs().max() > 1e-6


def test_terms_of_weight_zero_are_left_out_and_direct_terms_come_in(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module]
) -> None:
    model, (ir, vi) = Blend(), images()
    direct = LossRecipe(intensity=1.0, gradient=0.0, ssim=0.5, infrared_exponent=1.5)
    mixed = replace(emma(recipe, alpha2=0.0), loss=direct)
    terms = EmmaObjective(mixed, sensing, CPU).train(model, ir, vi, rng())
    assert set(terms) == {"sensing_ir", "sensing_vi", "intensity", "ssim"}
    expected = DirectLoss(direct)(model(ir, vi), ir, vi)
    assert torch.equal(terms["intensity"], expected["intensity"])
    assert torch.equal(terms["ssim"], expected["ssim"])


def test_without_sensing_the_fused_image_itself_is_compared(recipe: Recipe) -> None:
    """The paper's Exp. III needs no sensing modules at all; Exp. II needs them for the third term."""
    third = emma(recipe, sensing=False, alpha2=0.0)
    model, (ir, vi) = Blend(), images()
    terms = EmmaObjective(third, None, CPU).train(model, ir, vi, rng())
    torch.testing.assert_close(terms["sensing_ir"], 2 * (model(ir, vi) - ir).abs().mean())
    torch.testing.assert_close(terms["sensing_vi"], 3 * (model(ir, vi) - vi).abs().mean())
    for needing in (recipe, emma(recipe, sensing=False), emma(recipe, alpha2=0.0)):
        with pytest.raises(InputError, match="expected --sensing-ir"):
            EmmaObjective(needing, None, CPU)


@pytest.mark.parametrize("size", [(16, 16), (33, 21), (40, 56)])
def test_images_of_any_size_validate(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module], size: tuple[int, int]
) -> None:
    ir, vi = torch.rand(1, 1, *size), torch.rand(1, 1, *size)
    with torch.no_grad():
        terms, shown = EmmaObjective(recipe, sensing, CPU).validate(Blend(), ir, vi, rng())
    assert all(torch.isfinite(t) for t in terms.values())
    assert [x.shape for x in shown] == [(1, 1, *size)] * 5  # ir, vi, fused, A_i f, A_v f


def test_distance_is_l1_and_l1_of_gradients_over_valid_pixels() -> None:
    x, y = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    x[..., 8:] = 1  # a unit step: gradient 1 over two columns, in one of two directions
    assert distance(x, y, 0.0).item() == 0.5
    assert distance(x, y, 3.0).item() == pytest.approx(0.5 + 3 * (2 / 16) / 2)
    valid = torch.zeros_like(x)
    valid[..., :6] = 1
    assert distance(x, y, 3.0, valid) == 0  # neither the step nor its gradient is in the valid part
    valid[..., :8] = 1
    assert distance(x, y, 3.0, valid) == 0  # a gradient that sees an invalid pixel doesn't count
    assert masked_mean(x, torch.zeros_like(x)) == 0
    two, some = torch.stack((x[0], 3 * x[0])), torch.ones(2, 1, 16, 16)
    some[1, ..., :12] = 0  # an image of which a quarter is valid counts as much as a whole one
    assert masked_mean(two, some) == (0.5 + 3) / 2


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_two_processes_have_together_the_loss_of_one(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module], mode: str
) -> None:
    """Each with its images of the batch, as `PatchSampler` gives them, and the transformations of those."""
    part = emma(replace(recipe, transforms=TransformRecipe(mode=mode, count=2)), equivariant_batch=2)
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(4, 1, 32, 32, generator=generator) for _ in range(2))
    model = Blend()
    whole = EmmaObjective(part, sensing, CPU).train(model, ir, vi, rng())
    halves = [
        EmmaObjective(part, sensing, CPU, Share(k, 2)).train(model, ir[k::2], vi[k::2], rng()) for k in (0, 1)
    ]
    for name, value in whole.items():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, value)
        assert not torch.allclose(halves[0][name], value, rtol=1e-5)
    with pytest.raises(InputError, match=r"'equivariant_batch' of 3 can't be shared evenly by 2 processes"):
        EmmaObjective(emma(part, equivariant_batch=3), sensing, CPU, Share(0, 2))


def test_the_border_of_rotations_is_not_in_the_loss(
    recipe: Recipe, sensing: tuple[nn.Module, nn.Module]
) -> None:
    """A network that answers wrongly outside the valid part only pays nothing for it."""
    group = TransformRecipe(shifts=0, reflections=0)
    objective = EmmaObjective(
        emma(replace(recipe, transforms=group), alpha0=0.0, alpha1=0.0, gradient=1.0), sensing, CPU
    )
    ir, vi = images()
    _, valid = objective._group.apply(ir, rng())
    answers = iter([torch.full(SIZE, 0.3), 0.3 + 0.7 * (1 - valid)])  # f, then the re-fused one
    value = objective.train(lambda *_: next(answers), ir, vi, rng())["equivariance"]
    assert valid.mean() < 1
    assert value.item() == pytest.approx(0, abs=1e-6)
