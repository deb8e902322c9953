"""Memory-mapped tensors: read when used, not kept in memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, JobFailed
from registry.formats.atomic_file import torch_dtype
from registry.tensors.layout import Stored

if TYPE_CHECKING:
    from torch import Tensor


class MappedFiles:
    """Memory-mapped files, with a check that none changed since they were opened."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._signatures: dict[Path, tuple[int, ...]] = {}
        for path in dict.fromkeys(files):
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            with open(path, "rb") as file:
                self._signatures[path] = _signature(os.fstat(file.fileno()))
                # private and writable only because torch wants writable memory; nothing writes to it
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise BadFile(path, "unreadable", f"cannot be mapped: {error}.") from error

    def raw(self, stored: Stored, begin: int, end: int) -> memoryview:
        """Bytes begin..end of a tensor, as on the disk."""
        return memoryview(self._maps[stored.file])[stored.begin + begin : stored.begin + end]

    def tensor(self, stored: Stored, begin: int, count: int) -> Tensor:
        """Elements begin..begin+count of the flattened tensor, in its own dtype; a copy only where it is in parts or transposed."""
        import torch

        if stored.parts:
            return self._joined(stored, begin, count)
        if stored.turned:
            return self._turned(stored, begin, count)
        dtype = torch_dtype(stored.info.dtype)
        if count == 0:  # markers such as v_pred; torch refuses an empty buffer
            return torch.empty(0, dtype=dtype)
        offset = stored.begin + begin * dtype.itemsize
        if offset % dtype.itemsize:  # allowed by the format, and rare
            return torch.frombuffer(bytearray(self.raw(stored, begin * dtype.itemsize, (begin + count) * dtype.itemsize)), dtype=dtype)
        return torch.frombuffer(self._maps[stored.file], dtype=dtype, count=count, offset=offset)

    def _joined(self, stored: Stored, begin: int, count: int) -> Tensor:
        import torch

        found, first = [], 0
        for part in stored.parts:
            low, high = max(begin, first), min(begin + count, first + part.info.elements)
            if low < high:
                found.append(self.tensor(part, low - first, high - low))
            first += part.info.elements
        return found[0] if len(found) == 1 else torch.cat(found)

    def _turned(self, stored: Stored, begin: int, count: int) -> Tensor:
        rows, width = stored.info.shape
        whole = self.tensor(replace(stored, turned=False), 0, stored.info.elements).reshape(width, rows).T
        first = begin // width
        return whole[first : -(-(begin + count) // width)].reshape(-1)[begin - first * width :][:count]

    def check(self) -> None:
        """Raise JobFailed when a file was changed since it was opened."""
        for path, signature in self._signatures.items():
            try:
                now = _signature(os.stat(path))
            except OSError as error:
                raise JobFailed(f"{path} went away while it was read ({error.strerror}).") from error
            if now != signature:
                raise JobFailed(f"{path} changed while it was read; the result was deleted. Run the command again.")


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class KeyChunks:
    """One key of several sources as Chunks: each in fp32 or fp64, in blocks of a fixed length."""

    def __init__(
        self,
        maps: MappedFiles,
        sources: tuple[Stored, ...],
        *,
        dtype: Any,
        count: int,
        scratch: int,
        step: int,
        shape: tuple[int, ...],
    ) -> None:
        self._maps, self._sources, self._dtype, self._step = maps, sources, dtype, step
        self.count, self.scratch, self.shape = count, scratch, shape

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for begin in range(0, self.count, self._step):
            yield self.at(begin)

    def pick(self, *sources: int) -> KeyChunks:
        chosen = tuple(self._sources[source] for source in sources)
        return KeyChunks(self._maps, chosen, dtype=self._dtype, count=self.count, scratch=self.scratch, step=self._step, shape=self.shape)

    def at(self, begin: int) -> tuple[Tensor, ...]:
        """The chunk that begins at this element; copies, which may be written to."""
        import torch

        count = min(self._step, self.count - begin)
        return tuple(
            self._maps.tensor(source, begin, count).to(self._dtype, copy=True, memory_format=torch.contiguous_format)
            for source in self._sources
        )
