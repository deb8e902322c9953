"""Tensors of files, read when used, not kept in memory: mapped to be rearranged, in windows to be computed with."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, JobFailed
from registry.formats.atomic_file import torch_dtype
from registry.tensors.chunks import CHUNK
from registry.tensors.layout import Stored

if TYPE_CHECKING:
    from torch import Tensor

WIDEST = 8  # bytes of the widest number that is computed with, fp64


class MappedFiles:
    """Memory-mapped files, with a check that none changed since they were opened."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._signatures: dict[Path, tuple[int, ...]] = {}
        self._descriptors: dict[Path, int] = {}  # of files that are read in windows: a map of many needs no second one of each
        self._opening = threading.Lock()
        self.own = Own()
        weakref.finalize(self, _close, self._descriptors)
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

    def read_into(self, stored: Stored, begin: int, buffer: memoryview) -> None:
        """Fill the buffer with the bytes of a tensor from `begin` on; the tensor is neither in parts nor transposed.

        Reading beats mapping: no page faults, and a file that was cut short is an error, not the end of the process.
        """
        if not hasattr(os, "preadv"):
            buffer[:] = self.raw(stored, begin, begin + len(buffer))
            return
        descriptor, done = self._descriptor(stored.file), 0
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], stored.begin + begin + done)
            if count == 0:
                raise JobFailed(f"{stored.file} was cut short while it was read; the result was deleted. Run the command again.")
            done += count

    def _descriptor(self, path: Path) -> int:
        """The open file, which is the one that is mapped."""
        with self._opening:
            if path not in self._descriptors:
                try:
                    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                except OSError as error:
                    raise JobFailed(f"{path} went away while it was read ({error.strerror}).") from error
                if _signature(os.fstat(descriptor))[:2] != self._signatures[path][:2]:  # device and inode
                    os.close(descriptor)
                    raise JobFailed(f"{path} changed while it was read; the result was deleted. Run the command again.")
                self._descriptors[path] = descriptor
            return self._descriptors[path]

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


def _close(descriptors: dict[Path, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# --- windows: a thread's own buffers, filled again and again, so that their pages and the numbers in them stay in the cache


@dataclass
class Window:
    """A stretch of one tensor in memory: its elements first..first+count lie at the buffer's beginning."""

    buffer: mmap.mmap
    stored: Stored | None = None
    first: int = 0
    count: int = 0

    def piece(self, maps: MappedFiles, stored: Stored, begin: int, count: int, last: int) -> Tensor:
        """The elements begin..begin+count in their own dtype, read on to `last` where they are not here; valid until the next call."""
        import torch

        dtype = torch_dtype(stored.info.dtype)
        if self.stored is not stored or begin < self.first or begin + count > self.first + self.count:
            self.stored = None  # what is here is lost, whatever comes of the reading
            self.first, self.count = begin, min(CHUNK, last - begin)
            maps.read_into(stored, begin * dtype.itemsize, memoryview(self.buffer)[: self.count * dtype.itemsize])
            self.stored = stored
        return torch.frombuffer(self.buffer, dtype=dtype, count=count, offset=(begin - self.first) * dtype.itemsize)


class Own(threading.local):
    """The buffers of one thread: a window for each source, and the numbers that are computed with."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._numbers: dict[tuple[int, Any], Tensor] = {}

    def window(self, index: int) -> Window:
        """The window of a source, page-aligned; its pages come as they are used."""
        while len(self._windows) <= index:
            self._windows.append(Window(mmap.mmap(-1, CHUNK * WIDEST)))
        return self._windows[index]

    def numbers(self, index: int, dtype: Any, count: int) -> Tensor:
        """Room for this many numbers of a source, with what was left in it."""
        import torch

        held = self._numbers.get((index, dtype))
        if held is None or held.shape[0] < count:
            held = self._numbers[index, dtype] = torch.empty(count, dtype=dtype)
        return held[:count]


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
            self._stored(index, begin, count, self.count).to(self._dtype, copy=True, memory_format=torch.contiguous_format)
            for index in range(len(self._sources))
        )

    def blocks(self, begin: int, count: int) -> Iterator[tuple[int, list[Tensor]]]:
        """(first element, `at`) of every block of these elements, in buffers of this thread, which the next block overwrites."""
        import torch

        own = self._maps.own
        parts = [torch.split(self._stored(index, begin, count, begin + count), self._step) for index in range(len(self._sources))]
        numbers = [own.numbers(index, self._dtype, min(self._step, count)) for index in range(len(self._sources))]
        for block, stored in enumerate(zip(*parts, strict=True)):
            if (size := stored[0].shape[0]) != numbers[0].shape[0]:  # the last one
                numbers = [held[:size] for held in numbers]
            yield begin + block * self._step, [held.copy_(part) for held, part in zip(numbers, stored, strict=True)]

    def _stored(self, index: int, begin: int, count: int, last: int) -> Tensor:
        """A source's elements begin..begin+count in their own dtype, valid until the next ones of that source; see Window."""
        stored = self._sources[index]
        if stored.parts or stored.turned or count > CHUNK:
            return self._maps.tensor(stored, begin, count)
        return self._maps.own.window(index).piece(self._maps, stored, begin, count, last)
