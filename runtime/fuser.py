"""A pair of pictures → the fused picture: normalise, pad, run, crop, restore the colour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma, with_chroma_of
from ufuser.runtime.engines import Engine, EngineFailureError, HasProfiles, Image, open_engine
from ufuser.runtime.engines.profiles import Profile
from ufuser.runtime.errors import InputError
from ufuser.runtime.models import AUTO, find_model, fitting
from ufuser.runtime.shapes import MULTIPLE, SMALLEST

_FULL = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


class Fuser:
    """Fuses infrared-visible pairs. Threads may share one: the engine's buffers serve one `fuse` at a time.

    A context manager: leaving it closes the engine, which frees its memory, on a GPU too.

    Args:
        engine: an open engine; the fuser closes it.
        multiple: height and width of the engine's input are multiples of it.
        model: the model's name, for reports.
    """

    def __init__(self, engine: Engine, multiple: int = MULTIPLE, model: str = "") -> None:
        self.engine, self.model = engine, model
        self._multiple = multiple
        self._lock = Lock()
        self._closed = False

    def __enter__(self) -> Fuser:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @classmethod
    def open(
        cls,
        model: str | Path = "ufuser",
        engine: str = "onnxruntime",
        threads: int | None = None,
        cpu_precision: str = "fp32",
        shared: bool = False,
    ) -> Fuser:
        """Load a model.

        Args:
            model: name of a shipped model, or path of an ONNX file of `ufuser export`; `auto` selects a shipped one
                that fits the engine (`ufuser.runtime.models.fitting`), which the attribute `model` names.
            engine: one of `ufuser.runtime.engines.ENGINES`, or `auto` for the fastest installed one.
            threads: CPU threads; None takes one per physical core.
            cpu_precision: `fp32`, or `bf16` with OpenVINO on a CPU that has it: about twice as fast, less exact.
            shared: other threads need the CPU at the same time, to decode and encode (see `open_engine`).

        Raises:
            InputError: the model or engine is unknown, the engine is not installed, or the file is no fusion model.
        """
        if model == AUTO:
            model = fitting(engine)
        path = find_model(model)
        opened = open_engine(engine, path, threads, cpu_precision, shared)
        multiple = opened.metadata.get("shape_multiple", "")
        # Padding reflects the picture, so it must not be wider than the smallest one.
        if multiple not in map(str, range(1, SMALLEST + 1)):
            raise InputError(
                f"{path} has shape_multiple '{multiple[:20]}' in its metadata, expected 1 to {SMALLEST}: "
                f"export it with `ufuser export`"
            )
        return cls(opened, int(multiple), str(model))

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The ranges of sizes that the engine takes; empty if it takes every size."""
        return self.engine.profiles if isinstance(self.engine, HasProfiles) else ()

    def fuse(self, ir: NDArray[Any], vi: NDArray[Any], *, stretch: bool = False) -> NDArray[Any]:
        """Fuse one registered pair of pictures.

        Args:
            ir: infrared, H×W or H×W×3, of which the luma is used.
            vi: visible, H×W grey or H×W×3 BGR, of the same H and W. Each is uint8, uint16 (full scale 65535)
                or float in [0, 1], of any size from 16×16; the two may differ in dtype.
            stretch: stretch the fused levels to the full range, picture by picture, as the paper's test script
                does. For stills: video flickers.

        Returns:
            A new array with the layout, colour and dtype of the visible picture (float32 for any float).

        Raises:
            InputError: the sizes differ or are below 16, another dtype or layout, floats that are NaN or outside
                [0, 1]; the fuser is closed; the engine fails, for example for lack of memory.
        """
        ir, vi = _checked(ir, "infrared"), _checked(vi, "visible")
        height, width = vi.shape[:2]
        if ir.shape[:2] != (height, width):
            raise InputError(
                f"infrared is {ir.shape[1]}x{ir.shape[0]}, visible is {width}x{height}: expected the same size"
            )
        grey_ir, grey_vi = luma(ir), luma(vi)
        with self._exclusive():
            grey = self._run(grey_ir, grey_vi, stretch)
        return grey if vi.ndim == 2 else with_chroma_of(grey, vi)

    def _run(self, ir: NDArray[Any], vi: NDArray[Any], stretch: bool) -> NDArray[Any]:
        """Fuse grey pictures. On return nothing refers to the engine's buffers, so that it can free them."""
        height, width = vi.shape
        down, right = -height % self._multiple, -width % self._multiple
        into_ir, into_vi, fused = self.engine.bind(height + down, width + right)
        _fill(into_ir, ir, down, right)
        _fill(into_vi, vi, down, right)
        self.engine.run()
        level = fused[:height, :width]
        if np.isnan(level.min()):
            raise EngineFailureError(f"{self.model}: the network's output holds NaN; export the model anew")
        if stretch:
            low, high = float(level.min()), float(level.max())
            level = (level - low) / max(high - low, 1e-6)
        return _quantise(level, vi.dtype)

    def close(self) -> None:
        """Close the engine and free its memory; a second call does nothing.

        Does not wait: a `fuse` that runs in another thread returns its picture and closes the engine then.
        """
        self._closed = True
        # If another thread holds the lock, it sees `_closed` after it has released it.
        if self._lock.acquire(blocking=False):
            try:
                self.engine.close()
            finally:
                self._lock.release()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Use the engine alone. Raises InputError if the fuser is closed."""
        try:
            with self._lock:
                if self._closed:
                    raise InputError("this Fuser is closed: open a new one with Fuser.open")
                yield
        finally:
            if self._closed:
                self.close()


def _checked(image: NDArray[Any], side: str) -> NDArray[Any]:
    """The picture as uint8, uint16 or float32, H×W or H×W×3, or an InputError."""
    if not isinstance(image, np.ndarray) or not (
        image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    ):
        given = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{side} is {given}: expected a NumPy array H×W (grey) or H×W×3 (BGR)")
    if min(image.shape[:2]) < SMALLEST:
        raise InputError(
            f"{side} is {image.shape[1]}x{image.shape[0]}: expected at least {SMALLEST}x{SMALLEST} pixels"
        )
    if np.issubdtype(image.dtype, np.floating):
        # This comparison fails for NaN, too.
        if not (image.min() >= 0 and image.max() <= 1):
            what = "NaN" if np.isnan(image).any() else f"values from {image.min():g} to {image.max():g}"
            raise InputError(f"{side} holds {what}: expected finite floats in [0, 1]")
        return image.astype(np.float32, copy=False)
    if image.dtype not in _FULL:
        raise InputError(f"{side} is {image.dtype}: expected uint8, uint16 or float in [0, 1]")
    return image


def _fill(buffer: Image, image: NDArray[Any], down: int, right: int) -> None:
    """Write a grey picture into a larger buffer as float32 in [0, 1], reflecting it at the bottom and right."""
    height, width = image.shape
    np.multiply(image, np.float32(1 / _FULL[image.dtype]), out=buffer[:height, :width], casting="unsafe")
    if right:
        buffer[:height, width:] = buffer[:height, width - 2 : width - 2 - right : -1]
    if down:
        buffer[height:] = buffer[height - 2 : height - 2 - down : -1]


def _quantise(level: Image, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Float levels in [0, 1] as a new array of a picture's dtype, rounded to nearest."""
    full = _FULL[dtype]
    scaled: Image = np.multiply(level, np.float32(full), dtype=np.float32)
    if dtype != np.float32:
        np.rint(scaled, out=scaled)
    np.clip(scaled, 0, full, out=scaled)
    return scaled.astype(dtype, copy=False)
