"""A few single-threaded processes on one machine that train one model: gradients are averaged with gloo, rank 0 keeps the clock.

On two CPU cores this beats two threads in one process; any number of processes can go on with a checkpoint of another number.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn


@dataclass(frozen=True)
class Team:
    """This process's place among `size` processes."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the team, in one exchange."""
        if self.size == 1:
            return
        joined = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(joined)
        joined /= self.size
        for t, mean in zip(tensors, torch.split(joined, [t.numel() for t in tensors]), strict=True):
            t.copy_(mean.view_as(t))

    def share(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Give every process each tensor as its owner has it."""
        if self.size == 1:
            return
        joined = torch.cat([t.reshape(-1) if o == self.rank else torch.zeros(t.numel()) for t, o in zip(tensors, owners, strict=True)])
        dist.all_reduce(joined)
        for t, value in zip(tensors, torch.split(joined, [t.numel() for t in tensors]), strict=True):
            t.copy_(value.view_as(t))

    def agree(self, value: float) -> float:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared.item())


class Clock:
    """Share of a wall-clock budget that is spent, counted over all runs of a resumed training."""

    def __init__(self, minutes: float, *, spent_seconds: float = 0.0) -> None:
        self.budget_seconds, self._before, self._start = minutes * 60, spent_seconds, time.monotonic()

    @property
    def spent_seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    @property
    def share(self) -> float:
        return self.spent_seconds / self.budget_seconds


def _member(rank: int, size: int, store: str, job: Callable[[Team, Path, float], None], work: Path, minutes: float) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    job(Team(rank, size), work, minutes)
    if size > 1:
        dist.destroy_process_group()


def launch(job: Callable[[Team, Path, float], None], work: Path, minutes: float, *, processes: int) -> None:
    """Run job(team, work, minutes) in `processes` processes of one thread each, at a low priority."""
    # one thread each; and freed memory stays with the process: page faults cost several per cent of a CPU step
    os.environ |= {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
    os.nice(5)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        spawn(_member, args=(processes, store, job, work, minutes), nprocs=processes)  # type: ignore[no-untyped-call]
