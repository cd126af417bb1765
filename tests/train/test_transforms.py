"""The transformation group: exact inverses, and masks of lost parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ufuser.train.sections import TransformRecipe
from ufuser.train.transforms import (
    REFLECTIONS,
    Reflection,
    Rotation,
    Shift,
    Transformation,
    TransformationGroup,
)

sizes = st.tuples(st.integers(8, 24), st.integers(8, 24))
shifts = st.builds(Shift, st.integers(-40, 40), st.integers(-40, 40))
reflections = st.sampled_from(REFLECTIONS)


def image(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(height * 97 + width))


def inverse(t: Transformation) -> Transformation:
    if isinstance(t, Shift):
        return Shift(-t.down, -t.right)
    return Rotation(-t.degrees) if isinstance(t, Rotation) else t


def smooth(size: int = 64) -> Tensor:
    y, x = torch.meshgrid(*[torch.linspace(0, 3, size)] * 2, indexing="ij")
    return (0.5 + 0.4 * torch.sin(2 * x + y) * torch.cos(x - 1.5 * y))[None, None]


@settings(deadline=None)
@given(size=sizes, transformation=st.one_of(shifts, reflections))
def test_shifts_and_reflections_have_an_exact_inverse(
    size: tuple[int, int], transformation: Transformation
) -> None:
    x = image(*size)
    assert torch.equal(inverse(transformation)(transformation(x)), x)
    assert torch.equal(transformation(inverse(transformation)(x)), x)
    assert (transformation.valid(x) == 1).all()


@settings(deadline=None)
@given(size=st.integers(8, 24), turns=st.integers(-8, 8))
def test_right_angles_of_a_square_are_exact(size: int, turns: int) -> None:
    x, rotation = image(size, size), Rotation(90 * turns)
    np.testing.assert_array_equal(rotation(x)[0, 0], np.rot90(x[0, 0].numpy(), turns))
    assert torch.equal(inverse(rotation)(rotation(x)), x)
    assert (rotation.valid(x) == 1).all()


@settings(deadline=None)
@given(size=sizes, first=shifts, second=shifts)
def test_shifting_a_shifted_image_is_one_shift(size: tuple[int, int], first: Shift, second: Shift) -> None:
    x = image(*size)
    both = Shift(first.down + second.down, first.right + second.right)
    assert torch.equal(second(first(x)), both(x))
    np.testing.assert_array_equal(first(x)[0, 0], np.roll(x[0, 0].numpy(), (first.down, first.right), (0, 1)))


@settings(deadline=None)
@given(size=sizes, shift=shifts, mirror=reflections)
def test_a_reflection_of_a_shifted_image_is_shifted_the_other_way(
    size: tuple[int, int], shift: Shift, mirror: Reflection
) -> None:
    x = image(*size)
    other = Shift(
        -shift.down if mirror.vertical else shift.down, -shift.right if mirror.horizontal else shift.right
    )
    assert torch.equal(mirror(shift(x)), other(mirror(x)))


@settings(deadline=None, max_examples=30)
@given(degrees=st.floats(-360, 360))
def test_the_inverse_rotation_restores_the_valid_part(degrees: float) -> None:
    x, rotation = smooth(), Rotation(degrees)
    back = inverse(rotation)(rotation(x))
    kept = inverse(rotation).valid(x) * (inverse(rotation)(rotation.valid(x)) > 0.999)
    assert kept.mean() > 0.6
    assert ((back - x).abs() * kept).max() < 0.01


def test_a_rotation_lies_between_the_right_angles_and_turns_as_they_do() -> None:
    x = smooth()
    for turns in range(4):
        near = Rotation(90 * turns + 1e-3)
        assert ((near(x) - Rotation(90 * turns)(x)).abs() * near.valid(x)).max() < 1e-3
        assert near.valid(x).mean() > 0.9
    wide = image(16, 40)
    assert torch.equal(Rotation(180)(wide), wide.flip(-1, -2))
    turned = Rotation(90)  # a wide image keeps its size: the middle turns, the sides are lost
    assert turned(wide).shape == wide.shape
    assert turned.valid(wide).mean().item() == pytest.approx(16 / 40, abs=0.03)
    middle = turned(wide)[..., 12:28]
    np.testing.assert_allclose(middle[0, 0], np.rot90(wide[0, 0, :, 12:28].numpy()), atol=1e-5)


@pytest.mark.parametrize("degrees", [10.0, 45.0, 130.0, 250.0])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_nothing_valid_depends_on_what_is_beyond_the_border(degrees: float, size: tuple[int, int]) -> None:
    """Rotating a wider scene gives the same inside the mask, and only there."""
    scene = image(*(3 * n for n in size))
    inner = scene[..., size[0] : 2 * size[0], size[1] : 2 * size[1]]
    rotation = Rotation(degrees)
    expected = rotation(scene)[..., size[0] : 2 * size[0], size[1] : 2 * size[1]]
    valid = rotation.valid(inner)
    wrong = (rotation(inner) - expected).abs()
    assert (wrong * valid).max() < 1e-4
    assert 0.4 < valid.mean() < 1
    assert ((wrong > 1e-3) & (valid == 0)).float().mean() > 0.5 * (valid == 0).float().mean()


def test_the_full_set_is_the_releases_ten_without_the_identity() -> None:
    group = TransformationGroup(TransformRecipe(mode="full"))
    drawn = group.draw_full(32, 48, np.random.default_rng(0))
    assert [type(t).__name__ for t in drawn] == ["Shift"] * 3 + ["Rotation"] * 3 + ["Reflection"] * 3
    assert [t.degrees for t in drawn if isinstance(t, Rotation)] == [10, 130, 250]
    assert len(set(drawn)) == 9
    x = image(32, 48, batch=2)
    moved, valid = group.apply(x, np.random.default_rng(0))
    assert moved.shape == valid.shape == (18, 1, 32, 48)
    for k, t in enumerate(drawn):  # a whole batch after the other
        assert torch.equal(moved[2 * k : 2 * k + 2], t(x))


def test_sampled_ones_are_drawn_per_image_and_by_their_generator_alone() -> None:
    group = TransformationGroup(TransformRecipe(count=3))
    x = image(24, 24).expand(4, -1, -1, -1)
    moved, valid = group.apply(x, np.random.default_rng([1, 2]))
    again, _ = group.apply(x, np.random.default_rng([1, 2]))
    other, _ = group.apply(x, np.random.default_rng([1, 3]))
    assert moved.shape == valid.shape == (12, 1, 24, 24)
    assert torch.equal(moved, again)
    assert not torch.equal(moved, other)
    assert len({m.numpy().tobytes() for m in moved}) > 6
    assert not any(torch.equal(m, x[0]) for m in moved)  # the identity teaches nothing


@pytest.mark.parametrize(
    ("recipe", "kinds"),
    [
        (TransformRecipe(), {"Shift", "Rotation", "Reflection"}),
        (TransformRecipe(rotations=0), {"Shift", "Reflection"}),
        (TransformRecipe(shifts=0, reflections=0), {"Rotation"}),
        (TransformRecipe(shifts=0, rotations=0, reflections=1), {"Reflection"}),
    ],
)
def test_only_kinds_of_the_recipe_are_drawn(recipe: TransformRecipe, kinds: set[str]) -> None:
    group, rng = TransformationGroup(recipe), np.random.default_rng(0)
    drawn = [group.draw_one(24, 24, rng) for _ in range(60)]
    assert {type(t).__name__ for t in drawn} == kinds
    if kinds == {"Reflection"}:
        assert set(drawn) == {Reflection(True, False)}
    right = TransformationGroup(TransformRecipe(shifts=0, reflections=0, right_angles=True))
    assert {right.draw_one(24, 24, rng) for _ in range(40)} == {Rotation(a) for a in (90, 180, 270)}


def test_gradients_flow_through_every_kind() -> None:
    for t in (Shift(3, 5), Reflection(True, True), Rotation(90), Rotation(33)):
        x = image(16, 16).requires_grad_()
        (t(x) * t.valid(x)).sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert x.grad.sum().item() == pytest.approx(t.valid(x).sum().item(), rel=1e-4)
