"""Calls of networks: in mixed precision, for images of any size, frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.runtime.errors import InputError

from .checkpoint import load_sensing
from .models import shape_multiple
from .models.ufuser import ChannelLayerNorm

Network = Callable[..., Tensor]


def _to_float32(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def in_precision(network: nn.Module, precision: str, device: torch.device) -> Network:
    """The network's call in "fp32" or "bf16"; the output is float32 either way.

    In bf16, weights stay float32 and no loss needs scaling: bfloat16 has float32's range. LayerNorms and the
    last sigmoid get float32: eight bits of an image in [0, 1] would be visible steps. PyTorch's autocast
    keeps the softmax in float32 on a GPU. A CPU without bfloat16 instructions is slower by it, not faster.
    """
    if precision == "fp32":
        return network
    for module in network.modules():
        if isinstance(module, (ChannelLayerNorm, nn.Sigmoid)):
            module.register_forward_pre_hook(_to_float32)

    def call(*images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            output: Tensor = network(*images)
        return output.float()

    return call


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect at the right and the bottom up to the next multiple."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="reflect")


def at_any_size(network: Network, multiple: int) -> Network:
    """A network that takes only multiples of a size, for images of any size: padded, then cropped."""

    def call(*images: Tensor) -> Tensor:
        height, width = images[0].shape[-2:]
        if height % multiple == 0 and width % multiple == 0:
            return network(*images)
        return network(*(pad_to_multiple(x, multiple) for x in images))[..., :height, :width]

    return call


def frozen(modules: Sequence[nn.Module], precision: str, device: torch.device) -> tuple[Network, ...]:
    """Networks for images of any size, with fixed weights and running statistics, moved to the device in place."""
    calls = []
    for module in modules:
        moved = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        moved.eval().requires_grad_(False)
        calls.append(at_any_size(in_precision(moved, precision, device), shape_multiple(moved)))
    return tuple(calls)


def load_sensing_pair(
    ir: Path | None, vi: Path | None, precision: str, device: torch.device
) -> tuple[Network, ...]:
    """EMMA's A_i and A_v from checkpoints, frozen; empty where neither is given. Raises InputError for one alone."""
    if ir is None and vi is None:
        return ()
    if ir is None or vi is None:
        raise InputError("expected both --sensing-ir and --sensing-vi, or neither")
    return frozen((load_sensing(ir, "ir"), load_sensing(vi, "vi")), precision, device)
