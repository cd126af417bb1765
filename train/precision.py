"""Mixed precision: the convolutions and products of a network in bfloat16, the rest in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .models.ufuser import ChannelLayerNorm

Network = Callable[..., Tensor]


def _to_float32(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def in_precision(network: nn.Module, precision: str, device: torch.device) -> Network:
    """The network's call in "fp32" or "bf16"; the answer is float32 either way.

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
            answer: Tensor = network(*images)
        return answer.float()

    return call
