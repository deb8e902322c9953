"""Content-addressed files: `<root>/<ab>/<sha256><suffix>`, on this machine or in any store that fsspec supports.

A remote store (`LORALOOM_BLOBS=s3://bucket/models`) holds the lasting copies; the home then has working copies. A blob is hashed
as it is copied and kept only when the hash is right; the same content is stored once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from registry.errors import JobFailed, Refused
from registry.files.locks import held, held_if_free
from registry.files.unfinished import TEMPORARY
from registry.files.write_failure import explained, make_folder
from registry.formats.atomic_file import atomic_file, sync_folder
from registry.home import expanded
from registry.progress import Report, Tick, silent

CHUNK = 8 << 20  # bytes a read
BLOB = re.compile(r"([0-9a-f]{64})(\.[A-Za-z0-9]{1,12})?")


@dataclass(frozen=True)
class Blob:
    """One file of a store: its address, hash and size, and whether it is on this machine."""

    address: str
    sha256: str
    bytes: int
    local: bool


class Blobs:
    """The store of a home: local, and remote where `url` names one."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        given = os.environ.get("LORALOOM_BLOBS") if url is None else url
        place = _local_path(given) if given else home / "blobs"
        self.local = place if place is not None else home / "blobs"
        self._url = None if place is not None else given
        self._remote: tuple[Any, str] | None = None

    @property
    def shown(self) -> str:
        """The address of the store, without a password."""
        return re.sub(r"//[^/@]*@", "//", self._url) if self._url else str(self.local)

    def downloading(self) -> AbstractContextManager[None]:
        """A shared lock, held while a file is added to the store and not registered yet."""
        return held(self.local, shared=True)

    def alone(self) -> AbstractContextManager[bool]:
        """Whether no other process is adding a file, nor can while this is held."""
        return held_if_free(self.local)

    def find(self, sha256: str) -> Path | None:
        """The local file of this content."""
        folder = self.local / sha256[:2]
        return next((path for path in sorted(folder.glob(f"{sha256}*")) if BLOB.fullmatch(path.name)), None)

    def take(self, file: Path, sha256: str, ending: str, report: Report = silent) -> Path:
        """Move a downloaded, checked file into the store; gives its path."""
        if self._url:
            self._put_remote(file, sha256, ending, report)
        kept = self.find(sha256)
        if kept is not None:
            file.unlink()
            return kept
        place = self._place(sha256, ending)
        make_folder(place.parent)
        if os.stat(file).st_dev != os.stat(place.parent).st_dev:
            _keep_copy(file, place, sha256, report)
            file.unlink()
            return place
        os.chmod(file, 0o444)
        with explained(place):
            os.replace(file, place)
        sync_folder(place.parent)
        return place

    def keep(self, file: Path, sha256: str, report: Report = silent) -> str:
        """Copy a file into the store; gives its address. Raises JobFailed when its hash has changed."""
        if self._url:
            return str(self._elsewhere()[0].unstrip_protocol(self._put_remote(file, sha256, file.suffix.lower(), report)))
        kept = self.find(sha256)
        if kept is not None and kept.stat().st_size == file.stat().st_size:
            return str(kept)
        place = self._place(sha256, file.suffix.lower())
        make_folder(place.parent)
        _keep_copy(file, place, sha256, report)
        return str(place)

    def fetch(self, sha256: str, report: Report = silent) -> Path | None:
        """The file on this machine, downloaded from the remote store where needed; None where neither has it."""
        kept = self.find(sha256)
        if kept is not None or not self._url:
            return kept
        address = self._remote_address(sha256)
        if address is None:
            return None
        files, _ = self._elsewhere()
        place = self._place(sha256, Path(address).suffix)
        make_folder(place.parent)
        with files.open(address, "rb") as source, atomic_file(place) as target:
            _copy(source, target, sha256, int(files.size(address) or 0), f"the blob {address} is damaged", report)
        os.chmod(place, 0o444)
        return place

    def __iter__(self) -> Iterator[Blob]:
        """Every blob, local and remote."""
        for path in sorted(self.local.glob("??/*")):
            named = BLOB.fullmatch(path.name)
            if named:
                yield Blob(str(path), named[1], path.stat().st_size, True)
        if self._url:
            files, root = self._elsewhere()
            for address, facts in sorted(files.find(root, detail=True).items()):
                named = BLOB.fullmatch(address.rpartition("/")[2])
                if named:
                    yield Blob(str(files.unstrip_protocol(address)), named[1], int(facts.get("size") or 0), False)

    def remove(self, blob: Blob) -> None:
        """Delete one blob."""
        if blob.local:
            Path(blob.address).unlink(missing_ok=True)
        else:
            self._elsewhere()[0].rm(blob.address)

    def leftovers(self) -> list[Path]:
        """Unfinished files of killed processes."""
        return sorted(self.local.glob(f"??/{TEMPORARY}*"))

    def _place(self, sha256: str, ending: str) -> Path:
        return self.local / sha256[:2] / f"{sha256}{ending}"

    # --- the remote store

    def _elsewhere(self) -> tuple[Any, str]:
        """(file system, root)."""
        if self._remote is None:
            import fsspec

            try:
                files, root = fsspec.core.url_to_fs(self._url)
            except ImportError as error:
                raise Refused(f"LORALOOM_BLOBS={self.shown} needs a package that is not installed: {error}") from error
            except ValueError as error:
                raise Refused(f"LORALOOM_BLOBS={self.shown} cannot be used: {error}. Give a folder, or a URL that fsspec knows.") from error
            self._remote = files, str(root).rstrip("/")
        return self._remote

    def _remote_address(self, sha256: str) -> str | None:
        files, root = self._elsewhere()
        folder = f"{root}/{sha256[:2]}"
        try:
            found = files.ls(folder, detail=False)
        except FileNotFoundError:
            return None
        return next((str(one) for one in found if (named := BLOB.fullmatch(str(one).rpartition("/")[2])) and named[1] == sha256), None)

    def _put_remote(self, file: Path, sha256: str, ending: str, report: Report) -> str:
        """Write a blob and check its size; a wrong one is deleted."""
        files, root = self._elsewhere()
        size = file.stat().st_size
        known = self._remote_address(sha256)
        if known is not None and int(files.size(known) or 0) == size:
            return known
        address = f"{root}/{sha256[:2]}/{sha256}{ending}"
        try:
            files.makedirs(f"{root}/{sha256[:2]}", exist_ok=True)
            with file.open("rb") as source, files.open(address, "wb") as target:
                _copy(source, target, sha256, size, f"{file} changed while it was copied", report)
            if int(files.size(address) or 0) != size:
                raise JobFailed(f"{address} has {files.size(address)} bytes after {size:,} were written. Try again.")
        except BaseException as error:
            if files.exists(address):
                files.rm(address)
            if isinstance(error, OSError):
                raise JobFailed(f"{address} cannot be written: {error}.") from error
            raise
        return address


def _local_path(url: str) -> Path | None:
    """The folder of a path or a file URL; None for a remote store."""
    if "://" not in url:
        return expanded(url).absolute()
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None


def _keep_copy(file: Path, place: Path, sha256: str, report: Report) -> None:
    """Copy a file into the store, where it is read-only."""
    with file.open("rb") as source, atomic_file(place) as target:
        _copy(source, target, sha256, file.stat().st_size, f"{file} changed while it was copied", report)
    os.chmod(place, 0o444)


def _copy(source: BinaryIO, target: BinaryIO, sha256: str, total: int, wrong: str, report: Report) -> None:
    """Copy and hash. Raises JobFailed before the target gets its name."""
    digest, done = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        digest.update(data)
        target.write(data)
        done += len(data)
        if total > CHUNK:
            report(Tick("copy", done, total, sha256[:12]))
    if digest.hexdigest() != sha256:
        raise JobFailed(f"{wrong}: its sha256 is {digest.hexdigest()}, {sha256} was expected. Nothing was kept.")
