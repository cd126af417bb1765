"""Checkpoints: safetensors with the model's name and its recipe as metadata. Released .pth files are imported here."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.files import write_bytes
from ufuser.runtime.structs import convert, parse_json

from .models import MODELS, create, names

FORMAT = "ufuser-checkpoint-1"
WEIGHTS = Path(__file__).parent / "weights"
"""The shipped checkpoints."""


class Metadata(msgspec.Struct, frozen=True):
    """The origin of a checkpoint's weights."""

    model: str = ""
    """A key of `models.MODELS`."""
    options: dict[str, Any] = {}
    """Options of the network, as `models.create` takes them."""
    recipe: str = ""
    """The recipe's TOML text."""
    notes: dict[str, Any] = {}
    """Step, loss, digests of the inputs, …"""


def find_checkpoint(wanted: Path, argument: str, kind: str | None = None) -> Path:
    """A file, or shipped weights by name (`ufuser`); a file has a suffix or a separator.

    Args:
        wanted: of the command line.
        argument: its name, for the error.
        kind: "fusion" leaves the pseudo-sensing modules out.
    """
    if wanted.suffix or len(wanted.parts) > 1 or wanted.is_file():
        return wanted
    found = {p.stem: p for p in sorted(WEIGHTS.glob("*.safetensors"))}
    if kind == "fusion":
        found = {name: p for name, p in found.items() if not name.startswith("sensing_")}
    if str(wanted) not in found:
        raise InputError(
            f"{argument}={wanted}: expected one of {', '.join(found)}, or a checkpoint", argument
        )
    return found[str(wanted)]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_checkpoint(
    path: Path,
    state: Mapping[str, Tensor],
    model: str,
    recipe: str,
    notes: Mapping[str, object],
    options: Mapping[str, object] | None = None,
) -> None:
    """Write weights with their origin (`Metadata`)."""
    tensors = {k: v.detach().contiguous().cpu() for k, v in state.items()}
    metadata = {
        "format": FORMAT,
        "model": model,
        "options": json.dumps(dict(options or {}), sort_keys=True),
        "recipe": recipe,
        "notes": json.dumps(dict(notes), sort_keys=True),
    }
    write_bytes(path, save(tensors, metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Tensors and metadata of a checkpoint. Raises InputError for a missing, broken or foreign file."""
    if not path.is_file():
        raise InputError(f"no checkpoint {path}: expected a .safetensors file written by `ufuser train`")
    try:
        with safe_open(path, framework="pt") as f:
            text = dict(f.metadata() or {})
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, OSError) as e:
        release = path.suffix in (".pth", ".pt")
        hint = " (`ufuser train import` converts released .pth files)" if release else ""
        raise InputError(f"{path} is not a readable safetensors file{hint}: {e}") from None
    if text.get("format") != FORMAT:
        raise InputError(
            f"{path} is safetensors, but no checkpoint of this toolkit: its metadata has no format '{FORMAT}'"
        )
    parsed = {k: parse_json(text.get(k, "{}"), f"'{k}' of {path}") for k in ("options", "notes")}
    return tensors, convert({**text, **parsed}, Metadata, str(path))


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network. Raises InputError listing the first five keys or shapes that do not fit."""
    own = model.state_dict()
    problems = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "wrongly shaped": [
            f"{k} {list(state[k].shape)} instead of {list(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    listed = [
        f"{len(keys)} {what} ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})"
        for what, keys in problems.items()
        if keys
    ]
    if listed:
        raise InputError(f"{source} does not fit {type(model).__name__}: {'; '.join(listed)}")
    bad = [k for k in own if not torch.isfinite(state[k]).all()]
    if bad:
        raise InputError(f"{source} holds values that are not finite: {', '.join(bad[:5])}")
    model.load_state_dict(state)


def read_initial(path: Path, model_name: str) -> dict[str, Tensor]:
    """Weights to begin a network's training with: a checkpoint's, or those of the fusion network in one of a pair."""
    state, metadata = read_checkpoint(path)
    if metadata.model in names("pair") and model_name in names("fusion"):
        inner = f"{model_name}."
        return {k.removeprefix(inner): v for k, v in state.items() if k.startswith(inner)}
    return state


def load_model(path: Path, expected: str | None = None) -> tuple[nn.Module, Metadata]:
    """A network in evaluation mode from a checkpoint, with the checkpoint's metadata.

    Without `expected`, any fusion network is taken.
    """
    state, metadata = read_checkpoint(path)
    if expected is not None and metadata.model != expected:
        raise InputError(f"{path} holds the model '{metadata.model}', expected '{expected}'")
    return _restored(path, state, metadata, "fusion" if expected is None else None), metadata


def load_sensing(path: Path, target: str) -> nn.Module:
    """A pseudo-sensing module in evaluation mode. `target` is "ir" for A_i, "vi" for A_v.

    Raises InputError for another model, and for a module trained to sense the other source.
    """
    state, metadata = read_checkpoint(path)
    model = _restored(path, state, metadata, "sensing")
    trained = metadata.notes.get("target", target)  # a release does not say
    if trained != target:
        raise InputError(f"{path} was trained to sense '{trained}', expected '{target}'")
    return model


def _restored(path: Path, state: Mapping[str, Tensor], metadata: Metadata, kind: str | None) -> nn.Module:
    model = create(metadata.model, metadata.options)
    if kind is not None and metadata.model not in names(kind):
        raise InputError(
            f"{path} holds the model '{metadata.model}', expected a {kind} network: {', '.join(names(kind))}"
        )
    load_weights(model, state, str(path))
    return model.eval()


def import_release(path: Path, model_name: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Weights of a published .pth and the name of their network. No code in the file is executed.

    Releases wrap their weights differently: a bare state dict, one under "model", "state_dict" or "params",
    with or without DataParallel's prefix "module.".

    Args:
        path: the file.
        model_name: the network; None recognises it by the names and shapes of the weights.
    """
    if model_name is not None:
        create(model_name)
    if not path.is_file():
        raise InputError(f"no file {path}: expected a released checkpoint (.pth)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old and of damaged files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a broken pickle can make the reader raise anything
        raise InputError(f"cannot read {path} as a PyTorch weights file: {first_line(e)[:160]}") from None
    for key in ("model", "state_dict", "params"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path} holds no state dict: expected a mapping of names to tensors")
    state = {str(k).removeprefix("module."): v for k, v in content.items()}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise InputError(
                f"{path}: '{name[:100]}' is {_unusual(tensor)}: expected dense tensors of real numbers"
            )
    likeness = _likeness(state)
    name = model_name or max(likeness, key=lambda k: likeness[k])
    best = next((k for k, share in likeness.items() if share == 1), name)
    if not likeness[name] and best == name and model_name is None:
        raise InputError(f"{path} fits no network of this toolkit: expected weights of {', '.join(MODELS)}")
    if best != name and likeness[name] < 1:
        raise InputError(f"{path} does not fit {name}, but {best}: give --model {best}")
    model = create(name)
    load_weights(model, state, str(path))
    return model.state_dict(), name  # in the network's own dtype and order


def _likeness(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each network in its default size: the share of names and shapes that it has in common with the weights."""
    given = {(k, v.shape) for k, v in state.items()}
    with torch.device("meta"):  # nothing is computed
        own = {name: {(k, v.shape) for k, v in create(name).state_dict().items()} for name in MODELS}
    return {name: len(given & expected) / len(given | expected) for name, expected in own.items()}


def _unusual(tensor: Tensor) -> str:
    """What keeps a tensor from being a network's weights."""
    if tensor.is_meta:
        return "a tensor without values (meta)"
    return f"a {tensor.layout} tensor" if tensor.layout != torch.strided else f"a tensor of {tensor.dtype}"
