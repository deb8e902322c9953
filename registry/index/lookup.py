"""Resolves references and parent entries to Records."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from registry.errors import Ambiguous, NotFound, Refused
from registry.formats.peft_config import peft_weights
from registry.index import records, rows
from registry.index.database import Index
from registry.index.embedded import Embedded
from registry.index.run_checkpoints import BEST, LAST, best_step, checkpoint_folders, checkpoint_step
from registry.index.storage.hash_cache import Digests
from registry.names import suggest
from registry.plain_values import storable
from registry.printable import as_lines, one_line
from registry.progress import silent
from registry.record import Record
from registry.references import EMBEDDED, absolute, is_hash, looks_like_path, names_like, split_alias
from registry.sources.source import is_source, same_source

ID = re.compile("[0-9a-f]{16}")
LISTED = 20  # names listed after a mistyped one; above that only their number


class Finder:
    """Searches the index, the embedded models and the disk. Read-only."""

    def __init__(self, index: Index, digests: Digests, embedded: Embedded) -> None:
        self._index = index
        self._digests = digests
        self._embedded = embedded

    def one(self, reference: str, kind: str | None, expected: str | None = None) -> Record:
        """The one Record of a reference. Raises NotFound, Ambiguous with the candidates, Refused for another kind.

        `expected` is the kind that decides between several and is suggested; one of another kind is given all the same.
        """
        found = self._candidates(reference)
        if len({record.id or record.path for record in found}) > 1:
            found = _narrowed(found, kind or expected)
        if not found:
            raise self._not_found(reference, kind or expected)
        if len(found) > 1:
            raise Ambiguous(as_lines([_several(reference, found, kind or expected), *map(_line, found)]))
        if kind is not None and found[0].kind != kind:
            raise Refused(_wrong_kind(reference, found[0], kind))
        return found[0]

    def lasting(self, reference: str) -> str:
        """The reference as it is valid from any folder: an absolute path where a path in this folder is meant, a name as it is."""
        here = absolute(reference)
        if is_hash(reference) is not None or is_source(reference) or not os.path.exists(here):
            return reference
        return reference if not looks_like_path(reference) and self._by_name(reference) else str(here)

    def steps(self, name: str) -> list[Record]:
        """The checkpoints of the run of that name, or of the run that made the adapter of that name. Raises NotFound."""
        found = self._steps(name)
        if not found:
            raise NotFound(
                f"'{name}@step-*' names no checkpoint: no run called {name!r} with checkpoints is registered. {self._nearest(name)}"
            )
        return [record for _, record in sorted(found.items())]

    def expand(self, reference: str) -> list[str | Record]:
        """What a pattern stands for: checkpoints of `name@step-*`, references of `name@key=*`; else the reference itself."""
        name, alias = split_alias(reference)
        if split_alias(name)[1] is not None and "*" in name:
            return [found for one in self.names_like(name) for found in self.expand(f"{one}@{alias}")]
        if alias == "step-*":
            return [*self.steps(name)]
        if alias is not None and "*" in alias and "=" in alias:
            return [*self.names_like(reference)]
        return [reference]

    def names_like(self, pattern: str) -> list[str]:
        """The names that match `ink@lora.rank=*`: given names, else file names. Raises NotFound."""
        with self._index.reading() as connection:
            held = {name: rows.ids_by_name(connection, name) for name in names_like(pattern, rows.all_names(connection))}
        found = [name for name, (given, _) in held.items() if given] or [name for name, (_, stems) in held.items() if stems]
        if not found:
            raise NotFound(f"{pattern!r} fits no name that is registered. {self._nearest(pattern)}")
        return found

    def _candidates(self, reference: str) -> list[Record]:
        if storable(reference) != reference:
            raise Refused(f"{one_line(reference)} is not UTF-8 and cannot be in the index. Rename the file first.")
        prefix = is_hash(reference)
        if prefix is not None:
            return self._by_hash(prefix)
        if is_source(reference):
            return self._by_source(reference)
        found = [] if looks_like_path(reference) else self._by_name(reference)
        if found:
            return found
        return self._by_path(reference) or self._by_name(reference)

    def _by_hash(self, prefix: str) -> list[Record]:
        with self._index.reading() as connection:
            found = records.load(connection, rows.ids_by_sha256(connection, prefix))
            embedded = self._embedded.records(connection)
        found += [record for record in embedded if self._sha256(record).startswith(prefix)]
        by_content: dict[str | None, Record] = {}
        for record in found:
            by_content.setdefault(record.hashes.sha256, record)  # two records of one content are one match
        return list(by_content.values())

    def _by_source(self, reference: str) -> list[Record]:
        """Records downloaded from a source: of the same revision and file, or of any where the reference leaves them open."""
        source = same_source(reference)
        with self._index.reading() as connection:
            found = records.load(connection, rows.ids_by_source(connection, source))
        exact = [record for record in found if record.metadata.get("source") == source]
        return exact or [record for record in found if _is_of(str(record.metadata.get("source")), source)]

    def _by_name(self, reference: str) -> list[Record]:
        with self._index.reading() as connection:
            if reference in EMBEDDED:
                return self._embedded.records(connection, reference)
            given, stems = rows.ids_by_name(connection, reference)
            name, alias = split_alias(reference)
            ids = given or (rows.ids_by_alias(connection, name, alias) if alias else []) or stems
            if ids:
                return records.load(connection, ids)
            if ID.fullmatch(reference):
                return records.load(connection, [reference])
        return self._checkpoint(name, alias) if alias else []

    def _checkpoint(self, name: str, alias: str) -> list[Record]:
        """The checkpoint of `name@step-300`, `name@last` (the newest), `name@best` (lowest held-out loss)."""
        wanted = checkpoint_step(alias)
        if wanted is None and alias not in (LAST, BEST):
            return []
        for run in self._runs(name):
            files = checkpoint_folders(Path(run.path or ""))
            step = wanted if wanted is not None else max(files, default=None) if alias == LAST else best_step(Path(run.path or ""))
            if step in files:
                return [_checkpoint_of(run, name, step, files[step])]
        return []

    def _by_path(self, reference: str) -> list[Record]:
        path = absolute(reference)
        if not os.path.exists(path):  # a name that is too long for a file is none of one either
            return []
        path = peft_weights(path)
        with self._index.reading() as connection:
            if name := self._embedded.name_of(path):
                return self._embedded.records(connection, name)
            known = records.load(connection, rows.ids_by_path(connection, str(path)))
        if known:
            return [seen_at(record, path) for record in known]
        return [_inspected(path)]

    def _steps(self, name: str) -> dict[int, Record]:
        """Step -> checkpoint of the run of that name, inspected on the fly."""
        found: dict[int, Record] = {}
        for run in self._runs(name):
            for step, file in checkpoint_folders(Path(run.path or "")).items():
                found[step] = _checkpoint_of(run, name, step, file)
        return found

    def _runs(self, name: str) -> list[Record]:
        """The runs of that name, or the run that made the adapter of that name."""
        with self._index.reading() as connection:
            named = records.load(connection, rows.ids_by_name(connection, name)[0])
            runs = [record for record in named if record.kind == "run"]
            for adapter in (record for record in named if record.kind == "adapter"):
                for parent in adapter.parents:
                    if parent.get("role") == "run" and not runs:
                        runs += [record for record in self.parent(connection, parent) if record.kind == "run"]
        return runs

    def _not_found(self, reference: str, kind: str | None) -> NotFound:
        what = kind or "model"
        name, alias = split_alias(reference)
        if alias == BEST and (steps := self._steps(name)):
            best = next((step for run in self._runs(name) if (step := best_step(Path(run.path or ""))) is not None), None)
            kept = f"They are {name}@step-N for N in {', '.join(map(str, sorted(steps)))}; {name}@last is the newest."
            if best is not None:
                return NotFound(f"Step {best} has the lowest held-out loss of the run of {name!r}, and its checkpoint is not kept. {kept}")
            return NotFound(
                f"The run of {name!r} measured no held-out images (its newest state.json has none): none of its checkpoints is the best. "
                f"{kept} Train with heldout.share=0.2 to have a best one."
            )
        if is_source(reference):
            return NotFound(f"{reference} is not registered. Download it first: loraloom registry add {reference}")
        if os.path.islink(path := absolute(reference)):
            return NotFound(f"{reference} is a link to {one_line(os.readlink(path))}, and there is no file at its end.")
        if looks_like_path(reference):
            return NotFound(
                f"There is no file or folder {reference!r}, and no {what} is registered under that name. {self._nearest(reference, kind)}"
            )
        return NotFound(f"No {what} is registered as {reference!r}, and no file is called so. {self._nearest(reference, kind)}")

    def _nearest(self, reference: str, kind: str | None = None) -> str:
        with self._index.reading() as connection:
            embedded = {record.name for record in self._embedded.records(connection) if kind in (None, record.kind)}
            known = rows.all_names(connection, kind) | embedded
        head, colon, tail = reference.rpartition(":")
        if colon and (head in known or (looks_like_path(head) and os.path.exists(absolute(head)))):
            return f"{head!r} is; the part after the colon must be a weight, a number such as {head}:0.6, not {tail!r}."
        return suggest(reference, known, listed=LISTED)

    def _sha256(self, record: Record) -> str:
        return record.hashes.sha256 or str(self._digests.of_record(record, silent)[0].sha256)

    def parent(self, connection: Connection, parent: Mapping[str, Any]) -> list[Record]:
        """The record of a parent entry: by its hash, else by its name when it has no hash."""
        digest, ref = parent.get("sha256"), parent.get("ref")
        if digest:
            found = records.load(connection, rows.ids_by_sha256(connection, str(digest)))
            embedded = self._embedded.records(connection)
            found += [record for record in embedded if self._sha256(record) == digest]
            return found[:1]
        if not ref:
            return []
        if ref in EMBEDDED:
            return self._embedded.records(connection, str(ref))
        name, alias = split_alias(str(ref))
        ids = rows.ids_by_path(connection, str(ref)) or (rows.ids_by_alias(connection, name, alias) if alias else [])
        ids = ids or rows.ids_by_name(connection, str(ref))[0] or rows.ids_by_name(connection, str(ref))[1]
        found = records.load(connection, ids)
        wanted = [record for record in found if rows.shelf_of(record.kind) == rows.shelf_of(str(parent.get("role")))]
        return wanted if len(wanted) == 1 else []


def _inspected(path: Path) -> Record:
    from registry.detect.inspect import inspect  # not at the top: it imports every family

    return inspect(path)


def _checkpoint_of(run: Record, name: str, step: int, file: Path) -> Record:
    """The Record of a checkpoint's adapter, from its file."""
    return replace(_inspected(file), name=f"{name}@step-{step}", parents=({"role": "run", "ref": run.name, "sha256": None},))


def _is_of(held: str, asked: str) -> bool:
    """Whether a shorter reference covers a source with a revision or file."""
    return held.startswith((f"{asked}@", f"{asked}/")) or re.sub(r"@[^/]+", "", held) == asked


def _narrowed(found: list[Record], kind: str | None) -> list[Record]:
    """Of several, those of the wanted kind; without one, or where none is of it, models before runs and datasets."""
    if kind is not None and (wanted := [record for record in found if record.kind == kind]):
        return wanted
    return [record for record in found if record.kind not in ("dataset", "run")] or found


def _several(reference: str, found: list[Record], kind: str | None) -> str:
    """What several records of one name are answered with, above their list; `kind` is the one that is expected."""
    kinds = sorted({record.kind for record in found})
    if kind is None or {kind, "unknown"} & set(kinds):
        return f"{reference!r} names {len(found)} records. Use one of these:"
    each = " and ".join(f"{_article(one)} {one}" for one in kinds)
    return f"{reference!r} names {len(found)} records, {each}; {_article(kind)} {kind} was expected. They are:"


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeiou" else "a"


def _line(record: Record) -> str:
    digest = f"sha256:{record.hashes.sha256[:12]}" if record.hashes.sha256 else record.id
    return f"  - {digest}  {record.name}  {record.kind} {record.family or ''}  {record.path or ''}"


def _wrong_kind(reference: str, record: Record, kind: str) -> str:
    seen = f" ({record.evidence[0]})" if record.evidence else ""
    return f"{reference} is {_article(record.kind)} {record.kind}{seen}; {_article(kind)} {kind} was expected."


def seen_at(record: Record, path: Path) -> Record:
    """The record with one of its paths shown first."""
    if "root" in record.metadata or record.path == str(path) or not record.files:
        return record
    return replace(record, files=(replace(record.files[0], path=str(path)),))
