"""Half precision in the graph: FP16 with float32 islands.

TensorRT 11 and strongly typed networks of TensorRT 10 take every type from the graph; no flag changes it later.
Convolutions and sums are in half precision, and in float32 where half precision breaks. Inputs and outputs stay
float32: the runtime's contract is the same for every precision. INT8 is in `int8.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ufuser.export.rewrite_daefuse import DepthwiseGramAttention
from ufuser.export.rewrite_lite import SubtractedStatistic
from ufuser.export.rewrite_ufuser import GramAttention, Standardise
from ufuser.runtime.errors import InputError
from ufuser.train.models.ufuser import ChannelAttention, ChannelLayerNorm


class Float32Island(nn.Module):
    """A module that computes in float32 between half-precision neighbours: statistics of a LayerNorm."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.float()

    def forward(self, *maps: Tensor) -> Tensor:
        answer: Tensor = self.body(*(x.float() for x in maps))
        return answer.half()


class Float32End(nn.Module):
    """The last module: computes in float32, and its answer stays so."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.float()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x.float())
        return answer


def half_attention(attention: GramAttention) -> GramAttention:
    """`GramAttention` with half-precision convolutions; its float32 statistics keep float32 parameters.

    The sum of squares over H·W overflows half precision (65504) at 640×480 once the root mean square of q
    exceeds 0.46, and its floor of 1e-12 is zero there: a black frame would divide zero by zero.
    """
    for conv in (attention.query, attention.key, attention.value):
        conv.half()
    return attention


class HalfNetwork(nn.Module):
    """A half-precision network behind float32 inputs and float32 outputs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        answer: Tensor = self.body(ir.half(), vi.half())
        return answer.float()


ISLANDS: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    GramAttention: half_attention,
    DepthwiseGramAttention: half_attention,
    Standardise: Float32Island,
    SubtractedStatistic: Float32Island,
    nn.Sigmoid: Float32End,
}
"""Modules that stay in float32, and how each is made. `ufuser bench islands` measures the effect of each."""


def to_half(
    rewritten: nn.Module, islands: Mapping[type[nn.Module], Callable[..., nn.Module]] = ISLANDS
) -> HalfNetwork:
    """A copy of a rewritten network (see `rewrite`) in half precision with float32 islands.

    The islands: the statistics of every LayerNorm, whose squares overflow 65504 from a level of 256 on; those
    of `GramAttention` and of Lite's `SubtractedStatistic`, sums over a whole picture; the last sigmoid, because half
    precision rounds levels near 1 by 5e-4.

    Raises:
        InputError: the network computes statistics without an island for them.
    """
    body = copy.deepcopy(rewritten)
    _refuse_unknown(body)
    kept = {name: module for name, module in body.named_modules() if type(module) in islands}
    made = {name: islands[type(module)](copy.deepcopy(module)) for name, module in kept.items()}
    body.half()
    for name, island in made.items():
        parent, _, child = name.rpartition(".")
        setattr(body.get_submodule(parent), child, island)
    return HalfNetwork(body).eval().requires_grad_(False)


def _refuse_unknown(body: nn.Module) -> None:
    """Refuse statistics that were not rewritten: in half precision they overflow on real pictures."""
    kinds = (ChannelAttention, ChannelLayerNorm, nn.LayerNorm, nn.Softmax, nn.InstanceNorm2d)
    unknown = {type(module).__name__ for module in body.modules() if isinstance(module, kinds)}
    if unknown:
        raise InputError(
            f"fp16: {', '.join(sorted(unknown))} would compute its statistics in half precision; expected a "
            f"network whose norms and attentions are rewritten (export/rewrite.py)"
        )
