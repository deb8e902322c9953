"""Which files of a record are this tool's own: made by one of its jobs in that very place, or brought into its blob store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import BadFile, Refused
from registry.index.storage.blobs import Blobs
from registry.index.storage.hash_cache import Digests, hashed_files
from registry.progress import silent
from registry.record import Record


@dataclass(frozen=True)
class Removed:
    """A record that was forgotten, the names of what was made from it, and the files that were deleted with it."""

    record: Record
    derived: tuple[str, ...]
    deleted: tuple[str, ...]


def own_files(record: Record, blobs: Blobs, digests: Digests) -> list[Path]:
    """The files that may be deleted with a record. Raises Refused where there is none, or where one was written to since."""
    if record.kind in ("dataset", "run"):
        raise Refused(f"{record.name} is a {record.kind}: {record.path} stays. Remove it yourself, and leave out --delete-files.")
    places = [path for path in (record.path, *record.metadata.get("copies", ())) if path and os.path.exists(path)]
    ours = [path for path in places if path == record.metadata.get("made_at") or blobs.local in Path(path).parents]
    if not ours:
        raise Refused(
            f"{record.name} was not made or brought by LoRA Loom, or is not where that put it: {record.path} stays. "
            "Leave out --delete-files to forget it."
        )
    try:
        found = {path: digests.of_file(Path(path), silent)[0].sha256 for path in ours if "root" not in record.metadata}
        folder = digests.of_record(record, silent)[0].sha256 if "root" in record.metadata else record.hashes.sha256
    except BadFile as error:
        raise Refused(f"{error} Nothing was deleted.") from error
    changed = [path for path, sha256 in found.items() if sha256 != record.hashes.sha256]
    if changed or folder != record.hashes.sha256:
        raise Refused(f"{changed[0] if changed else record.path} was written to since it was made: it stays. Leave out --delete-files.")
    return [Path(file) for file in hashed_files(record)] if "root" in record.metadata else [Path(path) for path in ours]


def delete(files: Sequence[Path]) -> None:
    """Delete files, and the folders they leave empty behind them where all of a folder was theirs."""
    for path in files:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in files}, key=lambda path: len(path.parts), reverse=True):
        if len(files) > 1:
            with contextlib.suppress(OSError):
                folder.rmdir()
