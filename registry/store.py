"""The Store: what is registered on this machine, found again by name, alias, hash or path, with what it was made from.

Names are apart for models, datasets and runs. A name that is given again goes to the newer record; the older one stays
reachable as `name@<when it was registered>`, 20261123-184500. The same content is one record, however often it is added.
Nothing of the user's is moved or changed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy import delete as delete_rows

from registry.detect.inspect import inspect
from registry.detect.model_card import card_licence
from registry.errors import Ambiguous, BadFile, NotFound, Refused
from registry.formats.model_folder import folder_files
from registry.home import home_dir, index_place
from registry.index import database as tables
from registry.index import records, rows
from registry.index.database import Index
from registry.index.duplicates import Duplicate, duplicates
from registry.index.embedded import Embedded
from registry.index.lineage import Lineage, trace
from registry.index.lookup import Finder, seen_at
from registry.index.notes_file import Imported, apply, match, notes_of, read_notes
from registry.index.overrides import validate_overrides, write_overrides
from registry.index.run_checkpoints import checkpoint_step
from registry.index.scanning.rebuild import Rebuilt, rebuild
from registry.index.scanning.record_matcher import place_with_fingerprint
from registry.index.scanning.refresh import refresh_record
from registry.index.scanning.scan import ScanReport, scan
from registry.index.search import search
from registry.index.storage.blobs import Blobs
from registry.index.storage.gc import Garbage, find_garbage, sweep
from registry.index.storage.hash_cache import Digests
from registry.index.storage.managed_files import Removed, delete, own_files
from registry.index.storage.verify import Check, verify
from registry.names import suggest
from registry.progress import Report, silent
from registry.record import FileEntry, Hashes, Record
from registry.references import POCKET, absolute, check_alias, check_name, proper_name, spelled, split_alias, without_alias
from registry.sources.source import Download, bring, check_expected, is_source


class Store:
    """The index of a home folder, or the one $LORALOOM_INDEX names. Opened at the first use; safe for several processes at once."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home) if home is not None else home_dir()
        self._index = Index(index_place(self.home))
        self._digests = Digests(self._index)
        self._embedded = Embedded()
        self.blobs = Blobs(self.home)
        self._finder = Finder(self._index, self._digests, self._embedded)

    @property
    def index_shown(self) -> str:
        """Where the index lies, without a password."""
        return self._index.shown

    def count(self) -> int | None:
        """How many records the index has; None where it is a file that is not made yet."""
        if not self._index.is_there():
            return None
        with self._index.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.record)).scalar_one())

    def close(self) -> None:
        """Let go of the index file."""
        self._index.close()

    # --- putting in

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
        """Register a model file or folder, hashed, and give its Record. What is not given stays as it was said before.

        `hf:owner/repo[@revision][/file]` and an https address, with the `sha256` its file has, are brought to this machine first.
        The same content anywhere is the same record: it gets the new place and name beside the old ones. Raises BadFile for
        what is no model, Refused for a name that cannot be one, JobFailed where a network or a disk is in the way.
        """
        check_name(name)
        validate_overrides({"kind": kind, "family": family})
        expected = {str(absolute(path)): sha256} if sha256 else {}
        with contextlib.ExitStack() as stack:
            if is_source(str(path)):
                stack.enter_context(self.blobs.downloading())
                downloaded = bring(str(path), sha256=sha256, home=self.home, blobs=self.blobs, report=report)
                path, expected = downloaded.path, downloaded.expected
                name, licence = name or self._free_name(downloaded), licence or downloaded.licence
                metadata = {
                    **(metadata or {}),
                    "source": downloaded.source,
                    **({"source_commit": downloaded.commit} if downloaded.commit else {}),
                }
            path = spelled(absolute(path))
            if path == self._embedded.path:
                return self._pocket_named(name)
            if recipe is not None:  # only a job gives one: the file is its own
                metadata = {**(metadata or {}), "made_at": str(path)}
            seen = _folder_record(path, kind) if kind in ("dataset", "run") else inspect(path)
            hashes, learned = self._digests.of_record(seen, report)
            check_expected(expected, path, hashes, learned)
            said = {"kind": kind, "family": family, "licence": licence, "notes": notes, **_plain(parents, recipe, metadata)}
            with self._index.writing() as connection:
                record_id = self._same(connection, str(path), hashes.sha256, kind or seen.kind) or rows.new_id()
                rows.put_record(connection, replace(seen, id=record_id))
                rows.put_place(connection, record_id, place_with_fingerprint(path))
                if hashes.sha256:
                    rows.put_content(connection, record_id, hashes, learned)
                rows.put_given(connection, record_id, said)
                if name:
                    rows.put_name(connection, record_id, name, rows.shelf_of(kind or seen.kind))
                rows.put_labels(connection, record_id, "tag", tags)
                rows.put_labels(connection, record_id, "trigger", triggers)
                return records.load(connection, [record_id])[0]

    def _free_name(self, downloaded: Download) -> str | None:
        """The name a source's file may have: its own, unless another model has that."""
        try:
            holder = self.find(downloaded.name)
        except (NotFound, Ambiguous):
            return downloaded.name
        return None if holder.metadata.get("source") == downloaded.source else f"{downloaded.name}-{rows.new_id()[:6]}"

    def add_dataset(self, path: Path | str, *, name: str, sha256: str, metadata: Mapping[str, Any] | None = None) -> Record:
        """Register an image-caption set whose content hash the caller has computed. The same content is the same record.

        A name that a reference cannot hold is written with `-` instead: it is a folder's, and the work is done already.
        """
        return self._add_folder(path, kind="dataset", name=name, sha256=sha256, metadata=metadata)

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
        return self._add_folder(path, kind="run", name=name, parents=parents, recipe=recipe, metadata=metadata)

    def _add_folder(
        self,
        path: Path | str,
        *,
        kind: str,
        name: str,
        sha256: str | None = None,
        parents: Sequence[Mapping[str, Any]] = (),
        recipe: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        path, name = absolute(path), proper_name(name)
        seen = Record(id="", name=path.name, kind=kind, licence=card_licence(path), metadata={"root": str(path)})
        said = {"kind": kind, **_plain(parents, recipe, metadata)}
        with self._index.writing() as connection:
            record_id = self._same(connection, str(path), sha256, kind) or rows.new_id()
            rows.put_record(connection, replace(seen, id=record_id))
            rows.put_place(connection, record_id, rows.place_of(path))
            if sha256:
                rows.put_content(connection, record_id, Hashes(sha256=sha256), {})
            rows.put_given(connection, record_id, said)
            rows.put_name(connection, record_id, name, rows.shelf_of(kind))
            return records.load(connection, [record_id])[0]

    def _same(self, connection: Connection, path: str, sha256: str | None, kind: str) -> str | None:
        """The id of the record this is: the same content of the same kind, else what lies in the same place.

        A changed dataset is another dataset, so that what was made from the first can still name it.
        """
        shelf = rows.shelf_of(kind)
        same = records.load(connection, rows.ids_by_sha256(connection, sha256)) if sha256 else []
        there = records.load(connection, rows.ids_by_path(connection, path)) if kind != "dataset" else []
        known = [record for record in same if record.hashes.sha256 == sha256] + there
        return next((record.id for record in known if rows.shelf_of(record.kind) == shelf), None)

    def _pocket_named(self, name: str | None) -> Record:
        if name not in (None, POCKET):
            raise Refused(f"{self._embedded.path} is registered as 'pocket' and keeps that name. Use `registry alias` for another.")
        return self.find(POCKET)

    def scan(self, folder: Path | str, *, hash: bool = False, report: Report = silent) -> ScanReport:
        """Look through a folder and its subfolders for models: stat and headers only, unless `hash`. See registry/scan."""
        found = scan(
            self._index,
            absolute(folder),
            pocket=self._embedded.path,
            report=report,
            digest=self._digest,
        )
        if hash:
            found.problems += self._digests.fill(found.records(), report)
        return found

    def _digest(self, record: Record) -> Hashes:
        return self._digests.of_record(record, silent)[0]

    # --- finding

    def records(self, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> list[Record]:
        """Everything registered, `pocket` first, then oldest first; narrowed by what is given. Refuses a kind or family that is none."""
        validate_overrides({"kind": kind, "family": family})
        with self._index.reading() as connection:
            found = [*self._embedded.records(connection), *records.load(connection)]
        return [r for r in found if kind in (None, r.kind) and family in (None, r.family) and (tag is None or tag in r.tags)]

    def find(self, reference: str, *, kind: str | None = None, fresh: bool = True) -> Record:
        """The one Record a reference names: `name`, `name@alias`, `name@step-300`, `sha256:<prefix>`, an id or a path.

        A path that is not in the index is inspected on the fly, not added. A file that was written to is looked at again,
        unless `fresh` is False: then the Record is as the index has it. Raises NotFound with the nearest names, Ambiguous
        with the candidates, Refused when it is of another kind.
        """
        validate_overrides({"kind": kind})
        found = self._finder.one(reference, kind)
        return refresh_record(found, self._index, self._digest) if fresh else found

    def expand(self, reference: str, *, kind: str | None = None) -> list[Record]:
        """The Records of `name@step-*` in the order of their steps, or of `name@key=*` in the order of the values.

        `*` may stand in both: `ink@lora.rank=*@step-300`. Any other reference gives the one that `find` gives.
        """
        name, alias = split_alias(reference)
        if split_alias(name)[1] is not None and "*" in name:
            return [record for one in self._finder.names_like(name) for record in self.expand(f"{one}@{alias}", kind=kind)]
        if alias == "step-*":
            return self._finder.steps(name)
        if alias is not None and "*" in alias and "=" in alias:
            return [self.find(one, kind=kind) for one in self._finder.names_like(reference)]
        return [self.find(reference, kind=kind)]

    def search(self, words: Sequence[str]) -> list[Record]:
        """Records that hold every word, in whatever case: in name, tags, notes, triggers, what was seen, path, hashes, metadata."""
        with self._index.reading() as connection:
            return search(connection, self._embedded, words)

    def duplicates(self) -> list[Duplicate]:
        """What is there more than once, of all that is hashed: the same files, and the same weights in whatever dialect."""
        return duplicates(self.records())

    # --- hashes

    def sha256(self, record: Record, *, report: Report = silent) -> str:
        """The sha256 of a Record's file, or of its folder's sorted 'relative path, sha256' lines; computed once."""
        known = record.hashes.sha256
        if known and (record.kind in ("dataset", "run") or self._digests.unchanged(record)):
            return known
        if record.kind in ("dataset", "run"):
            raise Refused(f"{record.name} is a {record.kind} without a hash; models, and datasets that were trained on, have one.")
        return str(self.hashed(record, report=report).hashes.sha256)

    def remember(self, path: Path | str, hashes: Hashes, learned: Mapping[str, Any]) -> None:
        """Keep the hashes that a writer took as it wrote: the file is not read again for as long as it stays as it is."""
        self._digests.remember(absolute(path), hashes, learned)

    def hashed(self, record: Record, *, report: Report = silent) -> Record:
        """The Record with its hashes, computed and kept when they are not known for the files as they are."""
        if record.kind in ("dataset", "run"):
            return record
        hashes, learned = self._digests.of_record(record, report)
        if record.id in ("", POCKET):
            return records.with_content(record, hashes, learned)
        with self._index.writing() as connection:
            rows.put_content(connection, record.id, hashes, learned)
            found = records.load(connection, [record.id])
        return seen_at(found[0], Path(record.path or "")) if found else replace(record, hashes=hashes)

    def verify(self, record: Record, *, report: Report = silent) -> Check:
        """Read all files of a Record again, whatever the cache knows, against the hash it was registered with.

        `rotten` is a file that changed while the system says that nobody wrote to it. What had no hash gets one.
        """
        check = verify(record, self._digests, report)
        if check.status == "new":
            self.hashed(record, report=report)
        return check

    # --- what people say

    # It is said of the weights: what has no hash yet gets one, so that it is known again wherever its file goes.

    def tag(self, reference: str, add: Iterable[str] = (), *, remove: Iterable[str] = (), report: Report = silent) -> Record:
        """Add and remove tags."""
        taken = list(remove)

        def change(connection: Connection, record_id: str) -> None:
            rows.put_labels(connection, record_id, "tag", add)
            table = tables.label
            connection.execute(delete_rows(table).where(table.c.record_id == record_id, table.c.kind == "tag", table.c.value.in_(taken)))

        return self._change(reference, change, report)

    def note(self, reference: str, text: str, *, report: Report = silent) -> Record:
        """Keep a note; it takes the place of the one before."""
        return self._change(reference, lambda connection, record_id: rows.put_given(connection, record_id, {"notes": text}), report)

    def tell(
        self,
        reference: str,
        *,
        kind: str | None = None,
        family: str | None = None,
        variant: str | None = None,
        prediction: str | None = None,
        licence: str | None = None,
        triggers: Iterable[str] = (),
        forget: Iterable[str] = (),
        report: Report = silent,
    ) -> Record:
        """Say what detection could not see, or saw wrong: it stands above what the files show. `forget` takes back what was said."""
        values = {"kind": kind, "family": family, "variant": variant, "prediction": prediction, "licence": licence}
        validate_overrides(values)
        return self._change(
            reference, lambda connection, record_id: write_overrides(connection, record_id, values, triggers, forget), report
        )

    def alias(self, reference: str, alias: str, *, remove: bool = False, report: Report = silent) -> Record:
        """Let `name@alias` mean this record; an alias of that name moves here from the record that had it. Or take it away again."""
        check_alias(alias)
        if checkpoint_step(alias) is not None:
            raise Refused(f"{alias!r} cannot be an alias: step-<number> means a run's checkpoint.")
        record = self.find(reference)
        if not remove:
            name = without_alias(record.name)
            return self._change(reference, lambda connection, record_id: rows.put_alias(connection, record_id, name, alias), report)
        if alias not in record.aliases:
            raise Refused(f"{record.name} has no alias {alias!r}. {suggest(alias, record.aliases)}")
        return self._change(reference, lambda connection, record_id: rows.drop_alias(connection, record_id, alias), report)

    def remove(self, reference: str, *, delete_files: bool = False) -> Removed:
        """Forget a record and what was said of it. Its files stay where they are.

        With `delete_files` those that this tool made or brought, and nobody wrote to since, are deleted. Raises Refused for the
        embedded base, for what is not registered, and where `delete_files` has nothing it may delete.
        """
        record = self._registered(reference)
        if record.id == POCKET:
            raise Refused("'pocket' is part of LoRA Loom and cannot be removed.")
        derived = self.lineage(record.id).derived
        ours = own_files(record, self.blobs, self._digests) if delete_files else []
        with self._index.writing() as connection:
            rows.forget(connection, record.id)
        delete(ours)
        return Removed(record, derived, tuple(str(path) for path in ours))

    def garbage(self, *, apply: bool = False, missing: bool = False, caches: bool = False, elsewhere: bool = False) -> Garbage:
        """What nothing needs any more, and with `apply` without it: see registry/garbage."""
        found = find_garbage(self._index, self.blobs, self.home, missing=missing, caches=caches, elsewhere=elsewhere)
        return sweep(found, self._index, self.blobs) if apply else found

    def fetch(self, reference: str, *, report: Report = silent) -> Record:
        """Bring a record's file back from the blob store, or from where it came from, when it is not in its place any more."""
        record = self.find(reference, fresh=False)
        if record.path and os.path.exists(record.path):
            return record
        digest = record.hashes.sha256
        kept = self.blobs.fetch(digest, report) if digest and "root" not in record.metadata else None
        if kept is not None:
            return self.add(kept, sha256=digest, name=record.name if without_alias(record.name) == record.name else None, report=report)
        source = record.metadata.get("source")
        if source is None:
            raise NotFound(f"{record.name} is not in {self.blobs.shown}, and the index does not know where it came from.")
        return self.add(str(source), sha256=digest, report=report)

    def keep(self, reference: str, *, report: Report = silent) -> list[str]:
        """Copy a record's files into the blob store, where they stay whatever happens to them; gives their addresses there."""
        record = self.hashed(self._registered(reference), report=report)
        if record.kind in ("dataset", "run"):
            raise Refused(f"{record.name} is a {record.kind}; blobs are kept of models.")
        if "root" not in record.metadata:
            return [self.blobs.keep(Path(str(record.path)), str(record.hashes.sha256), report)]
        files = record.metadata.get("files_sha256", {})
        return [self.blobs.keep(Path(str(record.path)) / name, digest, report) for name, digest in files.items()]

    def _change(self, reference: str, change: Callable[[Connection, str], None], report: Report) -> Record:
        record = self._registered(reference)
        if record.id != POCKET and os.path.exists(str(record.path)):
            self.hashed(record, report=report)
        with self._index.writing() as connection:
            change(connection, record.id)
        return self.find(POCKET if record.id == POCKET else record.id)

    def _registered(self, reference: str) -> Record:
        record = self.find(reference)
        if not record.id:
            raise Refused(f"{reference} is not registered. Add it first: loraloom registry add {reference}")
        return record

    def export_notes(self) -> dict[str, Any]:
        """Everything that was said, as a plain document that `import_notes` reads, here or on another machine."""
        with self._index.reading() as connection:
            return notes_of(connection, [*self._embedded.records(connection), *records.load(connection)])

    def import_notes(self, path: Path | str, *, replace: bool = False, report: Report = silent) -> Imported:
        """Add what a notes file says. Models that may be meant and have no hash yet are hashed. Raises BadFile, Faults."""
        entries, done = read_notes(absolute(path)), Imported()
        sizes = {entry.get("bytes") for entry in entries if entry["hashes"].get("sha256")}
        for record in self.records():
            if record.hashes.sha256 is None and sum(one.bytes for one in record.files) in sizes and os.path.exists(str(record.path)):
                self.hashed(record, report=report)
        with self._index.writing() as connection:
            for entry in entries:
                record_id = match(connection, entry)
                if record_id is None:
                    done.unmatched.append(f"{entry['name']} ({', '.join(entry['paths']) or entry['id']})")
                else:
                    apply(connection, record_id, entry, done, replace=replace)
        return done

    def rebuild(self, *, hash: bool = False, report: Report = silent) -> Rebuilt:
        """Make the derived half of the index again from the files; what was said stays. With `hash` every hash is taken again, too."""
        done = rebuild(self._index, report, hash=hash)
        for record in self.records() if hash else ():
            if record.hashes.sha256 and record.path and os.path.exists(record.path):
                self.hashed(record, report=report)
        return done

    # --- what it was made from

    def lineage(self, reference: str) -> Lineage:
        """What a record was made from, to the roots; a parent that is not registered is a named hole."""
        record = self.find(reference)
        with self._index.reading() as connection:
            everything = [*self._embedded.records(connection), *records.load(connection)]
            return trace(record, lambda parent: next(iter(self._finder.parent(connection, parent)), None), everything)


# --- small pieces


def _plain(parents: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parents, recipe and metadata as the index keeps them; None where nothing was given."""
    lean = [{"role": parent.get("role"), "ref": parent.get("ref"), "sha256": parent.get("sha256")} for parent in parents]
    values = {"parents": lean or None, "recipe": recipe, "metadata": metadata}
    try:
        json.dumps(values)
    except (TypeError, ValueError) as error:
        raise Refused(f"recipe and metadata must be plain values (text, numbers, lists, objects): {error}") from error
    return values


def _folder_record(path: Path, kind: str) -> Record:
    if not path.is_dir():
        raise BadFile(path, "unreadable", f"is no folder; a {kind} is one.")
    files = tuple(FileEntry(path=str(file), bytes=file.stat().st_size) for file in folder_files(path)) if kind == "dataset" else ()
    return Record(id="", name=path.name, kind=kind, files=files, metadata={"root": str(path)})


__all__ = ["Check", "Store", "check_name"]
