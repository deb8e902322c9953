"""The models that an image's metadata names, found in the registry: by their hash, else by their one name, never by likeness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from infer.metadata.result import ImageMetadata, ModelName, bare_name
from registry.errors import LoomError
from registry.index.by_hash import hash_name
from registry.printable import one_line, some
from registry.progress import Report, silent

if TYPE_CHECKING:
    from registry.record import Record
    from registry.store import Store

# what the metadata calls it -> (kind of its record, the setting that takes another one)
KINDS = {
    "model": ("checkpoint", "base=NAME"),
    "VAE": ("vae", "vae=NAME, or vae=null for the base's own"),
    "LoRA": ("adapter", "adapters=..., or adapters=none"),
    "embedding": ("embedding", "embeddings=..., or embeddings=none"),
    "ControlNet": ("controlnet", "controls=..."),
}
GRAMMAR = re.compile(r"[:,<>]")  # what A1111 leaves out of names in tags and hashes


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model that the metadata names, and what it is here. `by` is the hash or "name"; `fault` says why there is none."""

    what: str  # a key of KINDS
    named: ModelName
    record: Record | None = None
    reference: str | None = None  # what names the record on a command line
    by: str | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        found = self.record
        return {
            "what": self.what,
            "name": self.named.name,
            "hash": self.named.digits,
            "registered": self.reference,
            "by": self.by,
            "sha256": None if found is None else found.hashes.sha256,
            "path": None if found is None else found.path,
            "fault": self.fault,
        }


def named_models(found: ImageMetadata) -> Iterator[tuple[str, ModelName]]:
    """(what it is, its name) of every model that the metadata names."""
    for what, one in (("model", found.model), ("VAE", found.vae)):
        if one is not None:
            yield what, one
    for what, several in (("LoRA", found.loras), ("embedding", found.embeddings), ("ControlNet", found.controls)):
        yield from ((what, one) for one in several)


def find_models(metadata: ImageMetadata, store: Store, *, report: Report = silent) -> list[FoundModel]:
    """Every model that the metadata names, with what it is here."""
    return [find_model(what, named, store, report=report) for what, named in named_models(metadata)]


def find_model(what: str, named: ModelName, store: Store, *, report: Report = silent) -> FoundModel:
    """The registered model of that hash, else of that name. A model of the name with another hash is another file, and is not taken."""
    kind, setting = KINDS[what]
    if named.digits:
        by_hash = [(record, name) for record, name in store.with_hash(named.digits) if record.kind == kind]
        by_hash = [pair for pair in by_hash if _is_called(pair[0], named.name)] or by_hash
        if by_hash:
            record, name = by_hash[0]
            return _found(what, named, record, name, store)
    called = [record for record in store.records(kind=kind) if _is_called(record, named.name)] if named.name else []
    if len({record.id for record in called}) > 1:
        return FoundModel(what=what, named=named, fault=_fault(what, named, f"{len(called)} {kind}s are called so", setting, called))
    if not called:
        looked = " and then ".join([*(["the hash"] if named.digits else []), *(["the name"] if named.name else [])])
        return FoundModel(what=what, named=named, fault=_fault(what, named, f"no {kind} is registered (looked for {looked})", setting))
    (record,) = called
    if not named.digits:
        return _found(what, named, record, "name", store)
    hashed = store.hashed(record, report=report)
    its = hash_name(hashed, named.digits)
    if its is None:
        problem = f"the {kind} of that name is another file (sha256 {(hashed.hashes.sha256 or '')[:12]}...)"
        return FoundModel(what=what, named=named, fault=_fault(what, named, problem, setting, [record]))
    return _found(what, named, hashed, its, store)


def _found(what: str, named: ModelName, record: Record, by: str, store: Store) -> FoundModel:
    return FoundModel(what=what, named=named, record=record, by=by, reference=reference_of(record, store))


def _fault(what: str, named: ModelName, problem: str, setting: str, there: list[Record] | None = None) -> str:
    listed = f": {some([one_line(record.name) for record in there])}" if there else ""
    register = "" if there else " Register it: loraloom registry add FILE, or loraloom registry scan FOLDER --hash."
    return f"The image's {what} {one_line(named)[:200]}: {problem}{listed}.{register} Or give {setting}."


def _is_called(record: Record, name: str | None) -> bool:
    """Whether a record has that name, or a file or folder of it has, whatever the case."""
    if not name:
        return False
    wanted = _plain(bare_name(name))
    paths = [entry.path for entry in record.files] if record.metadata.get("root") is None else []
    paths += [str(path) for path in (record.path, *record.metadata.get("copies", ())) if path]
    return wanted in {_plain(record.name), *(_plain(bare_name(PurePath(path).name)) for path in paths)}


def _plain(name: str) -> str:
    return GRAMMAR.sub("", name).strip().casefold()


def reference_of(record: Record, store: Store) -> str:
    """What names the record and nothing else."""
    for name in (record.name, f"sha256:{record.hashes.sha256}" if record.hashes.sha256 else record.name):
        try:
            if store.find(name, kind=record.kind).id == record.id:
                return name
        except LoomError:
            continue
    return str(record.path)
