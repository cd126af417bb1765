"""Checkpoints: safetensors with the model's name and its recipe inside; released .pth files come in here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ufuser.runtime.errors import InputError

from .models import FUSION_MODELS, PAIRED_MODELS, SENSING_MODELS, create

FORMAT = "ufuser-checkpoint-1"


def write_atomically(path: Path, data: bytes) -> None:
    """Publish a whole file or none. Raises InputError when the place can't be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as e:
        raise InputError(f"cannot write {path}: {e.strerror}") from None
    finally:  # on Ctrl-C too; after the replacement there is nothing left to remove
        with contextlib.suppress(OSError):
            partial.unlink()


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def save_checkpoint(
    path: Path,
    state: Mapping[str, Tensor],
    model: str,
    recipe: str,
    notes: Mapping[str, object],
    options: Mapping[str, object] | None = None,
) -> None:
    """Write weights with their origin: the model's name and options, the recipe's TOML text and notes.

    Notes are the step, the loss, … Options are what `models.create` needs beside the name (a width, …).
    """
    tensors = {k: v.detach().contiguous().cpu() for k, v in state.items()}
    metadata = {
        "format": FORMAT,
        "model": model,
        "options": json.dumps(dict(options or {}), sort_keys=True),
        "recipe": recipe,
        "notes": json.dumps(dict(notes), sort_keys=True),
    }
    write_atomically(path, save(tensors, metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata (`model`, `options`, `recipe`, `notes`) of a checkpoint of ours.

    Raises InputError for a missing, broken or foreign file.
    """
    if not path.is_file():
        raise InputError(
            f"no checkpoint {path}: expected a .safetensors file written by `python -m ufuser.train`"
        )
    try:
        with safe_open(path, framework="pt") as f:
            metadata = dict(f.metadata() or {})
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, OSError) as e:
        hint = (
            " (released .pth files come in by `python -m ufuser.train import`)"
            if path.suffix in (".pth", ".pt")
            else ""
        )
        raise InputError(f"{path} is not a readable safetensors file{hint}: {e}") from None
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} is safetensors, but not a checkpoint of ours: its metadata has no format '{FORMAT}'"
        )
    return tensors, metadata


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network. Raises InputError listing the first five keys or shapes that don't fit."""
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
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})"
        for what, keys in problems.items()
        if keys
    ]
    if said:
        raise InputError(f"{source} does not fit {type(model).__name__}: {'; '.join(said)}")
    bad = [k for k in own if not torch.isfinite(state[k]).all()]
    if bad:
        raise InputError(f"{source} holds values that are not finite: {', '.join(bad[:5])}")
    model.load_state_dict(state)


def read_initial(path: Path, model_name: str) -> dict[str, Tensor]:
    """Weights to begin a network's training with: a checkpoint's, or the fusion network's in one of a pair."""
    state, metadata = read_checkpoint(path)
    if metadata.get("model") in PAIRED_MODELS and model_name in FUSION_MODELS:
        inner = f"{model_name}."
        return {k.removeprefix(inner): v for k, v in state.items() if k.startswith(inner)}
    return state


def load_model(path: Path, expected: str | None = None) -> tuple[nn.Module, dict[str, str]]:
    """A network in evaluation mode from a checkpoint of ours, with the checkpoint's metadata.

    Without `expected`, any fusion network is taken.
    """
    state, metadata = read_checkpoint(path)
    name = metadata.get("model", "")
    if expected is not None and name != expected:
        raise InputError(f"{path} holds the model '{name}', expected '{expected}'")
    model = create(name, json.loads(metadata.get("options", "{}")))
    if expected is None and name not in FUSION_MODELS:
        raise InputError(
            f"{path} holds the model '{name}', expected a fusion network: {', '.join(FUSION_MODELS)}"
        )
    load_weights(model, state, str(path))
    return model.eval(), metadata


def load_sensing(path: Path, target: str) -> nn.Module:
    """A pseudo-sensing module in evaluation mode. `target` is "ir" for A_i, "vi" for A_v.

    Raises InputError for another model, and for a module known to have learnt the other source.
    """
    state, metadata = read_checkpoint(path)
    name = metadata.get("model", "")
    if name not in SENSING_MODELS:
        raise InputError(f"{path} holds the model '{name}', expected one of {', '.join(SENSING_MODELS)}")
    learnt = json.loads(metadata.get("notes", "{}")).get("target", target)  # a release doesn't say
    if learnt != target:
        raise InputError(f"{path} was trained to sense '{learnt}', expected '{target}'")
    model = create(name, json.loads(metadata.get("options", "{}")))
    load_weights(model, state, str(path))
    return model.eval()


def import_release(path: Path, model_name: str) -> dict[str, Tensor]:
    """Weights of a published .pth, checked against the network. Nothing of the file is executed.

    Releases wrap their weights differently: a bare state dict, one under "model", "state_dict" or "params",
    with or without DataParallel's "module." before every name.
    """
    model = create(model_name)
    if not path.is_file():
        raise InputError(f"no file {path}: expected a released checkpoint (.pth)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a broken pickle can make the reader raise anything
        raise InputError(f"cannot read {path} as a PyTorch weights file: {first_line(e)[:160]}") from None
    for key in ("model", "state_dict", "params"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path} holds no state dict: expected a mapping of names to tensors")
    state = {str(k).removeprefix("module."): v for k, v in content.items()}
    load_weights(model, state, str(path))
    return model.state_dict()  # in the network's dtype and order, whatever the release's
