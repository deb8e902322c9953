"""The Store: the registered models, datasets and runs of this machine, found by name, alias, hash or path, with their lineage.

Models, datasets and runs have separate namespaces. A name that is given again goes to the newer record; the older one stays
reachable as `name@<registration time>`, 20261123-184500. The same content is one record, however often it is added.
The user's files are never moved or changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from registry.errors import Ambiguous, NotFound, Refused, WriteFailed
from registry.files.write_failure import NOT_TAKEN
from registry.formats.peft_config import peft_weights
from registry.home import home_dir, index_place
from registry.index import database as tables
from registry.index import records, rows
from registry.index.annotations import Annotations
from registry.index.by_hash import ids_hashed_in_part, records_by_hash
from registry.index.catalogue.browse import Browsed, browse
from registry.index.catalogue.selection import Selection
from registry.index.database import Index
from registry.index.duplicates import Duplicate, duplicates
from registry.index.embedded import Embedded
from registry.index.lineage import Lineage, trace, words_of
from registry.index.listing import Listing
from registry.index.lookup import Finder, seen_at
from registry.index.overrides import validate_overrides
from registry.index.registration import Registration, folder_registration, inspect_as, plain_values, register
from registry.index.scanning.rebuild import Rebuilt, rebuild
from registry.index.scanning.record_matcher import place_with_fingerprint
from registry.index.scanning.scan_report import ScanReport
from registry.index.scanning.walk import Problem
from registry.index.search import search
from registry.index.storage.blobs import Blobs
from registry.index.storage.gc import Garbage, find_garbage, sweep
from registry.index.storage.hash_cache import Digests
from registry.index.storage.managed_files import Removed, delete, keep_files, managed_files
from registry.index.storage.verify import Check, verify
from registry.progress import Report, silent
from registry.record import Hashes, Record
from registry.references import EMBEDDED, absolute, check_labels, check_name, check_texts, proper_name, spelled, without_alias
from registry.sources.source import Download, check_expected, download, is_source


class Store(Annotations):
    """The index of a home folder, or the one $LORALOOM_INDEX names. Opened at the first use; safe for several processes at once."""

    def __init__(self, home: Path | None = None, *, read_only: bool = False) -> None:
        self.home = Path(home) if home is not None else home_dir()
        self._index = Index(index_place(self.home), read_only=read_only)
        self._digests = Digests(self._index)
        self._embedded = Embedded()
        self.blobs = Blobs(self.home)
        self._finder = Finder(self._index, self._digests, self._embedded)

    @property
    def index_shown(self) -> str:
        """The path or URL of the index, without a password."""
        return self._index.shown

    def count(self) -> int | None:
        """Number of records in the index; None while its file does not exist."""
        if not self._index.is_there():
            return None
        with self._index.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.record)).scalar_one())

    def check_writable(self) -> None:
        """Raise WriteFailed where the index can only be read: before a job that ends with a new record."""
        with self._index.writing():
            pass

    def close(self) -> None:
        """Close the index file."""
        self._index.close()

    # --- adding

    def add(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        kind: str | None = None,
        family: str | None = None,
        parents: Sequence[Mapping[str, Any]] = (),
        recipe: Mapping[str, Any] | None = None,
        licence: str | None = None,
        tags: Iterable[str] = (),
        triggers: Iterable[str] = (),
        notes: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        sha256: str | None = None,
        report: Report = silent,
    ) -> Record:
        """Register a model file or folder, hashed, and give its Record. What is not given stays as it is.

        `hf:owner/repo[@revision][/file]` and an https address, with the `sha256` its file has, are downloaded first.
        The same content anywhere is the same record: it gets the new place and name beside the old ones. Raises BadFile for
        what is no model, Refused for an invalid name, JobFailed when the network or the disk fails.
        """
        check_name(name)
        tags, triggers = tuple(tags), tuple(triggers)
        check_texts([licence, notes])
        check_labels("tag", tags)
        check_labels("trigger word", triggers)
        validate_overrides({"kind": kind, "family": family})
        expected = {str(absolute(path)): sha256} if sha256 else {}
        with contextlib.ExitStack() as stack:
            if is_source(str(path)):
                stack.enter_context(self.blobs.downloading())
                came = download(str(path), sha256=sha256, home=self.home, blobs=self.blobs, report=report)
                path, expected, metadata = came.path, came.expected, {**(metadata or {}), **came.metadata}
                name, licence = name or self._free_name(came), licence or came.licence
            path = spelled(absolute(path))
            path = path if kind in ("dataset", "run") else peft_weights(path)
            if embedded := self._embedded.name_of(path):
                return self._embedded_named(embedded, name)
            if recipe is not None:  # only a job gives one: it wrote the file
                metadata = {**(metadata or {}), "made_at": str(path)}
            seen = inspect_as(path, kind)
            hashes, learned = self._digests.of_record(seen, report)
            check_expected(expected, path, hashes, learned)
            given = {"kind": kind, "family": family, "licence": licence, "notes": notes, **plain_values(parents, recipe, metadata)}
            place = place_with_fingerprint(path)
            new = Registration(
                record=seen, place=place, hashes=hashes, learned=learned, given=given, name=name, tags=tags, triggers=triggers
            )
            with self._index.writing() as connection:
                return register(connection, new)

    def _free_name(self, downloaded: Download) -> str | None:
        """The name of a downloaded model: its own, unless another model has that."""
        try:
            holder = self.find(downloaded.name)
        except (NotFound, Ambiguous):
            return downloaded.name
        return None if holder.metadata.get("source") == downloaded.source else f"{downloaded.name}-{rows.new_id()[:6]}"

    def add_dataset(self, path: Path | str, *, name: str, sha256: str, metadata: Mapping[str, Any] | None = None) -> Record:
        """Register an image-caption set whose content hash the caller has computed. The same content is the same record.

        A name that a reference cannot hold is written with `-` instead: it is a folder's, and the work is done already.
        """
        new = folder_registration(absolute(path), kind="dataset", name=proper_name(name), sha256=sha256, metadata=metadata)
        with self._index.writing() as connection:
            return register(connection, new)

    def add_run(
        self,
        path: Path | str,
        *,
        name: str,
        parents: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """Register a run's folder. Its checkpoints are then `name@step-300`."""
        new = folder_registration(absolute(path), kind="run", name=proper_name(name), parents=parents, recipe=recipe, metadata=metadata)
        with self._index.writing() as connection:
            return register(connection, new)

    def _embedded_named(self, embedded: str, name: str | None) -> Record:
        if name not in (None, embedded):
            path = self._embedded.paths[embedded]
            raise Refused(f"{path} is registered as {embedded!r} and keeps that name. Use `registry alias` for another.")
        return self.find(embedded)

    def scan(self, folder: Path | str, *, hash: bool = False, report: Report = silent) -> ScanReport:
        """Register the models below a folder. Reads stat and headers only, unless `hash`. See registry/index/scanning."""
        from registry.index.scanning.scan import scan  # not at the top: it imports every family

        found = scan(
            self._index, spelled(absolute(folder)), embedded=[*self._embedded.paths.values()], report=report, digest=self._digests.digest
        )
        if hash:
            found.problems += self.hash_all(found.records(), report=report)
        return found

    # --- finding

    def records(self, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> list[Record]:
        """All records, the embedded first, then oldest first, filtered by what is given. Raises Refused for an unknown kind or family."""
        validate_overrides({"kind": kind, "family": family})
        with self.listing(kind=kind, family=family, tag=tag) as found:
            return list(found)

    @contextlib.contextmanager
    def listing(self, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> Iterator[Listing]:
        """The same, composed as they are read: `len` of it, slices and iteration. One state of the index until the block ends."""
        validate_overrides({"kind": kind, "family": family})
        with self._index.reading() as connection:
            own = [
                record
                for record in self._embedded.records(connection)
                if kind in (None, record.kind) and family in (None, record.family) and (tag is None or tag in record.tags)
            ]
            ids = records.listed(connection, kind=kind, family=family, tag=tag)
            yield Listing(connection, [*(record.id for record in own), *ids], own)

    @contextlib.contextmanager
    def browse(self, selection: Selection, *, sort: str | None = None) -> Iterator[Browsed]:
        """The selected records in an order of SORTS, and how many there are of each kind, family, rank, tag, licence and warning.

        By columns alone: only the parts that are read are composed. One state of the index until the block ends. Raises Faults.
        """
        selection.check(sort)
        with self._index.reading() as connection:
            yield browse(connection, self._embedded.records(connection), selection, sort)

    def find(self, reference: str, *, kind: str | None = None, expected: str | None = None, fresh: bool = True) -> Record:
        """The one Record a reference names: `name`, `name@alias`, `name@step-300`, `sha256:<prefix>`, an id or a path.

        A path that is not in the index is inspected on the fly, not added. A file that has changed is inspected again,
        unless `fresh` is False: then the Record is as the index has it. Raises NotFound with the nearest names, Ambiguous
        with the candidates, Refused when it is of another kind. `expected` is a kind that decides between several and is suggested,
        and refuses no other.
        """
        validate_overrides({"kind": kind})
        found = self._finder.one(reference, kind, expected)
        if not fresh:
            return found
        from registry.index.scanning.refresh import refresh_record  # not at the top: it imports every family

        return refresh_record(found, self._index, self._digests.digest)

    def with_ids(self, ids: Sequence[str]) -> list[Record]:
        """The records of these ids, in this order, as the index has them; what is no id of a record is left out."""
        with self._index.reading() as connection:
            found = {record.id: record for record in [*self._embedded.records(connection), *records.load(connection, ids)]}
        return [found[id_] for id_ in dict.fromkeys(ids) if id_ in found]

    def lasting(self, reference: str) -> str:
        """The reference as it is valid from any folder: an absolute path where a path in this folder is meant, a name as it is."""
        return self._finder.lasting(reference)

    def with_hash(self, digits: str) -> list[tuple[Record, str]]:
        """(record, name of the hash) of every hashed record that has a hash of any kind that begins with these 8 or more hex digits."""
        with self._index.reading() as connection:
            pocket = self._embedded.records(connection)
        hashed = [self.hashed(record) for record in pocket]  # small, and computed once
        with self._index.reading() as connection:
            return records_by_hash(connection, hashed, digits)

    def with_size(self, size: int) -> list[Record]:
        """The records of single files of this many bytes, hashed or not."""
        place = tables.location
        with self._index.reading() as connection:
            return records.load(
                connection, {str(row[0]) for row in connection.execute(select(place.c.record_id).where(place.c.bytes == size))}
            )

    def expand(self, reference: str, *, kind: str | None = None, expected: str | None = None) -> list[Record]:
        """The Records of `name@step-*` in the order of their steps, or of `name@key=*` in the order of the values.

        `*` may stand in both: `ink@lora.rank=*@step-300`. Any other reference gives the one that `find` gives.
        """
        return [one if isinstance(one, Record) else self.find(one, kind=kind, expected=expected) for one in self._finder.expand(reference)]

    def search(self, words: Sequence[str]) -> list[Record]:
        """Records that contain every word, ignoring case, in name, tags, notes, triggers, evidence, path, hashes or metadata."""
        with self.searched(words) as found:
            return list(found)

    @contextlib.contextmanager
    def searched(self, words: Sequence[str]) -> Iterator[Listing]:
        """The same, composed as they are read. One state of the index until the block ends."""
        with self._index.reading() as connection:
            yield search(connection, self._embedded, words)

    def duplicates(self) -> list[Duplicate]:
        """Duplicates among the hashed records: the same files, and the same weights in any dialect."""
        return duplicates(self.records())

    def holds(self, paths: Iterable[Path]) -> bool:
        """Whether one of these absolute paths is a record's own place. What merely lies there is not looked at."""
        wanted = [str(path) for path in paths]
        if not self._index.is_there():
            return False
        with self._index.reading() as connection:
            found = select(tables.location.c.path).where(tables.location.c.path.in_(wanted)).limit(1)
            return connection.execute(found).first() is not None

    # --- hashes

    def sha256(self, record: Record, *, report: Report = silent) -> str:
        """The sha256 of a Record's file, or of its folder's sorted 'relative path, sha256' lines; computed once."""
        known = record.hashes.sha256
        if known and (record.kind in ("dataset", "run") or self._digests.unchanged(record)):
            return known
        if record.kind in ("dataset", "run"):
            raise Refused(f"{record.name} is a {record.kind} without a hash; models, and datasets that were trained on, have one.")
        return str(self.hashed(record, whole=False, report=report).hashes.sha256)

    def is_hashed(self, record: Record) -> bool:
        """Whether a model's hashes are known, so that asking for them reads none of its files."""
        return record.hashes.sha256 is not None or self._digests.unchanged(record)

    def file_sha256(self, path: Path) -> str:
        """The sha256 of any file, cached until its stat changes. Raises BadFile."""
        return str(self._digests.of_file(absolute(path), silent)[0].sha256)

    def remember(self, path: Path | str, hashes: Hashes, learned: Mapping[str, Any]) -> None:
        """Cache the hashes that a writer computed while it wrote: the file is not read again until it changes."""
        self._digests.remember(absolute(path), hashes, learned)

    def hashed(self, record: Record, *, whole: bool = True, report: Report = silent) -> Record:
        """The Record with its hashes, computed and cached unless they are known for the current files.

        Not `whole`: a large file that is no adapter may lack its kohya and BLAKE3, which nothing but a question for them needs.
        """
        if record.kind in ("dataset", "run"):
            return record
        hashes, learned = self._digests.of_record(record, report, whole=whole)
        if record.id in ("", *EMBEDDED):
            return records.with_content(record, hashes, learned)
        try:
            with self._index.writing() as connection:
                rows.put_content(connection, record.id, hashes, learned)
                found = records.load(connection, [record.id])
        except WriteFailed as error:
            if error.errno not in NOT_TAKEN:
                raise
            return records.with_content(record, hashes, learned)  # an index that can only be read
        return seen_at(found[0], Path(record.path or "")) if found else replace(record, hashes=hashes)

    def hash_all(self, records: Sequence[Record], *, report: Report = silent) -> list[Problem]:
        """Hash the models among the records, storing as it goes; those that cannot be read are given back."""
        return self._digests.fill(records, report)

    def hash_rest(self, *, report: Report = silent) -> int:
        """Compute the kohya hash and BLAKE3 of the large files that nobody has asked for them yet; gives of how many."""
        with self._index.reading() as connection:
            found = records.load(connection, ids_hashed_in_part(connection))
        there = [record for record in found if record.path and os.path.exists(record.path)]
        return len([self.hashed(record, report=report) for record in there])

    def verify(self, record: Record, *, report: Report = silent) -> Check:
        """Hash all files of a Record again, without the cache, and compare with the registered hash.

        `rotten` is a file whose content changed while its size and times did not. A record without a hash gets one.
        """
        check = verify(record, self._digests, report)
        if check.status == "new":
            self.hashed(record, whole=False, report=report)
        return check

    # --- removing, blobs

    def remove(self, reference: str, *, delete_files: bool = False) -> Removed:
        """Remove a record and its annotations. Its files stay where they are.

        With `delete_files`, files that loraloom wrote or downloaded and that have not changed since are deleted. Raises Refused for
        the embedded base, for what is not registered, and where `delete_files` may delete nothing.
        """
        record = self._registered(reference)
        if record.id in EMBEDDED:
            raise Refused(f"{record.id!r} is part of LoRA Loom and cannot be removed.")
        derived = self.lineage(record.id).derived
        files = managed_files(record, self.blobs, self._digests) if delete_files else []
        with self._index.writing() as connection:
            rows.forget(connection, record.id)
        delete(files)
        return Removed(record, derived, tuple(str(path) for path in files))

    def garbage(self, *, apply: bool = False, missing: bool = False, caches: bool = False, elsewhere: bool = False) -> Garbage:
        """Unreferenced files and rows; with `apply` they are deleted. See registry/index/storage/gc."""
        found = find_garbage(self._index, self.blobs, self.home, missing=missing, caches=caches, elsewhere=elsewhere)
        return sweep(found, self._index, self.blobs) if apply else found

    def fetch(self, reference: str, *, report: Report = silent) -> Record:
        """Restore a record's missing file from the blob store, or download it again from its source."""
        record = self.find(reference, fresh=False)
        if record.path and os.path.exists(record.path):
            return record
        digest = record.hashes.sha256
        kept = self.blobs.fetch(digest, report) if digest and "root" not in record.metadata else None
        if kept is not None:
            return self.add(kept, sha256=digest, name=record.name if without_alias(record.name) == record.name else None, report=report)
        source = record.metadata.get("source")
        if source is None:
            raise NotFound(f"{record.name} is not in {self.blobs.shown}, and it has no source to download it from.")
        return self.add(str(source), sha256=digest, report=report)

    def keep(self, reference: str, *, report: Report = silent) -> list[str]:
        """Copy a record's files into the blob store; gives their addresses there."""
        record = self.hashed(self._registered(reference), whole=False, report=report)
        return keep_files(record, self.blobs, report)

    def rebuild(self, *, hash: bool = False, report: Report = silent) -> Rebuilt:
        """Derive the index again from the files, after a damaged one is restored from its backup. With `hash`, hash all files again."""
        done = rebuild(self._index, report, hash=hash)
        for record in self.records() if hash else ():
            if record.hashes.sha256 and record.path and os.path.exists(record.path):
                self.hashed(record, whole=False, report=report)
        return done

    def lineage(self, reference: str) -> Lineage:
        """The ancestors of a record, to the roots; a parent that is not registered is a named hole."""
        record = self.find(reference)
        with self._index.reading() as connection:
            embedded = self._embedded.records(connection)
            having = records.load(connection, rows.ids_with_parents(connection, words_of(record)))

            def resolve(parent: Mapping[str, Any]) -> Record | None:
                return next(iter(self._finder.parent(connection, parent)), None)

            return trace(record, resolve, having, lambda name: [*embedded, *records.load(connection, rows.ids_called(connection, name))])


__all__ = ["Check", "Store", "check_name"]
