"""Verifies files: every byte is read again and compared with the registered hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.formats.hashing import hash_file
from registry.index.storage.hash_cache import Digests, folder_hashes, hashed_files
from registry.progress import Report
from registry.record import FileEntry, Record


@dataclass(frozen=True)
class Check:
    """The result for one Record: ok, new, skipped, changed, rotten or missing. `files` are those that differ or are missing."""

    id: str
    name: str
    status: str
    message: str
    path: str | None = None
    files: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.status in ("ok", "new", "skipped")

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return asdict(self)


def verify(record: Record, digests: Digests, report: Report) -> Check:
    """Read all files of a Record again, copies too, without the cache."""

    def check(status: str, message: str, files: tuple[str, ...] = ()) -> Check:
        return Check(record.id, record.name, status, message, record.path, files)

    path, known = Path(str(record.path)), record.hashes.sha256
    if not path.exists():
        return check("missing", f"{path} is missing", (str(path),))
    if record.kind in ("dataset", "run"):
        return check("skipped", f"a {record.kind} is checked by the job that uses it")
    if known is None:
        return check("new", "it had no hash to compare with")
    worst = check("ok", f"sha256:{known[:12]}")
    for place in _places(record):
        untouched = digests.unchanged(place)
        try:
            found, differing = _read(place, report)
        except BadFile as error:
            return check("rotten" if untouched else "changed", f"{error.path} {error.message}", (str(error.path),))
        if found == known:
            continue
        became = f"sha256:{known[:12]} became {str(found)[:12]}"
        if untouched:
            return check("rotten", f"its content changed while its size and times did not: {became}", differing)
        worst = check("changed", f"it has changed since it was registered: {became}", differing)
    return worst


def _places(record: Record) -> Iterator[Record]:
    yield record
    for copy in record.metadata.get("copies", ()):
        if "root" not in record.metadata and Path(copy).is_file():
            yield replace(record, files=(FileEntry(path=copy, bytes=record.files[0].bytes),))


def _read(record: Record, report: Report) -> tuple[str | None, tuple[str, ...]]:
    """(current hash, files that differ from the registered ones)."""
    root = Path(str(record.path))
    now: dict[str, str | None] = {file: hash_file(file, whole=False, report=report)[0].sha256 for file in hashed_files(record)}
    if "root" not in record.metadata:
        return now[str(root)], (str(root),)
    found, learned = folder_hashes(root, now)
    before, after = record.metadata.get("files_sha256", {}), learned["metadata"]["files_sha256"]
    differing = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return found.sha256, tuple(str(root / name) for name in differing)
