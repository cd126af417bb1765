"""Rewrites check the structure that they rely on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ufuser.export.layers import convolution, matrix_of, pointwise, without_bias
from ufuser.export.rewrite import rewrite
from ufuser.runtime.errors import InputError
from ufuser.train.models.daefuse import DAEFuse, DAEFuseOptions
from ufuser.train.models.lite import BranchedConv, Lite
from ufuser.train.models.ufuser import ChannelAttention, UFuser, UFuserOptions


def daefuse() -> DAEFuse:
    return DAEFuse(DAEFuseOptions(width=16, heads=4, vit_dim=16, vit_blocks=1, vit_heads=4))


def other_entry(network: DAEFuse) -> None:
    network.shallow[1] = nn.Conv2d(4, 16, 5, padding=2)


def other_decoder(network: DAEFuse) -> None:
    network.decoder[0] = nn.Identity()


def several_heads(network: DAEFuse) -> None:
    network.fusion.a_to_b.heads = 2


def bias_between(network: UFuser) -> None:
    for module in network.modules():
        if isinstance(module, ChannelAttention):
            module.qkv1 = nn.Conv2d(module.qkv1.in_channels, module.qkv1.out_channels, 1)


def wide_branch(network: Lite) -> None:
    for module in network.modules():
        if isinstance(module, BranchedConv):
            module.full = nn.Conv2d(module.full.in_channels, module.full.out_channels, 5, padding=2)


@pytest.mark.parametrize(
    ("create", "change", "message"),
    [
        (daefuse, other_entry, r"expected a 3x3 convolution of 4 channels as the entry, found Conv2d\(4, 16"),
        (daefuse, other_decoder, r"expected Conv2d as the decoder's first layer, found Identity\(\)"),
        (daefuse, several_heads, "expected an attention to cells with 1 head, found 2 heads"),
        (
            lambda: UFuser(UFuserOptions(global_blocks=[1, 0, 0, 0], local_blocks=[0, 1, 1, 1])),
            bias_between,
            "expected a convolution without bias",
        ),
        (Lite, wide_branch, "expected a 3x3 convolution as the widest branch"),
    ],
)
def test_another_structure_is_an_error_that_names_both(
    create: Callable[[], nn.Module], change: Callable[[nn.Module], None], message: str
) -> None:
    network = create()
    change(network)
    with pytest.raises(InputError, match=f"cannot rewrite this network: {message}"):
        rewrite(network)


def test_layers_have_the_given_weights() -> None:
    kernel, bias = torch.rand(4, 1, 3, 3, dtype=torch.float64), torch.rand(4)
    conv = convolution(kernel, bias, padding=1, groups=4)
    x = torch.rand(1, 4, 5, 6)
    expected = nn.functional.conv2d(x, kernel.float(), bias, padding=1, groups=4)
    torch.testing.assert_close(conv(x), expected)
    matrix = torch.rand(3, 4)
    torch.testing.assert_close(matrix_of(pointwise(matrix)).float(), matrix)
    with pytest.raises(InputError, match="expected a 1x1 convolution"):
        matrix_of(conv)
    with pytest.raises(InputError, match="without bias"):
        without_bias(conv)
