"""A pickle as safetensors: read in a process of its own, bounded in memory and time, and only its tensors kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.converting.request import ConversionResult, ConvertRequest
from registry.errors import BadFile, JobFailed, Refused
from registry.formats.atomic_file import proven_file
from registry.formats.hashing import hash_file
from registry.formats.safetensors_header import SNIFF, open_regular, read_header, sniff
from registry.merging.recipe import DTYPES
from registry.plain_values import from_json
from registry.printable import counted, some
from registry.progress import Report

ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
ROOM_MIB = 8192  # address space beside the file's own: torch alone maps some gigabytes of libraries
COPIES = 3  # of the file that may be in memory: as it is read, in another dtype, as it is written
SECONDS = 120  # of CPU time, and a second more for each 20 MB
NO_MEMORY = ("MemoryError", "not enough memory", "allocate memory", "failed to map segment")  # as Python, torch and the loader word it
BYTES_A_SECOND = 20_000_000


@dataclass(frozen=True)
class Unpickled:
    """What was in a pickle: tensors written, of them sharing memory, of an EMA copy; what was left out, with a word of what it is."""

    tensors: int
    shared: int
    ema: int
    left: Mapping[str, str]
    base: Mapping[str, Any] | None = None  # what an embedding was trained on

    def notes(self) -> list[str]:
        """Notes for the user."""
        notes = []
        if self.left:
            left = some((f"{name} ({kind})" for name, kind in self.left.items()), 6)
            notes.append(f"left out, since they are no weights: {left}.")
        if self.ema:
            notes.append(
                f"{counted(self.ema, 'tensor is', 'tensors are')} a second, averaged copy of the weights "
                "(EMA). `loraloom merge +preset=prune` leaves it out."
            )
        if self.shared:
            notes.append(f"tensors that shared their memory with others have their own now: {self.shared}.")
        return notes


@dataclass(frozen=True)
class PickleConversion:
    """A pickle as safetensors. What is in it is not known before it is read: nothing of it is loaded for a plan."""

    path: Path
    request: ConvertRequest

    def __post_init__(self) -> None:
        if self.request.output.suffix != ".safetensors":
            raise Refused(f"--output {self.request.output.name} must end in .safetensors.")
        if self.request.dtype is not None and DTYPES.get(self.request.dtype) not in ("F32", "F16", "BF16"):
            raise Refused(f"--dtype {self.request.dtype} is not for pickles. Give fp32, fp16 or bf16.")

    @property
    def family(self) -> str | None:
        return self.request.family

    @property
    def facts(self) -> dict[str, Any]:
        return {"from": "pickle", "bytes": self.path.stat().st_size}

    @property
    def notes(self) -> tuple[str, ...]:
        return ("A pickle is read when it is converted, in a process of its own that runs none of its code.",)

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        metadata = {"format": "pt", "loraloom.parents": json.dumps(list(parents), sort_keys=True, ensure_ascii=False)}
        dtype = DTYPES[self.request.dtype] if self.request.dtype is not None else None
        with proven_file(self.request.output) as temporary:
            found = unpickle(self.path, temporary, dtype=dtype, metadata=metadata, memory_mib=self.request.memory_mib)
            read_header(temporary)
        hashes = hash_file(self.request.output, report=report)[0]
        facts = {"tensors": found.tensors, "shared": found.shared, "left_out": dict(found.left)}
        bases = [found.base] if found.base else []
        return ConversionResult(file=self.request.output, hashes=hashes, facts=facts, notes=found.notes(), parents=bases)


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by its first bytes, or by its file name where they do not decide."""
    with open_regular(path) as file:
        start = file.read(SNIFF)
    found = sniff(start)
    return found[0] == "pickle" if found is not None else path.suffix.lower() in ENDINGS


def unpickle(source: Path, target: Path, *, dtype: str | None, metadata: Mapping[str, str], memory_mib: int | None = None) -> Unpickled:
    """Write the tensors of a pickle to `target`. Raises BadFile for what is refused, JobFailed for a process that ended otherwise."""
    size = source.stat().st_size
    seconds = SECONDS + size // BYTES_A_SECOND
    words = {
        "memory_mib": memory_mib or ROOM_MIB + COPIES * (size >> 20),
        "seconds": seconds,
        "dtype": dtype,
        "metadata": dict(metadata),
    }
    command = [sys.executable, "-m", "registry.converting.unpickle", str(source), str(target), json.dumps(words)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10 * seconds, env=_environment(), stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadFile(source, "pickle", f"was not unpickled within {10 * seconds} s, and was given up.") from error
    report = _report(done)
    if "refused" in report:
        raise BadFile(source, "pickle", str(report["refused"]))
    return Unpickled(report["tensors"], report["shared"], report["ema"], report["left"], report["base"])


def _report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on the process's stdout."""
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = from_json(lines[-1])
        return found
    if done.returncode in (-signal.SIGKILL, -getattr(signal, "SIGXCPU", signal.SIGKILL)):
        return {"refused": "took more memory or time to unpickle than a file of its size may, and was stopped."}
    errors = done.stderr.strip().splitlines()
    if any(word in line for line in errors for word in NO_MEMORY):
        return {"refused": "needs more memory to unpickle than a file of its size may take, and was stopped. --memory-mib gives it more."}
    raise JobFailed(f"Unpickling ended with code {done.returncode}: {errors[-1] if errors else 'no message'}")


def _environment() -> dict[str, str]:
    """This process's environment, one thread, with the same packages to be found."""
    root = str(Path(__file__).absolute().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
