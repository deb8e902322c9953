"""A merge made a second time from its recipe: the sources are found by their hashes, and the bytes are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import LoomError, NotFound
from registry.merging.job import RECIPE_KEY, run_plan
from registry.merging.layout import read_layout
from registry.merging.lora.fuse import plan_fuse
from registry.merging.plan import MergePlan, plan_merge
from registry.merging.recipe import Recipe, Source, recipe_of
from registry.progress import Report, silent
from registry.record import Record
from registry.references import Weighted

if TYPE_CHECKING:
    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A merge made a second time: the hash it has, the one it should have."""

    reference: str
    expected: str
    found: str
    seconds: float

    @property
    def same(self) -> bool:
        return self.expected == self.found


def reproduce(
    reference: str, store: Store, scratch: Path, *, memory_mib: int = 512, threads: int | None = None, report: Report = silent
) -> Reproduction:
    """Merge again what a Record's recipe says, into the folder `scratch`, and compare the hashes. Nothing is registered.

    Sources are looked for by their hash first, so they may have been moved or renamed.
    """
    record = store.find(reference)
    recipe = recipe_in(record)
    sources = tuple(_found_again(source, store) for source in recipe.sources)
    output = scratch / (f"{record.name.partition('@')[0]}{'' if 'root' in record.metadata else '.safetensors'}")
    plan = _plan(replace(recipe, sources=sources), store, output, memory_mib=memory_mib, threads=threads)
    names = {source.sha256: source.name for source in recipe.sources}
    records = tuple(replace(one, name=names.get(source.sha256) or one.name) for one, source in zip(plan.records, sources, strict=True))
    done = run_plan(replace(plan, records=records), store, report=report, register=False)
    return Reproduction(
        reference=reference, expected=store.sha256(record), found=str(done.result["sha256"]), seconds=float(done.result["seconds"])
    )


def _plan(recipe: Recipe, store: Store, output: Path, *, memory_mib: int, threads: int | None) -> MergePlan:
    if recipe.method != "fuse":
        return plan_merge(recipe, store, output, memory_mib=memory_mib, threads=threads)
    base, *adapters = recipe.sources
    weighted = [Weighted(source.ref, weight) for source, weight in zip(adapters, recipe.params["weights"], strict=True)]
    planned = plan_fuse(
        base.ref, weighted, store, output, dtype=recipe.dtype, coverage=0.0, name=recipe.name, memory_mib=memory_mib, threads=threads
    )
    return replace(planned.merge, recipe=recipe)


def recipe_in(record: Record) -> Recipe:
    """The merge recipe of a Record, or of the file's own metadata. Raises NotFound."""
    plain = dict(record.recipe or {})
    if plain.pop("tool", None) == "merge":
        return recipe_of(plain, where=f"The recipe of {record.name}")
    told = _own_metadata(record).get(RECIPE_KEY)
    if told is None:
        raise NotFound(f"{record.name} has no merge recipe: it was not merged by loraloom merge.")
    try:
        return _named(recipe_of(json.loads(told), where=f"The recipe in {record.name}"))
    except ValueError as error:
        raise NotFound(f"The recipe in {record.name} cannot be read: {error}.") from error


def _named(recipe: Recipe) -> Recipe:
    return replace(recipe, sources=tuple(replace(source, name=source.name or source.ref) for source in recipe.sources))


def _own_metadata(record: Record) -> Mapping[str, str]:
    return read_layout(str(record.path)).metadata


def _found_again(source: Source, store: Store) -> Source:
    if source.sha256:
        try:
            store.find(f"sha256:{source.sha256}")
            return replace(source, ref=f"sha256:{source.sha256}")
        except LoomError:
            pass  # not registered under its hash: by its name or path, and its hash is compared before anything is written
    return source
