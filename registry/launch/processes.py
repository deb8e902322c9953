"""How many processes a launcher started, and which of them this one is, by the variables that accelerate 1.15 looks at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.errors import Refused

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE")  # the number of processes
RANKS = ("LOCAL_RANK", "RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
LOCAL = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
WORLD = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
NAMES = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")  # what tells one launch from another
EXPECTED = "Unset it, or launch with accelerate launch."


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The place of this process among `count` that share a job. `local` is its place on its own machine."""

    rank: int = 0
    local: int = 0
    count: int = 1
    name: str = ""  # equal in the processes of one launch

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """That of this process. Raises Refused for variables that are no numbers, or do not say which process this is."""
        count = processes_of(environment)
        if count == 1:
            return cls()
        rank = _number(environment, WORLD)
        if rank is None or rank >= count:
            given = next(name for name in SIZES if environment.get(name))
            raise Refused(f"{given}={environment[given]} counts {count} processes, but no RANK says which of them this is. {EXPECTED}")
        local = _number(environment, LOCAL)
        return cls(
            rank=rank,
            local=rank if local is None else local,
            count=count,
            name=" ".join(f"{name}={environment[name]}" for name in NAMES if environment.get(name)),
        )


def processes_of(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that share the work, as accelerate launch, torchrun and MPI set them. Raises Refused for what is no such number."""
    for name in SIZES:
        if value := environment.get(name):
            if not value.isdecimal() or int(value) < 1:
                raise Refused(f"{name}={value} is no number of processes. {EXPECTED}")
            return int(value)
    return 1


def _number(environment: Mapping[str, str], names: Sequence[str]) -> int | None:
    for name in names:
        if value := environment.get(name):
            if not value.isdecimal():
                raise Refused(f"{name}={value} is no number of a process. {EXPECTED}")
            return int(value)
    return None
