"""Names of models and their files."""

from __future__ import annotations

from pathlib import Path

from ufuser.runtime.engines import GPU_ENGINES
from ufuser.runtime.errors import InputError

AUTO = "auto"
"""The model that fits the engine, see `fitting`."""
_WEIGHTS_ONLY = (".safetensors", ".pth", ".pt")
WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """Names of the models in the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.onnx"))


def fitting(engine: str) -> str:
    """The model that `auto` selects for an engine: U-Fuser on a GPU, Lite on a CPU, where it keeps up with cameras."""
    return "ufuser" if engine in GPU_ENGINES else "lite"


def find_model(model: str | Path) -> Path:
    """The file of a model: a shipped one by its name, or a path. A path has a suffix or a separator.

    Raises InputError if there is no such model.
    """
    path = Path(model)
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise InputError(
                f"no model file {path}: expected an .onnx file, or one of {', '.join(shipped())}"
            )
        if path.suffix in _WEIGHTS_ONLY:
            raise InputError(
                f"{path} holds weights without a graph: export it first: "
                f"`ufuser export --checkpoint {path.with_suffix('.safetensors')} --out {path.with_suffix('.onnx')}`"
                + ("" if path.suffix == ".safetensors" else ", after `ufuser train import`")
            )
        return path
    if str(model) not in shipped():
        raise InputError(f"unknown model '{model}': expected one of {', '.join(shipped())}, or an .onnx file")
    return WEIGHTS / f"{model}.onnx"
