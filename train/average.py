"""The average of two checkpoints of one network, weight by weight.

Where one was trained on from the other, what lies between them on the straight line is a network too: it keeps
part of what the first does on pictures that the second's training never showed (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ufuser.runtime.errors import InputError

from .checkpoint import load_model, save_checkpoint


def average(first: Path, second: Path, share: float, out: Path) -> int:
    """Write (1 − share) · first + share · second, and return the number of parameters.

    Raises:
        InputError: a share outside of [0, 1], a checkpoint that can't be read, or two of different networks.
    """
    if not 0 <= share <= 1:  # so that NaN fails too
        raise InputError(f"--share {share}: expected 0 (the first alone) to 1 (the second alone)")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: expected a name ending in .safetensors")
    (one, origin), (other, metadata) = load_model(first), load_model(second)
    shapes = [{k: v.shape for k, v in network.state_dict().items()} for network in (one, other)]
    if origin["model"] != metadata["model"] or shapes[0] != shapes[1]:
        raise InputError(
            f"{first} holds the model '{origin['model']}', {second} '{metadata['model']}' (or other options of it): "
            f"expected two checkpoints of one network"
        )
    blended = one.state_dict()
    for name, tensor in other.state_dict().items():
        blended[name] = blended[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
    notes = {
        "average_of": [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)],
        "share_of_second": share,
        "training_of_second": json.loads(metadata.get("notes", "{}")),
    }
    options = json.loads(metadata.get("options", "{}"))
    save_checkpoint(out, blended, metadata["model"], metadata.get("recipe", ""), notes, options)
    return sum(v.numel() for v in blended.values())
