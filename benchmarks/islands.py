"""`ufuser bench islands`: the parts of a network that half precision breaks.

Each float32 island is removed in turn, and each other part made one. Half precision is that of a GPU's tensor cores,
simulated on the CPU: the result of every operator is rounded to 16 bits, products are summed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ufuser.export.fidelity import (
    Difference,
    Image,
    Network,
    Sample,
    compare,
    torch_network,
)
from ufuser.export.precision import ISLANDS, to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.rewrite_fnet import DeployedFNet
from ufuser.runtime.shapes import MULTIPLE

_PRODUCTS = {"conv1d", "conv2d", "conv_transpose2d", "linear", "matmul", "__matmul__", "bmm", "baddbmm"}
"""Functions of PyTorch, by name, that are summed in float32."""


class _Rounded(TorchFunctionMode):
    """Convolutions and matrix products of half-precision tensors: summed in float32, their results rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.stay_half = False  # leaves out casts to float32 and sums in it

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not any(isinstance(a, torch.Tensor) and a.dtype == torch.float16 for a in args):
            return func(*args, **kwargs)
        if name in _PRODUCTS:
            return func(*(a.float() if isinstance(a, torch.Tensor) else a for a in args), **kwargs).half()
        if self.stay_half and (name == "float" or (name == "to" and torch.float32 in args)):
            return args[0].clone()
        if self.stay_half and name == "linalg_vector_norm":  # PyTorch sums it in float32
            return (args[0] * args[0]).sum(kwargs["dim"], kwargs["keepdim"]).sqrt()
        return func(*args, **kwargs)

    @contextmanager
    def without_casts(self, network: nn.Module, kind: type[nn.Module] | None) -> Iterator[None]:
        """Compute in half precision throughout inside modules of this kind."""

        def switch(on: bool) -> Callable[..., None]:
            def hook(*_: object) -> None:
                self.stay_half = on

            return hook

        hooks = []
        for module in network.modules():
            if type(module) is kind:
                hooks += [module.register_forward_pre_hook(switch(True))]
                hooks += [module.register_forward_hook(switch(False))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def rounded_network(half: nn.Module, without: type[nn.Module] | None = None) -> Network:
    """A network as a function of arrays; in half precision every result is rounded.

    Modules of the kind `without` compute nothing in float32.
    """
    mode, network = _Rounded(), torch_network(half)

    def run(ir: Image, vi: Image) -> Image:
        with mode, mode.without_casts(half, without):
            return network(ir, vi)

    return run


class _Float32Part(nn.Module):
    """A module that computes in float32 and answers in half precision, with tuples of maps in and out."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.float()

    def forward(self, *given: Any) -> Any:
        return _cast(self.body(*_cast(given, torch.float32)), torch.float16)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor, or every tensor of a tuple, as another type."""
    if isinstance(value, tuple):
        return tuple(_cast(each, dtype) for each in value)
    return value.to(dtype) if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class Finding:
    """The error with one choice of islands."""

    change: str  # "as it is", "without Standardise", "with CellAttention"
    count: int  # modules of that kind
    difference: Difference  # from fp32


def findings(network: nn.Module, samples: Sequence[Sample]) -> Iterator[Finding]:
    """The islands as they are; without each kind of them; with each other kind of part as one more.

    Args:
        network: trained, in fp32, not rewritten.
        samples: the pictures that half precision and fp32 are compared over.

    Raises:
        InputError: the network's statistics have no islands (`to_half`).
    """
    rewritten = rewrite(network)
    plain = torch_network(rewritten)
    answers = {id(s.ir): plain(s.ir, s.vi) for s in samples}
    kinds = [type(m) for m in rewritten.modules()]

    def found(change: str, count: int, half: nn.Module, without: type[nn.Module] | None) -> Finding:
        candidate = rounded_network(half, without)
        return Finding(change, count, compare(lambda ir, vi: answers[id(ir)], candidate, samples))

    yield found("as it is", sum(_is_island(k) for k in kinds), to_half(rewritten), None)
    for kind in filter(_is_island, dict.fromkeys(kinds)):
        fewer = {k: make for k, make in ISLANDS.items() if k is not kind}
        yield found(f"without {_name(kind)}", kinds.count(kind), to_half(rewritten, fewer), kind)
    for kind in _others(rewritten):
        more = to_half(rewritten, {**ISLANDS, kind: _Float32Part})
        yield found(f"with {_name(kind)}", kinds.count(kind), more, None)


def _is_island(kind: type[nn.Module]) -> bool:
    return kind in ISLANDS or kind is DeployedFNet  # whose last sum is in float32


def _name(kind: type[nn.Module]) -> str:
    return "the last sum" if kind is DeployedFNet else kind.__name__


def _others(rewritten: nn.Module) -> Iterator[type[nn.Module]]:
    """Kinds of this package's modules that are no islands and contain no other of this package's modules."""
    found: dict[type[nn.Module], None] = {}
    for module in rewritten.modules():
        ours = [type(m) for m in module.modules() if type(m).__module__.startswith("ufuser.")]
        if len(ours) == 1 and type(module) is ours[0] and not _is_island(ours[0]):
            found[ours[0]] = None
    return iter(found)


def extremes(height: int, width: int) -> list[Sample]:
    """Black, white and noise, on which sums vanish or overflow."""
    shape = (1, 1, height, width)
    noise = np.random.default_rng(3).random((2, *shape), np.float32)
    pictures = {
        "black": (np.zeros(shape, np.float32), np.zeros(shape, np.float32)),
        "white": (np.ones(shape, np.float32), np.ones(shape, np.float32)),
        "noise": (noise[0], noise[1]),
    }
    return [Sample(name, ir, vi, height, width) for name, (ir, vi) in pictures.items()]


def middle(sample: Sample, height: int, width: int) -> Sample:
    """The middle of a pair, at most as large as the pair."""
    height, width = (
        min(wanted, side // MULTIPLE * MULTIPLE)
        for wanted, side in ((height, sample.height), (width, sample.width))
    )
    top, left = (sample.height - height) // 2, (sample.width - width) // 2
    ir, vi = (
        np.ascontiguousarray(x[..., top : top + height, left : left + width]) for x in (sample.ir, sample.vi)
    )
    return Sample(sample.name, ir, vi, height, width)
