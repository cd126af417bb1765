"""Which model file a name means."""

from __future__ import annotations

from pathlib import Path

from ufuser.runtime.engines import GPU_ENGINES
from ufuser.runtime.errors import InputError

AUTO = "auto"
"""The model that fits what runs it: see `fitting`."""
WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.onnx"))


def fitting(engine: str) -> str:
    """What `auto` stands for: the full network where a GPU is asked for, else the one for cameras' rates on CPUs."""
    return "ufuser" if engine in GPU_ENGINES else "lite"


def find_model(model: str | Path) -> Path:
    """The file of a shipped model's name, or a path as it is.

    Raises InputError when there is neither; a path is told from a name by its suffix or a separator.
    """
    path = Path(model)
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise InputError(
                f"no model file {path}: expected an .onnx file, or one of {', '.join(shipped())}"
            )
        return path
    if str(model) not in shipped():
        raise InputError(f"unknown model '{model}': expected one of {', '.join(shipped())}, or an .onnx file")
    return WEIGHTS / f"{model}.onnx"
