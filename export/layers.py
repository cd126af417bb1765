"""Layers with given weights, and checks of the layers that rewrites replace."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ufuser.runtime.errors import InputError

T = TypeVar("T")


def parameter(value: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    """A parameter that is not trained."""
    return nn.Parameter(value.detach().to(dtype).contiguous(), requires_grad=False)


def convolution(
    kernel: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    padding_mode: Literal["zeros", "reflect"] = "zeros",
    dtype: torch.dtype = torch.float32,
) -> nn.Conv2d:
    """The convolution with a kernel, cout×(cin/groups)×kh×kw, and a bias."""
    cout, cin, height, width = kernel.shape
    conv = nn.Conv2d(
        cin * groups,
        cout,
        (height, width),
        padding=padding,
        groups=groups,
        bias=bias is not None,
        padding_mode=padding_mode,
    )
    conv.weight = parameter(kernel, dtype)
    if bias is not None:
        conv.bias = parameter(bias, dtype)
    return conv


def pointwise(matrix: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """The 1×1 convolution with a matrix, cout×cin."""
    return convolution(matrix[:, :, None, None], bias)


def kernel_of(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    """A convolution's kernel, float64."""
    return conv.weight.detach().double()


def matrix_of(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    """The kernel of a 1×1 convolution as cout×cin, float64. Raises InputError for a larger kernel."""
    expect(conv.weight[0, 0].numel() == 1, "a 1x1 convolution", conv)
    return kernel_of(conv).flatten(1)


def bias_of(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    """A convolution's bias, float64; zeros where it has none."""
    return torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias.detach().double()


def expect(condition: bool, expected: str, found: object) -> None:
    """Raise InputError unless a structure that a rewrite relies on is there."""
    if not condition:
        raise InputError(f"cannot rewrite this network: expected {expected}, found {found}")


def expect_type(layer: object, kind: type[T], place: str) -> T:
    """The layer. Raises InputError if it is of another type."""
    if not isinstance(layer, kind):
        raise InputError(f"cannot rewrite this network: expected {kind.__name__} as {place}, found {layer}")
    return layer


def without_bias(*convs: nn.Conv1d | nn.Conv2d) -> None:
    """Raise InputError unless the convolutions can be joined: without bias, padded with zeros."""
    for conv in convs:
        joinable = conv.bias is None and conv.padding_mode == "zeros"
        expect(joinable, "a convolution without bias, padded with zeros", conv)
