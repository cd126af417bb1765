"""Several processes of one training, as `torchrun` starts them: who is who, and what each one takes.

The batch of the recipe is the batch of all processes together. Each takes every n-th image of it, its loss
is a mean over images, and DistributedDataParallel averages the gradients: the same as one process would do
with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ufuser.runtime.errors import InputError

from .checkpoint import first_line

PATIENCE = timedelta(hours=2)  # how long the others wait while the first one validates


@dataclass(frozen=True)
class Share:
    """What falls to this process. The default is a process on its own."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and speaks."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """Which of the items that all processes share."""
        return slice(self.rank, None, self.size)

    def divide(self, count: int, what: str) -> int:
        """How many of `count` fall to each. Raises InputError where they can't be shared evenly."""
        if count % self.size:
            raise InputError(
                f"{what} of {count} can't be shared evenly by {self.size} processes: expected a multiple"
            )
        return count // self.size


ALONE = Share()


@contextmanager
def joined(device_name: str) -> Iterator[tuple[Share, torch.device]]:
    """This process among those that torchrun has started, and its device; on its own without torchrun.

    Raises:
        InputError: a device that isn't there, or one GPU asked for by number and for several processes.
    """
    size = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if size == 1:
        yield ALONE, _device(device_name)
        return
    if device_name.startswith("cuda"):
        if device_name != "cuda":
            raise InputError(
                f"--device {device_name} for {size} processes: expected --device cuda, a GPU for each"
            )
        device_name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = _device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Share(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"--device {name} is not usable: {first_line(e)}") from None
    return device


def synchronised(model: nn.Module, share: Share, device: torch.device) -> nn.Module:
    """The network with BatchNorms that count over all processes' images, where PyTorch has such: on GPUs.

    On CPUs each process normalises by its own part of the batch, and the first one's running statistics are
    kept.
    """
    if share.size == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def has_own_statistics(model: nn.Module, share: Share) -> bool:
    """Whether the network normalises by statistics of this process's images alone, though there are others."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return share.size > 1 and any(isinstance(m, kinds) for m in model.modules())


def parallel(model: nn.Module, share: Share) -> nn.Module:
    """The network whose gradients are the mean over all processes."""
    return model if share.size == 1 else DistributedDataParallel(model)


def mean_over(values: list[float], share: Share, device: torch.device) -> list[float]:
    """The mean of each value over all processes."""
    if share.size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [x / share.size for x in total.tolist()]


def wait(share: Share) -> None:
    """Go on when every process has come here."""
    if share.size > 1:
        distributed.barrier()


@contextmanager
def first_alone(share: Share) -> Iterator[None]:
    """The first process does it while the others wait; then they, who find it done."""
    if not share.first:
        wait(share)
    yield
    if share.first:
        wait(share)
