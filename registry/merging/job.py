"""A merge as a job: plan it, pin its sources by hash, write it, and register it with its parents, recipe and licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.errors import Faults
from registry.index.written import add_written, writing_output, written_folder_sha256
from registry.merging.plan import MergePlan, plan_merge
from registry.merging.recipe import Recipe, Source
from registry.merging.stream import write_merge
from registry.progress import Report, silent
from registry.record import Record
from registry.references import is_hash, looks_like_path

if TYPE_CHECKING:
    from registry.store import Store

RECIPE_KEY = "loraloom_recipe"  # in the metadata of what was merged
ROLES = {"fuse": ("base", "adapter")}  # of the parents, by method; the last one is that of all that follow
SHORT_LIVED = (
    "modelspec.hash_sha256",
    "modelspec.date",
    "modelspec.thumbnail",
    "modelspec.title",
    "modelspec.merged_from",
    "modelspec.license",
)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A finished merge: its output, the recipe with pinned sources, the values of result.json."""

    output: Path
    recipe: Recipe
    result: Mapping[str, Any]
    record: Record | None = None


def merge(
    recipe: Recipe, store: Store, output: Path | str, *, memory_mib: int = 512, threads: int | None = None, report: Report = silent
) -> Merged:
    """Plan, write and register a merge. Raises Faults before anything is written, JobFailed with nothing left behind."""
    return run_plan(plan_merge(recipe, store, output, memory_mib=memory_mib, threads=threads), store, report=report)


def run_plan(plan: MergePlan, store: Store, *, report: Report = silent, register: bool = True) -> Merged:
    """Write what was planned; with `register` it gets a Record under the recipe's name. Raises Refused where another process writes it."""
    with writing_output(plan.output, store, register=register):
        return _written(plan, store, report, register=register)


def _written(plan: MergePlan, store: Store, report: Report, *, register: bool) -> Merged:
    began = monotonic()
    recipe = pinned(plan, store, report)
    written = write_merge(plan, metadata=metadata_of(plan, recipe), report=report)
    written.check_places(plan.output)
    whole = written.files.get("")
    sha256 = str(whole.sha256) if whole is not None else written_folder_sha256(plan.output, written.files)
    result = {
        "output": str(plan.output),
        "sha256": sha256,
        "tensors_sha256": whole.tensors_sha256 if whole is not None else None,
        "content_sha256": whole.content_sha256 if whole is not None else None,
        "method": plan.method.name,
        "keys": plan.keys.counts(),
        "seconds": round(monotonic() - began, 3),
        "peak_mib": round(written.peak_mib, 1),
    }
    merged = Merged(output=plan.output, recipe=recipe, result=result)
    if not register:
        return merged
    for relative, hashes in written.files.items():
        store.remember(plan.output / relative if relative else plan.output, hashes, written.learned[relative])
    return replace(merged, record=_registered(merged, plan, store, report))


def pinned(plan: MergePlan, store: Store, report: Report) -> Recipe:
    """The recipe with the sha256 of every source. Raises Faults when a source is not the one that the recipe names."""
    sources, faults = [], []
    for number, (source, record) in enumerate(zip(plan.recipe.sources, plan.records, strict=True), 1):
        digest = store.sha256(record, report=report)
        if source.sha256 and not digest.startswith(source.sha256.lower()):
            faults.append(f"source {number} ({source.ref}) has the sha256 {digest[:12]}..., the recipe means {source.sha256[:12]}...")
        sources.append(Source(ref=_lasting(source.ref, record, store), name=record.name, sha256=digest))
    if faults:
        raise Faults("This merge was not started, its sources are not those of the recipe:", faults)
    return replace(plan.recipe, sources=tuple(sources))


def _lasting(ref: str, record: Record, store: Store) -> str:
    """A reference that is valid from any folder: an absolute path, the name of a hash."""
    return str(record.path) if looks_like_path(ref) or store.lasting(ref) != ref else record.name if is_hash(ref) else ref


def metadata_of(plan: MergePlan, recipe: Recipe) -> dict[str, str]:
    """The output's metadata: the first source's ModelSpec entries, the merged models, and the recipe.

    No dates and no paths: the same recipe gives the same bytes.
    """
    first = plan.layouts[0].metadata
    kept = {key: value for key, value in first.items() if key.startswith("modelspec.") and key not in SHORT_LIVED}
    kept["format"] = "pt"
    if kept.get("modelspec.architecture"):
        kept["modelspec.title"] = str(recipe.name)
        kept["modelspec.merged_from"] = ", ".join(str(source.name) for source in recipe.sources)
    kept |= plan.terms.entries()
    portable = replace(recipe, sources=tuple(Source(ref=str(source.name), name=None, sha256=source.sha256) for source in recipe.sources))
    kept[RECIPE_KEY] = json.dumps(portable.to_plain(), sort_keys=True, ensure_ascii=False)
    return kept


def _registered(merged: Merged, plan: MergePlan, store: Store, report: Report) -> Record:
    roles = ROLES.get(merged.recipe.method, ("source",))
    parents = [
        {"role": roles[min(index, len(roles) - 1)], "ref": source.ref, "sha256": source.sha256}
        for index, source in enumerate(merged.recipe.sources)
    ]
    recipe = {"tool": "merge", **merged.recipe.to_plain()}
    return add_written(
        store,
        merged.output,
        sha256=merged.result["sha256"],
        name=merged.recipe.name,
        parents=parents,
        recipe=json.loads(json.dumps(recipe)),
        licence=plan.terms.licence,
        report=report,
    )
