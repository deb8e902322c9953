"""Managed files: those that loraloom wrote or downloaded itself, which it may delete with their record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import BadFile, Refused
from registry.formats.peft_config import config_beside
from registry.index.storage.blobs import Blobs
from registry.index.storage.hash_cache import Digests, hashed_files
from registry.progress import Report, silent
from registry.record import Record


@dataclass(frozen=True)
class Removed:
    """A removed record, the names of models derived from it, and the files that were deleted with it."""

    record: Record
    derived: tuple[str, ...]
    deleted: tuple[str, ...]


def managed_files(record: Record, blobs: Blobs, digests: Digests) -> list[Path]:
    """The files that may be deleted with a record. Raises Refused where there is none, or where one has changed since."""
    if record.kind in ("dataset", "run"):
        raise Refused(f"{record.name} is a {record.kind}: {record.path} stays. Remove it yourself, and leave out --delete-files.")
    places = [path for path in (record.path, *record.metadata.get("copies", ())) if path and os.path.exists(path)]
    managed = [path for path in places if path == record.metadata.get("made_at") or blobs.local in Path(path).parents]
    if not managed:
        raise Refused(
            f"{record.name} was not written or downloaded by LoRA Loom, or was moved since: {record.path} stays. "
            "Leave out --delete-files to forget it."
        )
    try:
        found = {path: digests.of_file(Path(path), silent)[0].sha256 for path in managed if "root" not in record.metadata}
        folder = digests.of_record(record, silent)[0].sha256 if "root" in record.metadata else record.hashes.sha256
    except BadFile as error:
        raise Refused(f"{error} Nothing was deleted.") from error
    changed = [path for path, sha256 in found.items() if sha256 != record.hashes.sha256]
    if changed or folder != record.hashes.sha256:
        raise Refused(f"{changed[0] if changed else record.path} has changed since it was written: it stays. Leave out --delete-files.")
    return [Path(file) for file in hashed_files(record)] if "root" in record.metadata else [Path(path) for path in managed]


def delete(files: Sequence[Path]) -> None:
    """Delete files, and the folders of several that are empty afterwards."""
    for path in files:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in files}, key=lambda path: len(path.parts), reverse=True):
        if len(files) > 1:
            with contextlib.suppress(OSError):
                folder.rmdir()


def keep_files(record: Record, blobs: Blobs, report: Report) -> list[str]:
    """Copy a hashed record's files into the blob store; gives their addresses there. Raises Refused for datasets and runs."""
    if record.kind in ("dataset", "run"):
        raise Refused(f"{record.name} is a {record.kind}; the blob store holds models.")
    if "root" not in record.metadata:
        if config_beside(Path(str(record.path))):
            raise Refused(
                f"{record.name} has its alpha in the adapter_config.json beside it, and the blob store keeps single files. Convert it: "
                f"loraloom registry convert {record.name} --to diffusers --output FILE.safetensors"
            )
        return [blobs.keep(Path(str(record.path)), str(record.hashes.sha256), report)]
    files = record.metadata.get("files_sha256", {})
    return [blobs.keep(Path(str(record.path)) / name, digest, report) for name, digest in files.items()]
