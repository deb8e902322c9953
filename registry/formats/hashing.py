"""All hashes of a model file in one streaming read; each has its own name, there is no field called "hash".

sha256          of the whole file; autov2 is its first 10 digits (A1111, Civitai)
autov1          sha256 of the bytes 0x100000..0x110000, first 8 digits (A1111's old hash; e3b0c442 for every file under 1 MiB)
autov3          first 12 digits of the hash the trainer wrote into the header (Civitai); read from the metadata, never computed
kohya           sha256 of the data section = tensors_sha256 (sd-scripts' sshs_model_hash, ModelSpec's hash_sha256): a metadata edit keeps it
kohya_legacy    autov1 of the file as it would be with its ss_* metadata alone (sd-scripts' sshs_legacy_hash)
blake3          of the whole file (InvokeAI, Civitai)
content_sha256  over (canonical name, dtype, shape, bytes) sorted by name: equal for one adapter in any dialect

kohya and blake3 of a large file that is no adapter are computed when they are asked for: the data section's sha256 alone costs as much as
everything else together, and nothing is found by these two but adapters, whose files are small.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from registry.errors import BadFile
from registry.formats.adapter_keys import adapter_keys
from registry.formats.content_hash import adapter_contents, content_sha256
from registry.formats.peft_config import config_beside, with_config
from registry.formats.safetensors_header import Header, data_order, header_bytes, open_regular, read_header
from registry.progress import Report, Tick, silent
from registry.record import Hashes

CHUNK = 8 << 20  # bytes a read whose digests run beside each other
CACHED = 1 << 19  # bytes a read whose digests run one after the other: they stay in a core's own cache
WINDOW = (0x100000, 0x110000)  # the 64 KiB after the first MiB that AutoV1 covers
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
REPORTED = 64 << 20  # bytes of a file from which progress is reported
LARGE = 64 << 20  # bytes of a file from which kohya and blake3 wait
KEPT = 64  # bytes: tensors up to this size are kept for the content hash, which needs the value of alpha
PARALLEL = 1 << 20  # bytes from which the digests of a chunk run in threads (hashlib and blake3 let go of the interpreter lock)


class Hasher:
    """Takes the bytes of a file from its first to its last, gives its Hashes. `header` None: no safetensors file."""

    def __init__(self, header: Header | None = None, *, config: Mapping[str, Any] | None = None, whole: bool = True) -> None:
        """`config`: peft's adapter_config.json, if there is one beside the file: it may state the alpha. Not `whole`: see `waits`."""
        self._header = header
        self._with_config = replace(header, metadata=with_config(header.metadata, config)) if header and config else header
        self._position = 0
        self._sha256 = hashlib.sha256()
        self._whole = whole or not waits(header)
        self._blake3 = blake3()
        self._autov1 = hashlib.sha256()
        self._legacy = hashlib.sha256()
        self._data = hashlib.sha256()
        self._legacy_shift = _legacy_shift(header) if header else None
        self._tensors = TensorDigests(header) if header else None
        self._pool: ThreadPoolExecutor | None = None

    def start(self, chunk: bytes | memoryview) -> list[Future[None]]:
        """Start hashing the next bytes; the buffer must stay as it is until the futures are done."""
        view = memoryview(chunk)
        begin, self._position = self._position, self._position + len(view)
        jobs: list[Callable[[], None]] = [lambda: self._sha256.update(view), lambda: self._rest(view, begin)]
        header = self._header
        if header and self._position > header.data_start:
            data = view[max(0, header.data_start - begin) :]
            if self._whole:
                jobs.append(lambda: self._data.update(data))
            if self._tensors:
                tensors, at = self._tensors, max(0, begin - header.data_start)
                jobs.append(lambda: tensors.update(data, at))
        if len(view) < PARALLEL:
            for job in jobs:
                job()
            return []
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(jobs) if header is None else 4, thread_name_prefix="hash")
        return [self._pool.submit(job) for job in jobs]

    def update(self, chunk: bytes | memoryview) -> None:
        """Digest the next bytes of the file."""
        for future in self.start(chunk):
            future.result()

    def _rest(self, view: memoryview, begin: int) -> None:
        if self._whole:
            self._blake3.update(view)
        self._autov1.update(_cut(view, begin, *WINDOW))
        if self._header and self._legacy_shift is not None:
            first = max(WINDOW[0] - self._legacy_shift, self._header.data_start)  # the header's own bytes are not the file's
            self._legacy.update(_cut(view, begin, first, WINDOW[1] - self._legacy_shift))

    def finish(self) -> Hashes:
        """The hashes of everything that was given."""
        self.close()
        whole = self._sha256.hexdigest()
        values: dict[str, str | None] = {
            "sha256": whole,
            "autov1": self._autov1.hexdigest()[:8],
            "autov2": whole[:10],
            "blake3": self._blake3.hexdigest() if self._whole else None,
        }
        if self._header and self._tensors:
            data = self._data.hexdigest() if self._whole else None
            values |= {
                "kohya": data,
                "tensors_sha256": data,
                "autov3": autov3(self._header.metadata),
                "kohya_legacy": self._legacy.hexdigest()[:8] if self._legacy_shift is not None else None,
                "content_sha256": content_sha256(self._with_config or self._header, self._tensors.finish(), self._tensors.small),
            }
        return Hashes(**values)

    def learned(self) -> dict[str, Any]:
        """Facts from an adapter's tensors: its alpha where the header has none, a zero product."""
        if self._header is None or self._tensors is None:
            return {}
        return adapter_contents(self._header, self._tensors.finish(), self._tensors.small)

    def close(self) -> None:
        """Let go of the threads."""
        if self._pool:
            self._pool.shutdown()
            self._pool = None


def waits(header: Header | None) -> bool:
    """Whether kohya and blake3 are computed when they are asked for only: of a large safetensors file that is no adapter."""
    return header is not None and header.file_bytes >= LARGE and adapter_keys(header.tensors) is None


class TensorDigests:
    """The blake3 of every tensor's bytes, taken as the data section streams by; a third sha256 of all would cost three times that."""

    def __init__(self, header: Header) -> None:
        self._spans = sorted((span, name) for name, span in header.offsets.items())
        self._next = 0
        self._running = blake3()
        self._kept = bytearray()
        self._digests: dict[str, str] = {}
        self.small: dict[str, bytes] = {}

    def update(self, data: memoryview, at: int) -> None:
        """The next bytes of the data section; `at` is their offset in it."""
        end_of_data = at + len(data)
        while self._next < len(self._spans):
            (begin, end), name = self._spans[self._next]
            piece = data[max(begin - at, 0) : max(end - at, 0)]
            self._running.update(piece)
            if end - begin <= KEPT:
                self._kept += piece
            if end > end_of_data:
                return
            self._close(name, end - begin)

    def _close(self, name: str, size: int) -> None:
        self._digests[name] = self._running.hexdigest()
        if size <= KEPT:
            self.small[name] = bytes(self._kept)
        self._running, self._kept = blake3(), bytearray()
        self._next += 1

    def finish(self) -> dict[str, str]:
        """Name -> hex digest; tensors without elements have the digest of nothing."""
        while self._next < len(self._spans):
            self._close(self._spans[self._next][1], 0)
        return self._digests


def _cut(view: memoryview, begin: int, first: int, last: int) -> memoryview:
    """The part of the file's bytes first..last that is in a view starting at `begin`."""
    return view[max(0, first - begin) : max(0, last - begin)]


def _legacy_shift(header: Header) -> int | None:
    """Bytes by which the data would lie further back with the ss_* metadata alone; None where it cannot be computed.

    sd-scripts saves the tensors again before hashing, so the data must already lie in the library's order, and the window
    must start after both headers.
    """
    names = sorted(header.offsets, key=lambda name: header.offsets[name])
    if names != data_order(header.tensors):
        return None
    metadata = {key: value for key, value in header.metadata.items() if key.startswith("ss_")}
    if not metadata:
        return None
    raw, _ = header_bytes(header.tensors, metadata)
    if max(len(raw), header.data_start) > WINDOW[0]:
        return None
    return len(raw) - header.data_start


def autov3(metadata: Mapping[str, str]) -> str | None:
    """Civitai's AutoV3 from the header's metadata; None when there is none, or the placeholder of an empty file."""
    for key in ("sshs_model_hash", "modelspec.hash_sha256"):
        value = metadata.get(key, "").strip().lower().removeprefix("0x")
        if len(value) >= 12 and all(digit in "0123456789abcdef" for digit in value) and value[:12] != EMPTY_SHA256[:12]:
            return value[:12]
    return None


def hash_file(path: Path | str, *, whole: bool = True, report: Report = silent) -> tuple[Hashes, dict[str, Any]]:
    """(hashes of one file, facts from its tensors: `alpha`, `warnings`), in one read; not `whole`: without those that can wait.

    A file that is no sound safetensors file has the hashes of the whole file only. Raises BadFile when it cannot be read.
    """
    path = Path(path)
    try:
        header: Header | None = read_header(path)
    except BadFile as error:
        if error.code == "unreadable":
            raise
        header = None
    with open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        hasher = Hasher(header, config=config_beside(path), whole=whole)
        try:
            _stream(file.fileno(), hasher, total, path, report)
        finally:
            hasher.close()
    return hasher.finish(), hasher.learned()


def _stream(descriptor: int, hasher: Hasher, total: int, path: Path, report: Report) -> None:
    """Read one chunk while the one before it is digested; where no core is free for that, one piece after the other."""
    buffers = [bytearray(min(CHUNK if _is_core_free() else CACHED, max(total, 1))) for _ in range(2)]
    waiting: list[Future[None]] = []
    done = turn = 0
    while True:
        count = _read_into(descriptor, buffers[turn])
        for future in waiting:
            future.result()
        if count == 0:
            break
        waiting = hasher.start(memoryview(buffers[turn])[:count])
        done, turn = done + count, 1 - turn
        if total > REPORTED and (done % CHUNK < count or done == total):
            report(Tick("hash", done, total, path.name))
    if done != total:
        raise BadFile(path, "unreadable", f"changed while it was read: {total:,} bytes were expected, {done:,} came.")


def _is_core_free() -> bool:
    """Whether a second digest is likely to find a core of its own; beside others at work, threads cost more than they gain."""
    try:
        return os.getloadavg()[0] <= (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has none, and a container without /proc cannot tell it
        return True


def _read_into(descriptor: int, buffer: bytearray) -> int:
    if hasattr(os, "readv"):
        return os.readv(descriptor, [buffer])
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def folder_sha256(entries: Mapping[str, str]) -> str:
    """A folder's own sha256: that of its sorted 'relative path, sha256' lines; paths with `/`."""
    lines = "".join(f"{path}, {digest}\n" for path, digest in sorted(entries.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def value_sha256(value: object) -> str:
    """The sha256 of a plain value as canonical JSON: keys sorted, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
