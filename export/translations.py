"""Operators that PyTorch's ONNX exporter would decompose first, translated as they are.

Half of the time that tracing takes goes into decompositions: the exporter traces a program twice more to replace
operators, nearly all of which it could translate as they stand. Those that it can't are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo.config
from onnxscript import opset18 as op
from torch.export import ExportedProgram

Value = Any  # a value of the graph that is made
aten = torch.ops.aten


def _batch_norm(
    x: Value, weight: Value, bias: Value, mean: Value, variance: Value,
    training: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Value:  # fmt: skip
    if training:
        raise NotImplementedError("a batch normalisation that learns")
    return op.BatchNormalization(x, weight, bias, mean, variance, epsilon=eps)


def _conv_transpose2d(
    x: Value, weight: Value, bias: Value | None = None,
    stride: Sequence[int] = (1,), padding: Sequence[int] = (0,), output_padding: Sequence[int] = (0,),
    groups: int = 1, dilation: Sequence[int] = (1,),
) -> Value:  # fmt: skip
    def both(given: Sequence[int]) -> list[int]:
        return [*given] * (2 // len(given))

    return op.ConvTranspose(
        x,
        weight,
        bias,
        strides=both(stride),
        pads=both(padding) * 2,
        output_padding=both(output_padding),
        group=groups,
        dilations=both(dilation),
    )


def _to_dtype(
    x: Value, dtype: int, non_blocking: bool = False, copy: bool = False, memory_format: Any = None
) -> Value:
    return op.Cast(x, to=dtype)


def _square(x: Value) -> Value:
    return op.Mul(x, x)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    aten.batch_norm.default: _batch_norm,
    aten.conv_transpose2d.input: _conv_transpose2d,
    aten.square.default: _square,
    aten.to.dtype: _to_dtype,
}
"""For `torch.onnx.export`'s `custom_translation_table`."""


def as_it_is(program: ExportedProgram) -> ExportedProgram:
    """The program, which answers with itself where it is asked for its decomposition."""
    program.run_decompositions = lambda *_: program
    return program


@contextmanager
def without_cached_shapes() -> Iterator[None]:
    """Tracing takes a fifth less time: with symbolic sizes, looking up what an operator makes of them costs more than
    finding it out."""
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
        yield
