"""A plan becomes a file: chunks are computed by several threads, and written, hashed and let go in the order of the file.

Chunks have a fixed length and every random choice belongs to its key, so the same recipe gives the same bytes whatever the
number of threads and the memory. While a file is being written its length word is zero, so that what a killed process leaves
behind is neither named nor readable as a model.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from registry.errors import JobFailed
from registry.files.direct_output import Sink, sink_of
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file, atomic_folder, torch_dtype, write_json
from registry.formats.hashing import Hasher
from registry.formats.safetensors_header import TensorInfo, header_bytes, parse_header
from registry.merging.keys import Key
from registry.merging.method import Method, Place
from registry.merging.plan import MIB, MergePlan, chunk_bytes
from registry.progress import Report, Tick, silent
from registry.record import Hashes
from registry.tensors.chunks import BLOCK, CHUNK, Held
from registry.tensors.layout import FLOATS
from registry.tensors.mmap_files import KeyChunks, MappedFiles

if TYPE_CHECKING:
    from torch import Tensor

AHEAD = 2  # chunks a thread may be ahead of the writer
MEASURED_AHEAD = 4  # keys measured before their turn


@dataclass
class Written:
    """What was written: the Hashes of each file by its place in the output, and the most memory that was held."""

    files: dict[str, Hashes] = field(default_factory=dict)
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)  # what else the hasher saw, as the registry keeps it
    inodes: dict[str, tuple[int, int]] = field(default_factory=dict)  # device and inode of each file
    peak_mib: float = 0.0
    done: int = 0  # bytes

    def check_places(self, output: Path) -> None:
        """Raise JobFailed where a file of the output is not the one that was written."""
        for relative, inode in self.inodes.items():
            path = output / relative if relative else output
            there = os.stat(path) if path.exists() else None
            if there is None or (there.st_dev, there.st_ino) != inode:
                raise JobFailed(f"{path} was removed or replaced by another process after it was written. It is not registered.")

    def count(self, size: int) -> None:
        """These bytes are written; looks at the memory every 8 MiB."""
        if self.done == 0 or (self.done + size) >> 23 != self.done >> 23:
            self.peak_mib = max(self.peak_mib, anonymous_mib())
        self.done += size


def write_merge(plan: MergePlan, *, metadata: Mapping[str, str], report: Report = silent) -> Written:
    """Compute and write the plan's output, whole or not at all. Raises JobFailed for numbers that cannot be kept and for a full disk."""
    written = Written()
    maps = MappedFiles(file for key in plan.keys.keys.values() for source in key.sources for file in source.files)
    if not plan.files[0].relative:
        _write_file(plan, plan.output, "", plan.files[0].names, maps, metadata, written, report, last=maps.check)
        return written
    with atomic_folder(plan.output) as folder:
        for name, origin in plan.others:
            _copy_small(origin, folder / name)
        for file in plan.files:
            own = _file_metadata(plan, file.relative, metadata)
            _write_file(plan, folder / file.relative, file.relative, file.names, maps, own, written, report)
        _write_indices(plan, folder)
        maps.check()
    return written


def _copy_small(origin: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin, place)


def _file_metadata(plan: MergePlan, relative: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata of one file: a folder's first file has the recipe, the others only the format."""
    first = plan.files[0].relative
    return metadata if relative == first else {"format": "pt"}


def _write_indices(plan: MergePlan, folder: Path) -> None:
    """The index that names the shard of each tensor, for every component that has several."""
    groups: dict[Path, list[tuple[str, list[str], int]]] = {}
    for file in plan.files:
        size = sum(_size(plan.keys.keys[key]) for key in file.names.values())
        place = folder / file.relative
        groups.setdefault(place.parent, []).append((place.name, list(file.names), size))
    for parent, shards in groups.items():
        if len(shards) > 1:
            stem, dot, variant = shards[0][0].partition("-0")[0].partition(".")
            value = {
                "metadata": {"total_size": sum(size for _, _, size in shards)},
                "weight_map": {name: file for file, names, _ in shards for name in names},
            }
            write_json(parent / f"{stem}.safetensors.index{dot}{variant}.json", value)


def _size(key: Key) -> int:
    return key.out.elements * torch_dtype(key.out.dtype).itemsize


# --- one file


def _write_file(
    plan: MergePlan,
    path: Path,
    relative: str,
    names: Mapping[str, str],
    maps: MappedFiles,
    metadata: Mapping[str, str],
    written: Written,
    report: Report,
    last: Callable[[], None] | None = None,
) -> None:
    """One safetensors file of the output, header first, each chunk in its place; its hashes go to `written`."""
    infos: dict[str, TensorInfo] = {name: plan.keys.keys[key].out for name, key in names.items()}
    raw, order = header_bytes(infos, metadata)
    size = len(raw) + sum(_size(plan.keys.keys[key]) for key in names.values())
    hasher = Hasher(parse_header(raw[8:], path=path, file_bytes=size), whole=False)
    make_folder(path.parent)
    whole = plan.bytes
    total = max(1, -(-whole // MIB))
    try:
        with atomic_file(path, needed=size) as file:
            _reserve(file, size)
            sink = sink_of(file, size)
            hasher.update(raw)
            sink.write(memoryview(bytes(8) + raw[8:]))
            for name, data in _computed([(names[name], plan.keys.keys[names[name]]) for name in order], plan, maps):
                _put(sink, hasher, data)
                written.count(len(data))
                report(Tick("merge", total if written.done >= whole else written.done // MIB, total, note=name))
            if last is not None:
                last()
            sink.flush()
            file.flush()
            os.pwrite(file.fileno(), raw[:8], 0)
            made = os.fstat(file.fileno())
            written.inodes[relative] = made.st_dev, made.st_ino
    finally:
        hasher.close()
    written.files[relative], written.learned[relative] = hasher.finish(), hasher.learned()


def _reserve(file: BinaryIO, size: int) -> None:
    """Allocate the space, so that a full disk fails before the work, where the file system supports it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def _put(sink: Sink, hasher: Hasher, data: memoryview) -> None:
    futures = hasher.start(data)
    sink.write(data)
    for future in futures:
        future.result()


@dataclass(frozen=True)
class _Shares:
    """How the memory limit is divided."""

    threads: int
    window: int  # chunks in progress or waiting to be written
    scratch: int  # bytes each measuring thread may hold


def _shares(plan: MergePlan) -> _Shares:
    sources = max((len(key.sources) for key in plan.keys.keys.values()), default=1)
    cap, chunk = plan.memory_mib * MIB, chunk_bytes(sources)
    result = CHUNK * 8
    threads = max(1, min(plan.threads, cap // (chunk + AHEAD * result)))
    window = threads * AHEAD
    return _Shares(threads, window, max(0, cap - threads * chunk - window * result) // threads)


@dataclass(frozen=True)
class Piece:
    """The bytes of one chunk, and the buffer of `Results` that they lie in, if they do."""

    data: memoryview
    lent: Tensor | None = None


class Results:
    """Buffers for the chunks of the result: one is used again when what it held is written."""

    def __init__(self) -> None:
        self._free: deque[Tensor] = deque()

    def take(self, size: int) -> Tensor:
        """A flat buffer of this many bytes and more, uint8."""
        import torch

        try:
            held = self._free.pop()
        except IndexError:
            held = torch.empty(CHUNK * 2, dtype=torch.uint8)  # of fp16 and bf16; others get one that fits
        return held if len(held) >= size else torch.empty(size, dtype=torch.uint8)

    def give_back(self, piece: Piece) -> None:
        if piece.lent is not None:
            self._free.append(piece.lent)


def _computed(keys: list[tuple[str, Key]], plan: MergePlan, maps: MappedFiles) -> Iterator[tuple[str, memoryview]]:
    """(key, bytes) of every chunk, in the order of the file, valid until the next one; at most a window of them exists at a time."""
    import torch

    shares, before, results = _shares(plan), torch.get_num_threads(), Results()
    pool = ThreadPoolExecutor(shares.threads, thread_name_prefix="merge", initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[tuple[str, Future[Piece]]] = deque()
    try:
        for name, job in _jobs(keys, plan, maps, pool, shares, results):
            waiting.append((name, pool.submit(job)))
            while len(waiting) > shares.window:
                yield from _ready(waiting, results)
        while waiting:
            yield from _ready(waiting, results)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _ready(waiting: deque[tuple[str, Future[Piece]]], results: Results) -> Iterator[tuple[str, memoryview]]:
    name, future = waiting.popleft()
    piece = future.result()
    yield name, piece.data
    results.give_back(piece)


def _jobs(
    keys: list[tuple[str, Key]], plan: MergePlan, maps: MappedFiles, pool: ThreadPoolExecutor, shares: _Shares, results: Results
) -> Iterator[tuple[str, Callable[[], Piece]]]:
    """The work for every chunk. Measurements of whole tensors run a few keys ahead, in the same threads."""
    measured: dict[str, Future[Any]] = {}
    most = 1 if plan.method.holds else MEASURED_AHEAD
    todo = deque(keys)
    ahead = deque(key for _, key in keys if plan.method.measure and key.merged)
    while todo:
        name, key = todo.popleft()
        while ahead and len(measured) < most:
            coming = ahead.popleft()
            measured[coming.name] = pool.submit(_measure, coming, plan.method, maps, shares.scratch, plan.recipe.precision)
        known = measured.pop(name, None)
        for begin, count in _spans(key, plan.method):
            yield name, partial(_chunk, key, begin, count, plan, maps, known, results)


def _spans(key: Key, method: Method) -> Iterator[tuple[int, int]]:
    """(first element, how many) of each chunk."""
    block = _block(key, method) if key.merged else CHUNK
    step = max(1, CHUNK // block) * block
    total = key.out.elements
    edge = _whole_rows(key) if key.merged else total
    if key.merged and edge is None:
        yield 0, total
        return
    assert edge is not None
    for first, last in ((0, edge), (edge, total)):
        for begin in range(first, last, step):
            yield begin, min(step, last - begin)


def _block(key: Key, method: Method) -> int:
    """Elements of arithmetic at a time: BLOCK, or the whole rows that fit in one."""
    if not method.rowwise:
        return BLOCK
    width = row_width(key.out.shape)
    return max(1, BLOCK // width) * width


def row_width(shape: tuple[int, ...]) -> int:
    """Elements of one row: a slice of the first axis; a vector is one row."""
    count = 1
    for size in shape[1:] if len(shape) > 1 else shape:
        count *= size
    return count


def _whole_rows(key: Key) -> int | None:
    """Elements from the start that are merged, where that is a run of them; None where the shapes differ in another axis than the first."""
    if key.shared is None:
        return key.out.elements
    if any(source.info.shape[1:] != key.out.shape[1:] for source in key.sources):
        return None
    return TensorInfo(key.out.dtype, key.shared).elements


# --- one chunk


def _arithmetic(key: Key, precision: str) -> Any:
    """fp32; fp64 when requested or when a source is fp64."""
    import torch

    return torch.float64 if precision == "fp64" or any(source.info.dtype == "F64" for source in key.sources) else torch.float32


def _measure(key: Key, method: Method, maps: MappedFiles, scratch: int, precision: str) -> Any:
    assert method.measure is not None
    edge = _whole_rows(key)
    if edge is None:
        return method.measure(Held(*_corners(key, maps, precision)), **key.options)
    dtype = _arithmetic(key, precision)
    shape = key.shared if key.shared is not None else key.out.shape
    chunks = KeyChunks(maps, key.sources, dtype=dtype, count=edge, scratch=scratch, step=_block(key, method), shape=shape)
    return method.measure(chunks, **key.options)


def _corners(key: Key, maps: MappedFiles, precision: str) -> list[Tensor]:
    """The leading part of each source that all shapes share."""
    assert key.shared is not None
    part = tuple(slice(size) for size in key.shared)
    dtype = _arithmetic(key, precision)
    return [maps.tensor(source, 0, source.info.elements).to(dtype).reshape(source.info.shape)[part].contiguous() for source in key.sources]


def _chunk(key: Key, begin: int, count: int, plan: MergePlan, maps: MappedFiles, known: Future[Any] | None, results: Results) -> Piece:
    """The bytes of one chunk of the result."""
    import torch

    edge = _whole_rows(key) if key.merged else 0
    if not key.merged or (edge is not None and begin >= edge):
        return _copied(key, begin, count, maps, results)
    extra: dict[str, Any] = {} if known is None else {"known": known.result()}
    if edge is None:
        return Piece(_corner(key, plan, maps, extra))
    dtype, block = _arithmetic(key, plan.recipe.precision), _block(key, plan.method)
    chunks = KeyChunks(maps, key.sources, dtype=dtype, count=begin + count, scratch=0, step=block, shape=key.out.shape)
    apply, width = partial(plan.method.apply, **key.options, **extra), row_width(key.out.shape)

    def merged(first: int, tensors: Sequence[Tensor]) -> Tensor:
        return apply(*tensors, at=Place(key.name, first, width)) if plan.method.placed else apply(*tensors)

    piece, result = _room(key.out.dtype, count, results)
    places = torch.split(result, block)
    bounds = Bounds(len(places), dtype)
    for index, (first, tensors) in enumerate(chunks.blocks(begin, count)):
        values = merged(first, tensors)
        bounds.note(index, values)
        places[index].copy_(values)
    if (bad := bounds.first_beyond(key)) is not None:
        first = begin + bad * block
        kept(merged(first, chunks.at(first)), key, first, _cause_of(key, maps))  # again, to say what and where
        raise JobFailed(f"{key.name} had other numbers when it was read again; the result was deleted. Run the command again.")
    return piece


def _room(word: str, count: int, results: Results) -> tuple[Piece, Tensor]:
    """A buffer for this many elements of the result: as bytes, and as numbers of a dtype such as F16."""
    dtype = torch_dtype(word)
    lent = results.take(count * dtype.itemsize)
    own = lent[: count * dtype.itemsize]
    return Piece(memoryview(own.numpy()), lent), own.view(dtype)  # type: ignore[arg-type]  # numpy arrays are buffers


class Bounds:
    """The least and the largest value of every block of a chunk, looked at together: a look at each costs more than the arithmetic."""

    def __init__(self, blocks: int, dtype: Any) -> None:
        import torch

        self._lows, self._highs = torch.zeros(blocks, dtype=dtype), torch.zeros(blocks, dtype=dtype)
        self._places = list(zip(self._lows.unbind(), self._highs.unbind(), strict=True))

    def note(self, index: int, values: Tensor) -> None:
        """Measure a block."""
        import torch

        torch.aminmax(values, out=self._places[index])

    def first_beyond(self, key: Key) -> int | None:
        """The first block with a value that is none or that the output's dtype cannot hold."""
        import torch

        limit = torch.finfo(torch_dtype(key.out.dtype)).max
        if float(self._lows.min()) >= -limit and float(self._highs.max()) <= limit:  # NaN fails both
            return None
        good = (self._lows.double() >= -limit) & (self._highs.double() <= limit)
        return int((~good).nonzero()[0, 0])


def _corner(key: Key, plan: MergePlan, maps: MappedFiles, extra: dict[str, Any]) -> memoryview:
    """A tensor of which only the part that all shapes share is merged; the rest is the first source's."""
    first = key.sources[0]
    merged = maps.tensor(first, 0, first.info.elements).to(_arithmetic(key, plan.recipe.precision), copy=True).reshape(first.info.shape)
    corners = _corners(key, maps, plan.recipe.precision)
    part = tuple(slice(size) for size in key.shared or ())
    if plan.method.placed:
        extra["at"] = Place(key.name, 0, row_width(tuple(corners[0].shape)))
    values = plan.method.apply(*[corner.reshape(-1) for corner in corners], **key.options, **extra)
    merged[part] = values.reshape(corners[0].shape)
    return bytes_of(kept(merged.reshape(-1), key, 0, _cause_of(key, maps)))


def _copied(key: Key, begin: int, count: int, maps: MappedFiles, results: Results) -> Piece:
    """The bytes of the first source, in the output's dtype; floating-point values are checked."""
    source = key.sources[0]
    piece, stored = _room(source.info.dtype, count, results)
    if source.parts or source.turned:
        stored.copy_(maps.tensor(source, begin, count))
    else:
        maps.read_into(source, begin * stored.itemsize, piece.data)
    if source.info.dtype in FLOATS:
        _check(stored, key, begin, maps)
    if source.info.dtype == key.out.dtype:
        return piece
    cast, places = _room(key.out.dtype, count, results)
    places.copy_(stored)
    results.give_back(piece)
    return cast


def _check(stored: Tensor, key: Key, begin: int, maps: MappedFiles) -> None:
    """Raise JobFailed where the output's dtype does not hold these values of the first source."""
    import torch

    wide = torch.float64 if stored.dtype == torch.float64 else torch.float32
    blocks = torch.split(stored, BLOCK)
    bounds = Bounds(len(blocks), wide)
    for index, block in enumerate(blocks):
        bounds.note(index, block.to(wide))
    if (bad := bounds.first_beyond(key)) is not None:
        kept(blocks[bad].to(wide), key, begin + bad * BLOCK, _cause_of(key, maps))


def kept(values: Tensor, key: Key, begin: int, cause: Callable[[int], str]) -> Tensor:
    """The values in the output's dtype. Raises JobFailed with key and place for what it cannot hold."""
    import torch

    dtype = torch_dtype(key.out.dtype)
    limit = torch.finfo(dtype).max
    low, high = (float(bound) for bound in torch.aminmax(values))
    if not (low >= -limit and high <= limit):  # NaN fails both
        raise JobFailed(_trouble(values, key, begin, limit, cause))
    return values.to(dtype)


def bytes_of(tensor: Tensor) -> memoryview:
    """A flat tensor's elements as bytes."""
    import torch

    return memoryview(tensor.contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy arrays are buffers


def _trouble(values: Tensor, key: Key, begin: int, limit: float, cause: Callable[[int], str]) -> str:
    flat = values.reshape(-1)
    bad = ~(flat.abs() <= limit)
    place = int(bad.nonzero()[0, 0])
    value, where = float(flat[place]), list(_index(begin + place, key.out.shape))
    many = int(bad.sum())
    more = f" and {many - 1} more near it" if many > 1 else ""
    if value - value != 0:
        return f"{key.name} is {value} at {where}{more}: {cause(begin + place)}. Nothing was written."
    message = f"{key.name} is {value:g} at {where}{more}, more than {key.out.dtype} holds ({limit:g})"
    return f"{message}. Write dtype=bf16 or dtype=fp32. Nothing was written."


def _cause_of(key: Key, maps: MappedFiles) -> Callable[[int], str]:
    def cause_at(place: int) -> str:
        """Which source has a non-finite value there."""
        for source in key.sources:
            if place < source.info.elements:
                value = float(maps.tensor(source, place, 1))
                if value - value != 0:
                    return f"{source.file.name} has {value} there"
        return "the sources are finite there, the method's result is not"

    return cause_at


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    places: list[int] = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        places.append(place)
    return tuple(reversed(places))


def anonymous_mib() -> float:
    """Memory of this process beyond mapped files, in MiB; the peak of all memory where the system does not report it."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
