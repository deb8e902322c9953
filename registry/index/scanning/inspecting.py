"""Inspects the files of a scan some at a time, each step for all of them: one step's code stays in the processor's caches then.

A file after the other costs a sixth more of the processor (bench/registry). What a file raises is its own, and found in its place.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from registry.detect.inspect import inspect, record_of, refuse_partial
from registry.detect.table_facts import FoundTable, TableReader
from registry.formats.safetensors_header import read_header_bytes
from registry.index import rows
from registry.index.rows import Place
from registry.index.scanning.record_matcher import Seen, fingerprint
from registry.index.scanning.walk import Entry

TOGETHER = 64  # files
HELD = 3 << 19  # bytes of their headers, beside the last one: checkpoints have some hundred KB each


class Failed(NamedTuple):
    """What the inspection of a file raised."""

    error: Exception


class _Raw(NamedTuple):
    """A file whose header was read."""

    entry: Entry
    path: Path
    place: Place
    size: int
    header: bytes


def inspected(entries: Sequence[Entry], reader: TableReader) -> Iterator[tuple[Entry, Seen | Failed]]:
    """Each entry with what it is, in their order."""
    part: list[Any] = []
    held = begun = 0
    for number, entry in enumerate(entries, 1):
        part += _each(_opened, [entry])
        held += len(part[-1].header) if isinstance(part[-1], _Raw) else 0
        if held > HELD or number == len(entries):
            with _collecting_later():
                finished = _finished(part, reader)
            yield from zip(entries[begun:number], finished, strict=True)
            part, held, begun = [], 0, number


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Without the garbage collector: it would look through the tables of all these files again and again, and finds nothing there."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _finished(part: Sequence[Any], reader: TableReader) -> list[Any]:
    split = _each(lambda raw: (raw, reader.split(raw.path, raw.size, raw.header)), part)
    tables = _each(lambda found: (found[0], reader.parsed(found[1])), split)
    facts = _each(lambda found: (found[0], reader.facts(found[1])), tables)
    return _each(lambda found: _seen(*found), facts)


def _each(step: Callable[[Any], Any], files: Iterable[Any]) -> list[Any]:
    """The step's result of each file; what is done with already, or has failed, stays as it is."""
    found: list[Any] = []
    for file in files:
        if isinstance(file, Seen | Failed):
            found.append(file)
            continue
        try:
            found.append(step(file))
        except Exception as error:  # whatever one file raises is that file's problem
            found.append(Failed(error))
    return found


def _opened(entry: Entry) -> _Raw | Seen:
    """The header of a safetensors file; of what else there is all that a scan finds."""
    if entry.folder:
        folder_print = folder_fingerprint(entry.path)
        refuse_partial(Path(entry.path))
        return Seen(rows.place_of(entry.path, entry.stat, fingerprint=folder_print), inspect(entry.path))
    if entry.path.lower().endswith(".gguf"):
        return Seen(rows.place_of(entry.path, entry.stat), inspect(entry.path))
    path = Path(entry.path)
    size, header = read_header_bytes(path)
    place = rows.place_of(entry.path, entry.stat, fingerprint=fingerprint(header))
    return _Raw(entry, path, place, size, header)


def _seen(raw: _Raw, table: FoundTable) -> Seen:
    if table.facts.packed:
        return Seen(raw.place, inspect(raw.path))
    return Seen(raw.place, record_of(raw.path, raw.size, table.metadata, table.facts, beside=raw.entry.beside))


def folder_fingerprint(path: str) -> str:
    """A hash of the stat of every file below a diffusers folder."""
    digest = hashlib.sha256()
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            try:
                seen = os.stat(os.path.join(root, name))
            except OSError:
                continue
            line = f"{os.path.relpath(os.path.join(root, name), path)}\0{seen.st_size}\0{seen.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
