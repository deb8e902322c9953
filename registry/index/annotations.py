"""Annotations of records by people: tags, notes, aliases, and overrides of what detection found."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select

from registry.errors import Faults, LoomError, NotFound, Refused
from registry.index import database as tables
from registry.index import rows
from registry.index.database import Index
from registry.index.notes_file import Imported, import_entries, may_match, notes_of, read_notes
from registry.index.overrides import validate_overrides, write_overrides
from registry.index.run_checkpoints import checkpoint_step
from registry.index.scanning.walk import Problem
from registry.names import suggest
from registry.printable import shell_line
from registry.progress import Report, silent
from registry.record import Record
from registry.references import EMBEDDED, absolute, check_alias, check_labels, check_name, check_texts, without_alias

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")  # endings of what is shown for a model


class Annotations(ABC):
    """The part of a Store that annotates records.

    An annotation belongs to the weights: a record without a hash gets one, so that it is known again wherever its file goes.
    """

    _index: Index

    @abstractmethod
    def find(self, reference: str, *, kind: str | None = None, fresh: bool = True) -> Record: ...

    @abstractmethod
    def records(self, *, kind: str | None = None, family: str | None = None, tag: str | None = None) -> list[Record]: ...

    @abstractmethod
    def with_ids(self, ids: Sequence[str]) -> list[Record]: ...

    @abstractmethod
    def hash_all(self, records: Sequence[Record], *, report: Report = silent) -> list[Problem]: ...

    @abstractmethod
    def hashed(self, record: Record, *, whole: bool = True, report: Report = silent) -> Record: ...

    def tag(self, reference: str, add: Iterable[str] = (), *, remove: Iterable[str] = (), report: Report = silent) -> Record:
        """Add and remove tags."""
        (record,) = self.tag_all([reference], add, remove=remove, report=report)
        return record

    def tag_all(
        self, references: Sequence[str], add: Iterable[str] = (), *, remove: Iterable[str] = (), report: Report = silent
    ) -> list[Record]:
        """Add and remove tags of several records: of all of them or, where one cannot be, of none. Raises Faults with each of these."""
        added, removed = list(add), list(remove)
        check_labels("tag", added)
        chosen = self._registered_all(references)
        unhashed = [record for record in chosen if not (record.hashes.sha256 or record.id in EMBEDDED) and os.path.exists(str(record.path))]
        if problems := self.hash_all(unhashed, report=report):
            raise Faults("No tag was changed:", [f"{problem.path}: {problem.message}" for problem in problems])
        table = tables.label
        with self._index.writing() as connection:
            for record in chosen:
                rows.put_labels(connection, record.id, "tag", added)
                gone = (table.c.record_id == record.id, table.c.kind == "tag", table.c.value.in_(removed))
                connection.execute(delete(table).where(*gone))
        return self.with_ids([record.id for record in chosen])

    def note(self, reference: str, text: str, *, report: Report = silent) -> Record:
        """Set the note, in place of the one before."""
        check_texts([text])
        return self._annotate(reference, lambda connection, record_id: rows.put_given(connection, record_id, {"notes": text}), report)

    def override(
        self,
        reference: str,
        *,
        kind: str | None = None,
        family: str | None = None,
        variant: str | None = None,
        prediction: str | None = None,
        licence: str | None = None,
        image: Path | str | None = None,
        triggers: Iterable[str] = (),
        forget: Iterable[str] = (),
        report: Report = silent,
    ) -> Record:
        """Override what detection found, or could not find. `forget` names overrides to remove. `image` is shown for the model."""
        values = {"kind": kind, "family": family, "variant": variant, "prediction": prediction, "licence": licence}
        values["image"] = None if image is None else str(existing_image(absolute(image)))
        validate_overrides(values)
        triggers = list(triggers)
        check_texts(values.values())
        check_labels("trigger word", triggers)

        def change(connection: Connection, record_id: str) -> None:
            write_overrides(connection, record_id, values, triggers, forget)

        return self._annotate(reference, change, report)

    def alias(self, reference: str, alias: str, *, of: str | None = None, remove: bool = False, report: Report = silent) -> Record:
        """Let `name@alias` mean this record; the alias moves here from another record of that name. With `remove`, delete the alias.

        The name is the record's own, or `of`: a chosen checkpoint is `ink@best`, whatever its file is called.
        """
        if not remove:
            check_alias(alias)
        check_name(of)
        if checkpoint_step(alias) is not None:
            raise Refused(f"{alias!r} cannot be an alias: step-<number> means a run's checkpoint.")
        record = self.find(reference)
        if not remove:
            name = without_alias(of if of is not None else record.name)
            return self._annotate(reference, lambda connection, record_id: rows.put_alias(connection, record_id, name, alias), report)
        if alias not in record.aliases:
            raise Refused(f"{record.name} has no alias {alias!r}. {suggest(alias, record.aliases)}")
        return self._annotate(reference, lambda connection, record_id: rows.drop_alias(connection, record_id, alias), report)

    def tags(self, most: int) -> list[str]:
        """The tags that are in use, the most frequent first."""
        table = tables.label
        wanted = (
            select(table.c.value)
            .where(table.c.kind == "tag")
            .group_by(table.c.value)
            .order_by(func.count().desc(), table.c.value)
            .limit(most)
        )
        with self._index.reading() as connection:
            return [str(row[0]) for row in connection.execute(wanted)]

    def given_triggers(self, record_id: str) -> list[str]:
        """The trigger words that a person gave a record; its file's own are not among them."""
        table = tables.label
        wanted = select(table.c.value).where(table.c.record_id == record_id, table.c.kind == "trigger")
        with self._index.reading() as connection:
            return [str(row[0]) for row in connection.execute(wanted)]

    def export_notes(self) -> dict[str, Any]:
        """All annotations as a JSON document that `import_notes` reads, here or on another machine."""
        known = self.records()
        with self._index.reading() as connection:
            return notes_of(connection, known)

    def import_notes(self, path: Path | str, *, replace: bool = False, report: Report = silent) -> Imported:
        """Add the annotations of a notes file. Models that an entry may mean and that have no hash are hashed. Raises BadFile, Faults."""
        entries = read_notes(absolute(path))
        for record in may_match(entries, self.records()):
            self.hashed(record, whole=False, report=report)
        with self._index.writing() as connection:
            return import_entries(connection, entries, replace=replace)

    def _annotate(self, reference: str, change: Callable[[Connection, str], None], report: Report) -> Record:
        record = self._registered(reference)
        self._hashed_once(record, report)
        with self._index.writing() as connection:
            change(connection, record.id)
        return self.find(record.id)

    def _hashed_once(self, record: Record, report: Report) -> None:
        if record.id not in EMBEDDED and os.path.exists(str(record.path)):
            self.hashed(record, whole=False, report=report)

    def _registered_all(self, references: Sequence[str]) -> list[Record]:
        """The registered records of these references, each once. Raises the error of one, Faults with those of several."""
        found: dict[str, Record] = {}
        faults: list[LoomError] = []
        unchanged = self._unchanged(self.with_ids(references))
        for reference in dict.fromkeys(references):
            try:
                record = unchanged[reference] if reference in unchanged else self._registered(reference)
                found.setdefault(record.id, record)
            except LoomError as error:
                faults.append(error)
        if faults and len(references) == 1:
            raise faults[0]
        if faults:
            raise Faults("No tag was changed:", [str(error) for error in faults])
        return list(found.values())

    def _unchanged(self, records: Sequence[Record]) -> dict[str, Record]:
        """By id those whose file has the size and time that the index knows: nothing of them is inspected again."""
        with self._index.reading() as connection:
            wanted = [record.path for record in records if record.path is not None]
            known = {row.path: row for row in rows.select_many(connection, tables.location, tables.location.c.path, wanted)}
        found = {}
        for record in records:
            try:
                row, place = known[record.path or ""], rows.place_of(record.path or "")
            except (OSError, KeyError):
                continue
            if not row.missing and (row.bytes, row.inode, row.mtime_ns, row.ctime_ns) == place.signature:
                found[record.id] = record
        return found

    def _registered(self, reference: str) -> Record:
        record = self.find(reference)
        if not record.id:
            raise Refused(f"{reference} is not registered. Add it first: {shell_line('loraloom', 'registry', 'add', reference)}")
        return record


def existing_image(path: Path) -> Path:
    """The path of an image file that pages show. Raises NotFound, Refused."""
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file. Give an image.")
    if path.suffix.lower() not in IMAGES:
        raise Refused(f"{path} is no image that is shown for a model: {', '.join(IMAGES)}.")
    return path
