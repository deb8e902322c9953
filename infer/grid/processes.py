"""The processes of `accelerate launch` that draw one grid: the device of each, and the work that each has done.

Cells are divided by claims in the cell store (infer.grid.division), with no message between processes: one that is killed holds nobody
up. The first one writes the run folder; the others leave their counts in `<home>/cells/launches/`, which it adds up.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep, time

from infer.draw.machine import pick_device
from infer.draw.session import Counts
from registry.errors import Refused
from registry.files.locks import locked, open_lock, take
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import write_json
from registry.launch.processes import Launch

LOG = logging.getLogger(__name__)
FOLDER = "launches"
PATIENCE = 30.0  # seconds that the first process waits for the counts of the others, once all cells are drawn
SKEW = 60.0  # seconds by which the clocks of machines may differ


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a process has done."""

    process: int
    host: str
    pid: int
    forwards: int
    encodes: int
    model_loads: int
    latents_reused: int


class Processes:
    """The counts of the processes of a launch, for the grid whose cells have these keys."""

    def __init__(self, cells: Path, launch: Launch, keys: Iterable[str]) -> None:
        self.launch = launch
        grid = sha256("\n".join([launch.name, str(launch.count), *sorted(set(keys))]).encode()).hexdigest()
        self._folder = cells / FOLDER / grid[:32]
        self._began = time()

    @contextmanager
    def at_work(self, counts: Counts) -> Iterator[None]:
        """Held by another process than the first one while it draws: its counts are there when it ends."""
        make_folder(self._folder)
        with locked(self._folder / f"{self.launch.rank}.lock", wait=True):
            try:
                yield
            finally:
                self.save(counts)

    def save(self, counts: Counts) -> None:
        """Leave this process's counts for the first one."""
        write_json(self._folder / f"{self.launch.rank}.json", asdict(self.work(counts)))

    def work(self, counts: Counts) -> Work:
        """What this process has done."""
        return Work(
            process=self.launch.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            forwards=counts.forwards,
            encodes=counts.encodes,
            model_loads=counts.model_loads,
            latents_reused=counts.latents_reused,
        )

    def others(self, *, wait: bool) -> list[Work]:
        """What the other processes have done, once they end, or without `wait` until now; a killed one, up to its last cell."""
        found = []
        until = monotonic() + (PATIENCE if wait else 0.0)
        for rank in range(1, self.launch.count):
            while is_held(self._folder / f"{rank}.lock") and monotonic() < until:
                sleep(0.05)
            path = self._folder / f"{rank}.json"
            try:
                if path.stat().st_mtime >= self._began - SKEW:
                    found.append(Work(**json.loads(path.read_bytes())))
            except FileNotFoundError:
                continue  # it has drawn nothing
            except (OSError, ValueError, TypeError) as error:
                LOG.warning("What process %d has done is not counted: %s", rank, error)
        shutil.rmtree(self._folder, ignore_errors=True)
        return found


def is_held(path: Path) -> bool:
    """Whether a process holds this lock file now."""
    if not path.exists():
        return False
    descriptor = open_lock(path)
    try:
        return take(descriptor) is False
    finally:
        os.close(descriptor)


def use_own_device(device: str, launch: Launch) -> None:
    """Make `cuda` this process's own GPU, by its place on its machine. Raises Refused where there are fewer GPUs than processes."""
    if launch.count == 1 or pick_device(device) != "cuda":
        return
    import torch

    count = torch.cuda.device_count()
    if launch.local >= count > 1:
        raise Refused(
            f"This is process {launch.local + 1} of its machine, which has {count} GPUs. Launch one process a GPU, or give device=cpu."
        )
    torch.cuda.set_device(launch.local if count > 1 else 0)  # a launcher may show each process its own GPU alone


def no_locks_note(cells: Path, launch: Launch) -> str | None:
    """The sentence where the file system has no locks, so that processes cannot claim cells; None where it has."""
    if launch.count == 1:
        return None
    make_folder(cells)
    descriptor = open_lock(cells / ".locks")
    try:
        if take(descriptor, shared=True) is not None:
            return None
    finally:
        os.close(descriptor)
    return (
        f"The file system of {cells} has no locks, so that processes cannot claim cells: each begins with its own share, and some may"
        " be drawn twice. LORALOOM_HOME on a file system with locks (NFS 4, Lustre with flock) divides them exactly."
    )
