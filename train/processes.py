"""Several processes of one training, started by `torchrun`.

The batch of the recipe is that of all processes together. Each takes every n-th image of it, its loss is a mean over
images, and DistributedDataParallel averages the gradients: the same as one process would compute of the whole batch.
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

from ufuser.runtime.errors import InputError, first_line

TIMEOUT = timedelta(hours=2)  # of the other processes, while rank 0 validates


@dataclass(frozen=True)
class Processes:
    """The processes that train together, seen from one of them. The default is a single process."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone validates, writes files and prints."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """The items of a batch that this process takes."""
        return slice(self.rank, None, self.world_size)

    def divide(self, count: int, name: str) -> int:
        """Items per process. Raises InputError where `count` is no multiple of the world size."""
        if count % self.world_size:
            raise InputError(
                f"'{name}' is {count}: expected a multiple of the {self.world_size} processes that share it"
            )
        return count // self.world_size


SINGLE = Processes()


@contextmanager
def joined(device_name: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun has started, and choose a device; without torchrun, a single process.

    Raises:
        InputError: a device that is not there, or the number of one GPU for several processes.
    """
    world_size = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if world_size == 1:
        yield SINGLE, _device(device_name)
        return
    if device_name.startswith("cuda"):
        if device_name != "cuda":
            raise InputError(
                f"device={device_name} for {world_size} processes: expected cuda, a GPU for each", "device"
            )
        device_name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = _device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), world_size), device
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"device={name} is not usable: {first_line(e)}", "device") from None
    return device


def synchronised(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The network with BatchNorms over the images of all processes (SyncBatchNorm), which PyTorch has on GPUs only.

    On CPUs each process normalises by its own part of the batch, and rank 0's running statistics are kept.
    """
    if processes.world_size == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def has_own_statistics(model: nn.Module, processes: Processes) -> bool:
    """Whether BatchNorms see only this process's part of the batch."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return processes.world_size > 1 and any(isinstance(m, kinds) for m in model.modules())


def parallel(model: nn.Module, processes: Processes) -> nn.Module:
    """The network whose gradients are the mean over all processes."""
    return model if processes.world_size == 1 else DistributedDataParallel(model)


def mean_over(values: list[float], processes: Processes, device: torch.device) -> list[float]:
    """The mean of each value over all processes."""
    if processes.world_size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [x / processes.world_size for x in total.tolist()]


def any_of(flag: bool, processes: Processes, device: torch.device) -> bool:
    """Whether the flag is set in any process; the same answer in all of them."""
    if processes.world_size == 1:
        return flag
    shared = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return bool(shared.item())


def wait(processes: Processes) -> None:
    """Wait until every process is here."""
    if processes.world_size > 1:
        distributed.barrier()


@contextmanager
def first_alone(processes: Processes) -> Iterator[None]:
    """Rank 0 runs the block while the others wait; then they run it and find its files."""
    if not processes.is_first:
        wait(processes)
    yield
    if processes.is_first:
        wait(processes)
