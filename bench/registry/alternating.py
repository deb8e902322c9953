"""A first scan and a rescan beside the bare work, in one process and taking turns: ratios that hold on a busy machine.

python bench/registry/alternating.py ROUNDS FOLDER ...
python bench/registry/alternating.py ROUNDS --hash FILE

CPU seconds, the least of the rounds. Before each first scan everything is forgotten that earlier files showed. To compare two versions, run
this in each of them by turns. `bare` is the least that a first scan in Python does: `headers`, BLAKE3 of each header, sizes and offsets of
all tensors in one plain loop, a row with the metadata; it does not find out what a model is. `bare again`: `walk`, each stat held against
the row. --hash: what a scan hashes first and what a question makes it hash, beside sha256 alone (8 MiB a read, as hashlib's own examples),
and beside one sha256 and one BLAKE3 over the same bytes in one loop (1 MiB a read): what both cost at least. `in cache`: the two alone, of
bytes that are in the cache already: the bound of any code that takes both.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from blake3 import blake3

from registry.detect.name_kinds import NameKinds
from registry.formats import model_header, safetensors_header
from registry.formats.hashing import hash_file
from registry.store import Store


def walk(folder: str) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(root, name))


def headers(folder: str) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                json.loads(file.read(int.from_bytes(file.read(8), "little")))


BYTES = {"F16": 2, "F32": 4}  # of an element, as library.py writes them
TABLE = "CREATE TABLE known (path TEXT PRIMARY KEY, fingerprint TEXT, size INTEGER, time INTEGER, data TEXT)"


def bare(folder: str, index: sqlite3.Connection) -> None:
    rows = []
    index.execute(TABLE)
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                seen, raw = os.fstat(file.fileno()), file.read(int.from_bytes(file.read(8), "little"))
            tensors = json.loads(raw)
            metadata, end = tensors.pop("__metadata__", {}), 0
            for entry in tensors.values():
                size = BYTES[entry["dtype"]]
                for side in entry["shape"]:
                    size *= side
                if entry["data_offsets"] != [end, end := end + size]:
                    raise SystemExit(f"{path} is damaged")
            data = json.dumps(metadata, ensure_ascii=False)
            rows.append((path, blake3(raw).hexdigest(), seen.st_size, seen.st_mtime_ns, data))
    index.executemany("INSERT INTO known VALUES (?, ?, ?, ?, ?)", rows)
    index.commit()


def bare_again(folder: str, index: sqlite3.Connection) -> None:
    known = {path: (size, time) for path, size, time in index.execute("SELECT path, size, time FROM known")}
    for root, _, names in os.walk(folder):
        for name in names:
            seen = os.stat(path := os.path.join(root, name))
            if known.pop(path) != (seen.st_size, seen.st_mtime_ns):
                raise SystemExit(f"{path} has changed")


def forget() -> None:
    """Empty the caches of what names and tables show."""
    for value in [value for name, module in sys.modules.items() if name.startswith("registry") for value in vars(module).values()]:
        if isinstance(value, NameKinds):
            value.forget()
        elif not isinstance(value, type) and callable(clear := getattr(value, "cache_clear", None)):
            clear()
    safetensors_header.PLAIN.clear()
    model_header.KEPT = type(model_header.KEPT)(model_header.KEPT.most)


def spent(work: Callable[..., object], *arguments: Any) -> float:
    """CPU seconds of a call, of all its threads."""
    begun = time.process_time()
    work(*arguments)
    return time.process_time() - begun


def library(folder: str, rounds: int) -> None:
    import registry.index.scanning.scan  # noqa: F401 - no import is counted

    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home, closing(sqlite3.connect(Path(home, "bare.sqlite"))) as index:
            store = Store(Path(home))
            store.check_writable()
            forget()
            sides = (("walk", walk), ("headers", headers), ("scan", store.scan), ("rescan", store.scan))
            for name, work in sides:
                found.setdefault(name, []).append(spent(work, folder))
            for name, work_with in (("bare", bare), ("bare again", bare_again)):
                found.setdefault(name, []).append(spent(work_with, folder, index))
            store.close()
    least = {name: min(seconds) for name, seconds in found.items()}
    shown = ", ".join(f"{name} {seconds:.3f}" for name, seconds in least.items())
    first = {name: f"{least[name] / least['headers']:.2f}" for name in ("scan", "bare")}
    again = {name: f"{least[name] / least['walk']:.2f}" for name in ("rescan", "bare again")}
    print(f"{Path(folder).name}: {shown}; first scan {first['scan']} x headers (bare {first['bare']}), ", end="")
    print(f"rescan {again['rescan']} x walk (bare {again['bare again']})", flush=True)


PIECE = 1 << 19  # bytes: with their tables they stay in a core's own cache of 2 MiB


def streamed(path: str, size: int, *, with_blake3: bool) -> None:
    sha256, other, buffer = hashlib.sha256(), blake3(), memoryview(bytearray(size))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
            if with_blake3:
                other.update(buffer[:count])


def in_cache(size: int, *, with_blake3: bool) -> None:
    """The digests of as many bytes that are in a core's own cache already: nothing is read."""
    sha256, other, piece = hashlib.sha256(), blake3(), os.urandom(PIECE)
    for _ in range(0, size, PIECE):
        sha256.update(piece)
        if with_blake3:
            other.update(piece)


def hashes(path: str, rounds: int) -> None:
    size = os.path.getsize(path)
    sides: dict[str, Callable[[], object]] = {
        "in cache, sha256": lambda: in_cache(size, with_blake3=False),
        "in cache, with BLAKE3": lambda: in_cache(size, with_blake3=True),
        "sha256 alone": lambda: streamed(path, 8 << 20, with_blake3=False),
        "sha256 and one BLAKE3": lambda: streamed(path, 1 << 20, with_blake3=True),
        "scan --hash": lambda: hash_file(path, whole=False),
        "all hashes": lambda: hash_file(path),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            found[name].append(spent(work))
    for name, seconds in found.items():
        alone = found["in cache, sha256" if name.startswith("in cache") else "sha256 alone"]
        print(f"{name:<22} {min(seconds):6.3f} CPU s {min(alone) / min(seconds):5.0%}")


def main() -> None:
    rounds, *rest = sys.argv[1:]
    if rest[0] == "--hash":
        hashes(rest[1], int(rounds))
        return
    for folder in rest:
        library(folder, int(rounds))


if __name__ == "__main__":
    main()
