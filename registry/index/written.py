"""Registers what a job has just written: with its recipe only where the bytes are still those that the job wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed
from registry.files.unfinished import only_writer
from registry.formats.hashing import folder_sha256, hash_file
from registry.formats.model_folder import folder_files
from registry.progress import Report, silent
from registry.record import Hashes, Record

if TYPE_CHECKING:
    from registry.store import Store


@contextmanager
def writing_output(output: Path, store: Store, *, register: bool) -> Iterator[None]:
    """The output kept for this process, and with `register` an index that takes its record. Raises Refused, WriteFailed."""
    if register:
        store.check_writable()
    with only_writer(output):
        yield


def add_written(
    store: Store,
    path: Path,
    *,
    sha256: str | None,
    name: str | None,
    recipe: Mapping[str, Any],
    parents: Sequence[Mapping[str, Any]] = (),
    kind: str | None = None,
    family: str | None = None,
    licence: str | None = None,
    triggers: Sequence[str] = (),
    report: Report = silent,
) -> Record:
    """The Record of what was written, with its recipe. Raises JobFailed, and registers nothing, where its sha256 is another."""
    found = store.sha256(store.find(str(path)), report=report)
    if found != sha256:
        raise JobFailed(
            f"{path} is not what this job wrote: it has sha256 {found[:12]}, {str(sha256)[:12]} was written. "
            "Another process has replaced or changed it, or the disk did not keep it. It is not registered."
        )
    return store.add(
        path,
        name=name,
        kind=kind,
        family=family,
        parents=parents,
        recipe=recipe,
        licence=licence,
        triggers=triggers,
        report=report,
    )


def written_folder_sha256(folder: Path, known: Mapping[str, Hashes]) -> str:
    """The sha256 of a folder over all of its files; those whose Hashes are known by their place in it are not read again."""
    files = {file.relative_to(folder).as_posix(): file for file in folder_files(folder)}
    digests = {name: known[name].sha256 if name in known else hash_file(file, whole=False)[0].sha256 for name, file in files.items()}
    return folder_sha256({name: str(digest) for name, digest in digests.items()})
