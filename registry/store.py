"""The Store: what is registered on this machine, found again by name, alias, hash or path, with what it was made from.

Names are apart for models, datasets and runs. A name that is given again goes to the newer record; the older one stays
reachable as `name@<when it was registered>`, 20261123-184500. The same content is one record, however often it is added.
Nothing of the user's is moved or changed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete

from registry import index as tables
from registry import rows
from registry.checkpoints import checkpoint_folders, checkpoint_step
from registry.detect import inspect
from registry.errors import Ambiguous, BadFile, NotFound, Refused
from registry.folder import folder_files
from registry.hashing import folder_sha256, hash_file
from registry.home import home_dir, pocket_dir
from registry.index import Index
from registry.lineage import Lineage, trace
from registry.names import suggest
from registry.progress import Report, silent
from registry.record import KINDS, FileEntry, Hashes, Record
from registry.references import is_hash, looks_like_path, split_alias
from registry.scan import ScanReport, scan

POCKET = "pocket"  # the embedded base: always there, never written to
NAME = re.compile(r"[^\s@+:/\\\x00-\x1f](?:[^@+:/\\\x00-\x1f]*[^\s@+:/\\\x00-\x1f])?")


@dataclass(frozen=True)
class Check:
    """What verifying a Record gave: ok, new, skipped, changed, rotten or missing."""

    name: str
    status: str
    message: str

    @property
    def good(self) -> bool:
        return self.status in ("ok", "new", "skipped")


class Store:
    """The index in a home folder. Opened at the first use; safe for several processes at once."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home) if home is not None else home_dir()
        self._index = Index(self.home / "index.sqlite")
        self._pocket_seen: Record | None = None

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
        report: Report = silent,
    ) -> Record:
        """Register a model file or folder, hashed, and give its Record. What is not given stays as it was said before.

        The same content anywhere is the same record: it gets the new place and name beside the old ones. Raises BadFile for
        what is no model, Refused for a name that cannot be one.
        """
        path = _absolute(path)
        check_name(name)
        _check_kind(kind)
        if path == _absolute(pocket_dir()):
            return self._pocket_named(name)
        seen = _folder_record(path, kind) if kind in ("dataset", "run") else inspect(path)
        hashes, learned = self._hash(seen, report)
        said = {"kind": kind, "family": family, "licence": licence, "notes": notes, **_plain(parents, recipe, metadata)}
        with self._index.writing() as connection:
            record_id = self._same(connection, str(path), hashes.sha256, kind or seen.kind) or rows.new_id()
            rows.put_record(connection, replace(seen, id=record_id))
            rows.put_place(connection, record_id, rows.place_of(path))
            if hashes.sha256:
                rows.put_content(connection, record_id, hashes, learned)
            rows.put_given(connection, record_id, said)
            if name:
                rows.put_name(connection, record_id, name, rows.shelf_of(kind or seen.kind))
            rows.put_labels(connection, record_id, "tag", tags)
            rows.put_labels(connection, record_id, "trigger", triggers)
            return rows.load(connection, [record_id])[0]

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
        path, name = _absolute(path), proper_name(name)
        seen = Record(id="", name=path.name, kind=kind, metadata={"root": str(path)})
        said = {"kind": kind, **_plain(parents, recipe, metadata)}
        with self._index.writing() as connection:
            record_id = self._same(connection, str(path), sha256, kind) or rows.new_id()
            rows.put_record(connection, replace(seen, id=record_id))
            rows.put_place(connection, record_id, rows.place_of(path))
            if sha256:
                rows.put_content(connection, record_id, Hashes(sha256=sha256), {})
            rows.put_given(connection, record_id, said)
            rows.put_name(connection, record_id, name, rows.shelf_of(kind))
            return rows.load(connection, [record_id])[0]

    def _same(self, connection: Connection, path: str, sha256: str | None, kind: str) -> str | None:
        """The id of the record this is: the same content of the same kind, else what lies in the same place.

        A changed dataset is another dataset, so that what was made from the first can still name it.
        """
        shelf = rows.shelf_of(kind)
        same = rows.load(connection, rows.ids_by_sha256(connection, sha256)) if sha256 else []
        there = rows.load(connection, rows.ids_by_path(connection, path)) if kind != "dataset" else []
        known = [record for record in same if record.hashes.sha256 == sha256] + there
        return next((record.id for record in known if rows.shelf_of(record.kind) == shelf), None)

    def _pocket_named(self, name: str | None) -> Record:
        if name not in (None, POCKET):
            raise Refused(f"{pocket_dir()} is registered as 'pocket' and keeps that name. Use `registry alias` for another.")
        return self.find(POCKET)

    def scan(self, folder: Path | str, *, hash: bool = False, report: Report = silent) -> ScanReport:
        """Look through a folder and its subfolders for models: stat and headers only, unless `hash`. See registry/scan."""
        found = scan(
            self._index,
            _absolute(folder),
            pocket=_absolute(pocket_dir()),
            report=report,
            digest=lambda place: self._digest(Path(place), silent)[0],
        )
        if hash:
            for record in found.records():
                self.sha256(record, report=report)
        return found

    # --- finding

    def records(self, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> list[Record]:
        """Everything registered, `pocket` first, then oldest first; narrowed by what is given."""
        _check_kind(kind)
        with self._index.reading() as connection:
            found = [*self._pocket(connection), *rows.load(connection)]
        return [r for r in found if kind in (None, r.kind) and family in (None, r.family) and (tag is None or tag in r.tags)]

    def find(self, reference: str, *, kind: str | None = None, fresh: bool = True) -> Record:
        """The one Record a reference names: `name`, `name@alias`, `name@step-300`, `sha256:<prefix>`, an id or a path.

        A path that is not in the index is inspected on the fly, not added. A file that was written to is looked at again,
        unless `fresh` is False: then the Record is as the index has it. Raises NotFound with the nearest names, Ambiguous
        with the candidates, Refused when it is of another kind.
        """
        _check_kind(kind)
        found = self._candidates(reference)
        if len({record.id or record.path for record in found}) > 1:
            found = _narrowed(found, kind)
        if not found:
            raise self._not_found(reference, kind)
        if len(found) > 1:
            raise Ambiguous("\n".join([f"{reference!r} names {len(found)} records. Use one of these:", *map(_line, found)]))
        if kind is not None and found[0].kind != kind:
            raise Refused(_wrong_kind(reference, found[0], kind))
        return self._fresh(found[0]) if fresh else found[0]

    def search(self, words: Sequence[str]) -> list[Record]:
        """Records that hold every word, in whatever case: in name, aliases, tags, notes, triggers, kind, family, path, title."""
        wanted = [word.lower() for word in words]
        return [record for record in self.records() if all(word in _text_of(record) for word in wanted)]

    def expand(self, reference: str, *, kind: str | None = None) -> list[Record]:
        """The Records of `name@step-*` in the order of their steps; of any other reference the one that `find` gives."""
        name, alias = split_alias(reference)
        if alias != "step-*":
            return [self.find(reference, kind=kind)]
        found = self._steps(name)
        if not found:
            raise NotFound(
                f"{reference!r} names no checkpoint: no run called {name!r} with a checkpoints folder is registered. {self._nearest(name)}"
            )
        return [record for _, record in sorted(found.items())]

    def _candidates(self, reference: str) -> list[Record]:
        prefix = is_hash(reference)
        if prefix is not None:
            return self._by_hash(prefix)
        found = [] if looks_like_path(reference) else self._by_name(reference)
        if found:
            return found
        return self._by_path(reference) or self._by_name(reference)

    def _by_hash(self, prefix: str) -> list[Record]:
        with self._index.reading() as connection:
            found = rows.load(connection, rows.ids_by_sha256(connection, prefix))
            pocket = self._pocket(connection)
        found += [record for record in pocket if self.sha256(record).startswith(prefix)]
        by_content: dict[str | None, Record] = {}
        for record in found:
            by_content.setdefault(record.hashes.sha256, record)  # one content under two names is one thing
        return list(by_content.values())

    def _by_name(self, reference: str) -> list[Record]:
        with self._index.reading() as connection:
            if reference == POCKET:
                return self._pocket(connection)
            given, stems = rows.ids_by_name(connection, reference)
            name, alias = split_alias(reference)
            ids = given or (rows.ids_by_alias(connection, name, alias) if alias else []) or stems
            if ids:
                return rows.load(connection, ids)
            if re.fullmatch("[0-9a-f]{16}", reference):
                return rows.load(connection, [reference])
        step = checkpoint_step(alias) if alias else None
        if step is not None:
            return [record for number, record in self._steps(name).items() if number == step]
        return []

    def _by_path(self, reference: str) -> list[Record]:
        path = _absolute(reference)
        if not path.exists():
            return []
        with self._index.reading() as connection:
            if path == _absolute(pocket_dir()):
                return self._pocket(connection)
            known = rows.load(connection, rows.ids_by_path(connection, str(path)))
        if known:
            return [_at(record, path) for record in known]
        return [inspect(path)]

    def _steps(self, name: str) -> dict[int, Record]:
        """Step -> checkpoint of the newest run of that name, inspected on the fly."""
        with self._index.reading() as connection:
            runs = [record for record in rows.load(connection, rows.ids_by_name(connection, name)[0]) if record.kind == "run"]
            adapters = [record for record in rows.load(connection, rows.ids_by_name(connection, name)[0]) if record.kind == "adapter"]
            for adapter in adapters:
                for parent in adapter.parents:
                    if parent.get("role") == "run" and not runs:
                        runs += [record for record in self._parent(connection, parent) if record.kind == "run"]
        found: dict[int, Record] = {}
        for run in runs:
            for step, file in checkpoint_folders(Path(run.path or "")).items():
                parents = ({"role": "run", "ref": run.name, "sha256": None},)
                found[step] = replace(inspect(file), name=f"{name}@step-{step}", parents=parents)
        return found

    def _fresh(self, record: Record) -> Record:
        """The record of a file that was written to since: looked at again. Folders are looked at by a scan."""
        path = record.path
        if not record.id or "root" in record.metadata or path is None or not os.path.isfile(path):
            return record
        place = rows.place_of(path)
        with self._index.reading() as connection:
            if rows.is_known(connection, place):
                return record
        seen = inspect(path)
        with self._index.writing() as connection:
            rows.put_record(connection, replace(seen, id=record.id))
            rows.put_place(connection, record.id, place)
            rows.drop_content(connection, record.id)
            return rows.load(connection, [record.id])[0]

    def _not_found(self, reference: str, kind: str | None) -> NotFound:
        what = kind or "model"
        if looks_like_path(reference):
            return NotFound(
                f"There is no file or folder {reference!r}, and no {what} is registered under that name. {self._nearest(reference)}"
            )
        return NotFound(f"No {what} is registered as {reference!r}, and no file is called so. {self._nearest(reference)}")

    def _nearest(self, reference: str) -> str:
        with self._index.reading() as connection:
            return suggest(reference, [*rows.all_names(connection), *(record.name for record in self._pocket(connection))])

    def _pocket(self, connection: Connection) -> list[Record]:
        """The embedded base as a Record, when it is there; its hash when it is known already."""
        path = _absolute(pocket_dir())
        if not (path / "model_index.json").is_file():
            return []
        if self._pocket_seen is None or self._pocket_seen.path != str(path):
            self._pocket_seen = replace(inspect(path), id=POCKET, name=POCKET)
        seen = self._pocket_seen
        files = _hashed_files(seen)
        known = rows.cached_hashes(connection, map(rows.place_of, files))
        composed = rows.compose(seen, rows.gather(connection, [POCKET]))
        digests = {path: hashes.sha256 for path, (hashes, _) in known.items() if hashes.sha256}
        if len(digests) == len(files):
            hashes, learned = _folder_hashes(path, digests)
            composed = replace(composed, hashes=hashes, metadata={**composed.metadata, **learned["metadata"]})
        return [replace(composed, licence=composed.licence or _licence_of(path))]

    # --- hashes

    def sha256(self, record: Record, *, report: Report = silent) -> str:
        """The sha256 of a Record's file, or of its folder's sorted 'relative path, sha256' lines; computed once."""
        known = record.hashes.sha256
        if known and (record.kind in ("dataset", "run") or self._unchanged(record)):
            return known
        if record.kind in ("dataset", "run"):
            raise Refused(f"{record.name} is a {record.kind} without a hash; models, and datasets that were trained on, have one.")
        return str(self.hashed(record, report=report).hashes.sha256)

    def hashed(self, record: Record, *, report: Report = silent) -> Record:
        """The Record with its hashes, computed and kept when they are not known for the files as they are."""
        if record.kind in ("dataset", "run"):
            return record
        hashes, learned = self._hash(record, report)
        if record.id in ("", POCKET):
            return rows.with_content(record, hashes, learned)
        with self._index.writing() as connection:
            rows.put_content(connection, record.id, hashes, learned)
            found = rows.load(connection, [record.id])
        return _at(found[0], Path(record.path or "")) if found else replace(record, hashes=hashes)

    def _unchanged(self, record: Record) -> bool:
        """Whether the cache knows every file as it is now."""
        with self._index.reading() as connection:
            try:
                places = [rows.place_of(path) for path in _hashed_files(record)]
            except OSError:
                return True  # the file is gone: its hash is what is left of it
            return len(rows.cached_hashes(connection, places)) == len(places)

    def _hash(self, record: Record, report: Report) -> tuple[Hashes, dict[str, Any]]:
        if "root" not in record.metadata:
            return self._digest(Path(str(record.path)), report)
        root = Path(str(record.path))
        return _folder_hashes(root, {path: self._digest(Path(path), report)[0].sha256 for path in _hashed_files(record)})

    def _digest(self, path: Path, report: Report) -> tuple[Hashes, dict[str, Any]]:
        """(hashes, what was learned) of one file, from the cache when the system says that it has not changed."""
        try:
            place = rows.place_of(path)
        except OSError as error:
            raise BadFile(path, "unreadable", f"cannot be read: {error.strerror}.") from error
        with self._index.reading() as connection:
            known = rows.cached_hashes(connection, [place]).get(str(path))
        if known is not None:
            return known
        hashes, learned = hash_file(path, report=report)
        if rows.place_of(path).signature != place.signature:
            raise BadFile(path, "unreadable", "changed while it was read. Try again when it is finished.")
        with self._index.writing() as connection:
            rows.cache_hashes(connection, place, hashes, learned)
        return hashes, learned

    def verify(self, record: Record, *, report: Report = silent) -> Check:
        """Read all files of a Record again, whatever the cache knows, against the hash it was registered with.

        `rotten` is a file that changed while the system says that nobody wrote to it.
        """
        known = record.hashes.sha256
        path = Path(str(record.path))
        if not path.exists():
            return Check(record.name, "missing", f"{path} is not there")
        if record.kind in ("dataset", "run"):
            return Check(record.name, "skipped", f"a {record.kind} is checked by the job that uses it")
        if known is None:
            self.hashed(record, report=report)
            return Check(record.name, "new", "it had no hash yet; it has one now")
        unwritten = self._unchanged(record)
        digests: dict[str, str | None] = {file: hash_file(file, report=report)[0].sha256 for file in _hashed_files(record)}
        found = _folder_hashes(path, digests)[0].sha256 if "root" in record.metadata else digests[str(path)]
        if found == known:
            return Check(record.name, "ok", f"sha256:{known[:12]}")
        if unwritten:
            return Check(
                record.name, "rotten", f"its bytes changed though nobody wrote to it: sha256:{known[:12]} became {str(found)[:12]}"
            )
        return Check(record.name, "changed", f"it was written to since it was registered: sha256:{known[:12]} became {str(found)[:12]}")

    # --- what people say

    def tag(self, reference: str, add: Iterable[str] = (), *, remove: Iterable[str] = ()) -> Record:
        """Add and remove tags."""
        taken = list(remove)

        def change(connection: Connection, record_id: str) -> None:
            rows.put_labels(connection, record_id, "tag", add)
            table = tables.label
            connection.execute(delete(table).where(table.c.record_id == record_id, table.c.kind == "tag", table.c.value.in_(taken)))

        return self._change(reference, change)

    def note(self, reference: str, text: str) -> Record:
        """Keep a note; it takes the place of the one before."""
        return self._change(reference, lambda connection, record_id: rows.put_given(connection, record_id, {"notes": text}))

    def alias(self, reference: str, alias: str) -> Record:
        """Let `name@alias` mean this record; an alias of that name moves here from the record that had it."""
        check_name(alias)
        if checkpoint_step(alias) is not None:
            raise Refused(f"{alias!r} cannot be an alias: step-<number> means a run's checkpoint.")
        name = self.find(reference).name.partition("@")[0]
        return self._change(reference, lambda connection, record_id: rows.put_alias(connection, record_id, name, alias))

    def remove(self, reference: str) -> Record:
        """Forget a record and what was said of it. Its files stay where they are."""
        record = self._registered(reference)
        if record.id == POCKET:
            raise Refused("'pocket' is part of LoRA Loom and cannot be removed.")
        with self._index.writing() as connection:
            rows.forget(connection, record.id)
        return record

    def _change(self, reference: str, change: Callable[[Connection, str], None]) -> Record:
        record = self._registered(reference)
        with self._index.writing() as connection:
            change(connection, record.id)
        return self.find(POCKET if record.id == POCKET else record.id)

    def _registered(self, reference: str) -> Record:
        record = self.find(reference)
        if not record.id:
            raise Refused(f"{reference} is not registered. Add it first: loraloom registry add {reference}")
        return record

    # --- what it was made from

    def lineage(self, reference: str) -> Lineage:
        """What a record was made from, to the roots; a parent that is not registered is a named hole."""
        record = self.find(reference)
        with self._index.reading() as connection:
            everything = [*self._pocket(connection), *rows.load(connection)]
            return trace(record, lambda parent: next(iter(self._parent(connection, parent)), None), everything)

    def _parent(self, connection: Connection, parent: Mapping[str, Any]) -> list[Record]:
        """The record a parent entry means: by its hash, else by its name when no hash says otherwise."""
        digest, ref = parent.get("sha256"), parent.get("ref")
        if digest:
            found = rows.load(connection, rows.ids_by_sha256(connection, str(digest)))
            pocket = self._pocket(connection)
            found += [record for record in pocket if self.sha256(record) == digest]
            return found[:1]
        if not ref:
            return []
        if ref == POCKET:
            return self._pocket(connection)
        name, alias = split_alias(str(ref))
        ids = rows.ids_by_path(connection, str(ref)) or (rows.ids_by_alias(connection, name, alias) if alias else [])
        ids = ids or rows.ids_by_name(connection, str(ref))[0] or rows.ids_by_name(connection, str(ref))[1]
        found = rows.load(connection, ids)
        wanted = [record for record in found if rows.shelf_of(record.kind) == rows.shelf_of(str(parent.get("role")))]
        return wanted if len(wanted) == 1 else []


# --- small pieces


def check_name(name: str | None) -> None:
    """Refuse a name that a reference could not be written with."""
    if name is None:
        return
    if not NAME.fullmatch(name) or name.lower() == "none":
        raise Refused(f"{name!r} cannot be a name. Use letters, digits, spaces, `.`, `-` and `_`; not @ + : / \\, and not 'none'.")
    if name == POCKET:
        raise Refused("'pocket' is the name of the embedded base. Choose another name.")


def proper_name(text: str) -> str:
    """A folder's name as one that references can hold: what they cannot is a `-`."""
    name = re.sub(r"[@+:/\\\x00-\x1f]", "-", text).strip() or "unnamed"
    return f"{name}-" if name.lower() == "none" else name


def _check_kind(kind: str | None) -> None:
    if kind is not None and kind not in KINDS:
        raise Refused(f"Unknown kind {kind!r}. {suggest(kind, KINDS)}")


def _absolute(path: Path | str) -> Path:
    """The path without `..` and `~`; links stay, since people name things by them."""
    return Path(os.path.abspath(os.path.expanduser(path)))


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


def _hashed_files(record: Record) -> list[str]:
    """The files that make up a record's hash, as they are now."""
    return [str(file) for file in folder_files(Path(str(record.path)))] if "root" in record.metadata else [str(record.path)]


def _folder_hashes(root: Path, digests: Mapping[str, str | None]) -> tuple[Hashes, dict[str, Any]]:
    """A folder's own sha256, and beside it the one of each file."""
    files = {Path(path).relative_to(root).as_posix(): str(digest) for path, digest in digests.items()}
    return Hashes(sha256=folder_sha256(files)), {"metadata": {"files_sha256": dict(sorted(files.items()))}}


def _licence_of(path: Path) -> str | None:
    """The licence in a folder's model card, where its head names one."""
    card = path / "README.md"
    if not card.is_file():
        return None
    found = re.match(r"---\n(?:.*\n)*?license:\s*(\S+)\s*\n(?:.*\n)*?---", card.read_text("utf-8", errors="replace")[:4000])
    return found[1] if found else None


def _at(record: Record, path: Path) -> Record:
    """The record seen from one of its places."""
    if "root" in record.metadata or record.path == str(path) or not record.files:
        return record
    return replace(record, files=(replace(record.files[0], path=str(path)),))


def _narrowed(found: list[Record], kind: str | None) -> list[Record]:
    """Of several, those of the kind that is asked for; without one, models before runs and datasets."""
    if kind is not None:
        return [record for record in found if record.kind == kind] or found
    return [record for record in found if record.kind not in ("dataset", "run")] or found


def _line(record: Record) -> str:
    digest = f"sha256:{record.hashes.sha256[:12]}" if record.hashes.sha256 else record.id
    return f"  - {digest}  {record.name}  {record.kind} {record.family or ''}  {record.path or ''}"


def _text_of(record: Record) -> str:
    words = [record.name, *record.aliases, *record.tags, *record.triggers, record.notes, record.kind, record.family, record.variant]
    words += [record.dialect, *record.algorithms, record.path, record.licence, *(record.metadata.get(key) for key in SEARCHED)]
    return "\n".join(str(word) for word in words if word).lower()


SEARCHED = ("modelspec.title", "modelspec.author", "modelspec.description", "ss_output_name", "ss_sd_model_name")


def _wrong_kind(reference: str, record: Record, kind: str) -> str:
    seen = f" ({record.evidence[0]})" if record.evidence else ""
    article = "an" if record.kind[0] in "aeiou" else "a"
    return f"{reference} is {article} {record.kind}{seen}; {'an' if kind[0] in 'aeiou' else 'a'} {kind} was expected."


__all__ = ["Check", "Store", "check_name"]
