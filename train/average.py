"""The average of two checkpoints of one network, weight by weight.

Where the second was trained on from the first, the weights on the straight line between them are a network too. It
keeps part of the first one's behaviour on pictures unlike those of the second's training (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from pathlib import Path

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable

from .checkpoint import digest, load_model, save_checkpoint


def average(first: Path, second: Path, share: float, out: Path) -> int:
    """Write (1 − share) · first + share · second, and return the number of parameters.

    Raises:
        InputError: a share outside of [0, 1], a checkpoint that cannot be read, or two of different networks.
    """
    if not 0 <= share <= 1:  # so that NaN fails too
        raise InputError(f"share={share}: expected 0 (the first alone) to 1 (the second alone)", "share")
    if out.suffix != ".safetensors":
        raise InputError(f"out={out}: expected a name ending in .safetensors", "out")
    require_writable(out)
    (one, metadata_of_first), (other, metadata) = load_model(first), load_model(second)
    shapes = [{k: v.shape for k, v in network.state_dict().items()} for network in (one, other)]
    if metadata_of_first.model != metadata.model or shapes[0] != shapes[1]:
        raise InputError(
            f"{first} holds the model '{metadata_of_first.model}', {second} '{metadata.model}' "
            "(or other options of it): expected two checkpoints of one network"
        )
    averaged = one.state_dict()
    for name, tensor in other.state_dict().items():
        averaged[name] = averaged[name].lerp(tensor, share) if tensor.is_floating_point() else tensor
    notes = {
        "average_of": [digest(path) for path in (first, second)],
        "share_of_second": share,
        "training_of_second": metadata.notes,
    }
    save_checkpoint(out, averaged, metadata.model, metadata.recipe, notes, metadata.options)
    return sum(v.numel() for v in averaged.values())
