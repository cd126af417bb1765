"""The EMMA loss: Eq. (4), frozen sensing modules, and every option."""

from __future__ import annotations

import copy

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ufuser.runtime.errors import InputError
from ufuser.train.losses import DirectLoss, distance, masked_mean
from ufuser.train.models import create
from ufuser.train.networks import frozen
from ufuser.train.objectives.emma import EmmaObjective
from ufuser.train.processes import SINGLE, Processes
from ufuser.train.sections import EmmaRecipe, LossRecipe, TransformRecipe

CPU = torch.device("cpu")
SIZE = (3, 1, 32, 32)
NO_DIRECT = LossRecipe(intensity=0, gradient=0, ssim=0)


class Blend(nn.Module):
    """The smallest fusion network: one weight per source, so that its output is known."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1)

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        return self.mix(torch.cat((ir, vi), 1)).sigmoid()  # type: ignore[no-any-return]


@pytest.fixture
def sensing() -> list[nn.Module]:
    torch.manual_seed(1)
    return [create("pseudo_sensing", {"width": 2}) for _ in range(2)]


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SIZE, generator=generator), torch.rand(SIZE, generator=generator)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def emma(
    sensing: list[nn.Module],
    transforms: TransformRecipe | None = None,
    direct: LossRecipe = NO_DIRECT,
    processes: Processes = SINGLE,
    **changes: float,
) -> EmmaObjective:
    """The objective of a recipe with the weights 2, 3 and 5."""
    recipe = msgspec.structs.replace(EmmaRecipe(alpha0=2.0, alpha1=3.0, alpha2=5.0), **changes)
    modules = frozen(sensing, "fp32", CPU)
    return EmmaObjective(recipe, transforms or TransformRecipe(), direct, modules, processes)


def test_no_gradient_reaches_the_sensing_modules_and_their_statistics_stay(sensing: list[nn.Module]) -> None:
    torch.manual_seed(0)
    model = Blend().train()
    objective = emma(sensing)
    before = copy.deepcopy([a.state_dict() for a in sensing])
    optimizer = torch.optim.SGD([*model.parameters(), *(p for a in sensing for p in a.parameters())], 0.1)
    for _ in range(2):
        terms = objective.train(model, images(), rng())
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for network, kept in zip(sensing, before, strict=True):
        assert not any(m.training for m in network.modules())
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
        assert all(torch.equal(v, kept[k]) for k, v in network.state_dict().items())
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


def test_the_terms_are_equation_4(sensing: list[nn.Module]) -> None:
    """A second implementation, with one transformation only: horizontal reflection."""
    group = TransformRecipe(shifts=0, rotations=0, reflections=1)
    objective = emma(sensing, group)
    model, (ir, vi) = Blend(), images()
    terms = objective.train(model, (ir, vi), rng())
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


def test_the_full_set_has_ten_of_each_image_and_agrees_with_separate_computation(
    sensing: list[nn.Module],
) -> None:
    full = TransformRecipe(mode="full")
    seen: list[int] = []

    class Counting(Blend):
        def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
            seen.append(len(ir))
            return super().forward(ir, vi)

    model = Counting()
    terms = emma(sensing, full).train(model, images(), rng())
    assert seen == [3, 30]
    apart = emma(sensing, full, alpha0=0.0, alpha1=0.0).train(model, images(), rng())
    assert apart.keys() == {"equivariance"}  # nothing known of A f beforehand here
    torch.testing.assert_close(apart["equivariance"], terms["equivariance"])


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_equivariance_can_take_a_part_of_the_batch(sensing: list[nn.Module], mode: str) -> None:
    part = emma(sensing, TransformRecipe(mode=mode), equivariant_batch=1)
    model, (ir, vi) = Blend(), images()
    terms = part.train(model, (ir, vi), rng())
    alone = part.train(model, (ir[:1], vi[:1]), rng())
    torch.testing.assert_close(terms["equivariance"], alone["equivariance"])
    assert not torch.allclose(terms["sensing_ir"], alone["sensing_ir"])


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_stopping_gradients_changes_gradients_only(sensing: list[nn.Module], mode: str) -> None:
    only = {"alpha0": 0.0, "alpha1": 0.0}
    torch.manual_seed(0)
    model, found = Blend(), {}
    for target in (True, False):
        for source in (True, False):
            objective = emma(
                sensing, TransformRecipe(mode=mode), **only, target_gradient=target, input_gradient=source
            )
            model.zero_grad()
            value = objective.train(model, images(), rng())["equivariance"]
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


def test_terms_of_weight_zero_are_left_out_and_direct_terms_come_in(sensing: list[nn.Module]) -> None:
    model, (ir, vi) = Blend(), images()
    direct = LossRecipe(intensity=1.0, gradient=0.0, ssim=0.5, infrared_exponent=1.5)
    terms = emma(sensing, direct=direct, alpha2=0.0).train(model, (ir, vi), rng())
    assert set(terms) == {"sensing_ir", "sensing_vi", "intensity", "ssim"}
    expected = DirectLoss(direct)(model(ir, vi), ir, vi)
    assert torch.equal(terms["intensity"], expected["intensity"])
    assert torch.equal(terms["ssim"], expected["ssim"])


def test_without_sensing_the_fused_image_itself_is_compared() -> None:
    """The paper's Exp. III needs no sensing modules at all; Exp. II needs them for the third term."""
    model, (ir, vi) = Blend(), images()
    objective = EmmaObjective(
        EmmaRecipe(alpha0=2.0, alpha1=3.0, sensing=False, alpha2=0.0), TransformRecipe(), NO_DIRECT, ()
    )
    terms = objective.train(model, (ir, vi), rng())
    torch.testing.assert_close(terms["sensing_ir"], 2 * (model(ir, vi) - ir).abs().mean())
    torch.testing.assert_close(terms["sensing_vi"], 3 * (model(ir, vi) - vi).abs().mean())
    for needing in (
        EmmaRecipe(),
        EmmaRecipe(sensing=False),
        EmmaRecipe(alpha2=0.0),
    ):
        with pytest.raises(InputError, match="expected --sensing-ir"):
            EmmaObjective(needing, TransformRecipe(), NO_DIRECT, ())


@pytest.mark.parametrize("size", [(16, 16), (33, 21), (40, 56)])
def test_images_of_any_size_validate(sensing: list[nn.Module], size: tuple[int, int]) -> None:
    ir, vi = torch.rand(1, 1, *size), torch.rand(1, 1, *size)
    with torch.no_grad():
        terms, shown = emma(sensing).validate(Blend(), (ir, vi), rng())
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
def test_the_mean_loss_of_two_processes_is_that_of_one(sensing: list[nn.Module], mode: str) -> None:
    """Each with its images of the batch, as `PatchSampler` gives them, and the transformations of those."""
    group = TransformRecipe(mode=mode, count=2)
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(4, 1, 32, 32, generator=generator) for _ in range(2))
    model = Blend()
    whole = emma(sensing, group, equivariant_batch=2).train(model, (ir, vi), rng())
    halves = [
        emma(sensing, group, processes=Processes(k, 2), equivariant_batch=2).train(
            model, (ir[k::2], vi[k::2]), rng()
        )
        for k in (0, 1)
    ]
    for name, value in whole.items():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, value)
        assert not torch.allclose(halves[0][name], value, rtol=1e-5)
    with pytest.raises(InputError, match=r"'equivariant_batch' is 3: expected a multiple of the 2 processes"):
        emma(sensing, group, processes=Processes(0, 2), equivariant_batch=3)


def test_the_border_of_rotations_is_not_in_the_loss(sensing: list[nn.Module]) -> None:
    """Errors outside the valid part do not count."""
    group = TransformRecipe(shifts=0, reflections=0)
    objective = emma(sensing, group, alpha0=0.0, alpha1=0.0, gradient=1.0)
    ir, vi = images()
    _, valid = objective._group.apply(ir, rng())
    answers = iter([torch.full(SIZE, 0.3), 0.3 + 0.7 * (1 - valid)])  # f, then the re-fused one
    value = objective.train(lambda *_: next(answers), (ir, vi), rng())["equivariance"]
    assert valid.mean() < 1
    assert value.item() == pytest.approx(0, abs=1e-6)
