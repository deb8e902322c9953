"""A merge made a second time from its recipe: the sources are found by their hashes, and the bytes are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.extract import plan_extract, run_extract
from registry.adapters.fuse import plan_fuse
from registry.detect.licences import declared_terms, inherited
from registry.errors import Faults, LoomError, NotFound, Refused
from registry.formats.safetensors_header import read_header
from registry.merging.adapter_recipe import EXTRACT, AdapterRecipe, adapter_recipe, weight_faults
from registry.merging.job import RECIPE_KEY, run_plan
from registry.merging.plan import MergePlan, plan_merge
from registry.merging.recipe import Recipe, Source, recipe_of
from registry.plain_values import from_json
from registry.progress import Report, silent
from registry.record import Record
from registry.references import Weighted
from registry.tensors.layout import read_layout

if TYPE_CHECKING:
    from registry.store import Store

REPEATED = re.compile(r"\)[*+{]")  # of a group in a regular expression


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
    """Repeat a Record's recipe into the folder `scratch`, and compare the hashes. Nothing is registered.

    Sources are found by their hash first, so they may have been moved or renamed. Raises NotFound without a recipe.
    """
    record = store.find(reference)
    plain = recipe_of_record(record)
    then = Then(_licences_of(record))
    tool = str(plain.pop("tool", "merge"))
    output = scratch / f"{record.name.partition('@')[0]}{'' if 'root' in record.metadata else '.safetensors'}"
    if tool == "merge":
        recipe = _named(recipe_of(plain, where=f"The recipe of {record.name}"))
        result = _merged(recipe, store, output, then, memory_mib=memory_mib, threads=threads, report=report)
    elif tool in ADAPTER_TOOLS:
        result = ADAPTER_TOOLS[tool](adapter_recipe(plain, tool, name=record.name), store, output, then, report)
    else:
        raise NotFound(f"{record.name} was made by {tool}, which cannot be done again here.")
    return Reproduction(reference=reference, expected=store.sha256(record), found=str(result["sha256"]), seconds=float(result["seconds"]))


def recipe_of_record(record: Record) -> dict[str, Any]:
    """The recipe of a Record, or of the file's own metadata, as plain values. Raises NotFound."""
    if str((record.recipe or {}).get("tool", "")).startswith(("merge", "lora ")):
        return dict(record.recipe or {})
    stated = read_layout(str(record.path)).metadata.get(RECIPE_KEY)
    if stated is None:
        raise NotFound(f"{record.name} has no recipe: it was made neither by loraloom merge nor by loraloom lora.")
    try:
        plain = from_json(stated)
    except ValueError as error:
        raise NotFound(f"The recipe in {record.name} cannot be read: {error}.") from error
    if not isinstance(plain, dict):
        raise NotFound(f"The recipe in {record.name} cannot be read: a JSON object was expected.")
    _refuse_slow_rules(plain.get("rules"), record.name)
    return plain


def _refuse_slow_rules(rules: Any, name: str) -> None:
    """Refuse regular expressions of a file with a repeated group: such may take forever, and a file of others may hold one."""
    for rule in rules if isinstance(rules, list) else ():
        match = rule.get("match") if isinstance(rule, dict) else None
        if isinstance(match, str) and REPEATED.search(match):
            raise Refused(f"The recipe in {name} has the rule {match[:60]!r} with a repeated group. Merge by a recipe file of your own.")


@dataclass(frozen=True)
class Then:
    """The sources' licences by the file's header: they may have been overridden since."""

    licences: Mapping[str, str | None]

    def record(self, record: Record, source: Source) -> Record:
        """The record with its earlier name and licence: both are in the result's header."""
        name = source.name or record.name
        return replace(record, name=name, licence=self.licences.get(name))


def _licences_of(record: Record) -> Mapping[str, str | None]:
    path = Path(str(record.path))
    metadata = read_header(path).metadata if path.is_file() else read_layout(path).metadata
    stated = declared_terms(metadata)
    return stated.sources if stated is not None else {}


def _merged(
    recipe: Recipe, store: Store, output: Path, then: Then, *, memory_mib: int, threads: int | None, report: Report
) -> Mapping[str, Any]:
    sources = tuple(_found_again(source, store) for source in recipe.sources)
    plan = _plan(replace(recipe, sources=sources), store, output, memory_mib=memory_mib, threads=threads)
    records = tuple(then.record(one, source) for one, source in zip(plan.records, recipe.sources, strict=True))
    terms = inherited((record.name, record.licence) for record in records)
    return run_plan(replace(plan, records=records, terms=terms), store, report=report, register=False).result


def _plan(recipe: Recipe, store: Store, output: Path, *, memory_mib: int, threads: int | None) -> MergePlan:
    if recipe.method != "fuse":
        return plan_merge(recipe, store, output, memory_mib=memory_mib, threads=threads)
    base, *adapters = recipe.sources
    weights = recipe.params.get("weights")
    if faults := list(weight_faults(weights, len(adapters))):
        raise Faults("This fusion cannot be done again:", faults)
    weighted = [Weighted(source.ref, float(weight)) for source, weight in zip(adapters, weights or (), strict=True)]
    planned = plan_fuse(
        base.ref, weighted, store, output, dtype=recipe.dtype, coverage=0.0, name=recipe.name, memory_mib=memory_mib, threads=threads
    )
    return replace(planned.merge, recipe=recipe)


def _combined(recipe: AdapterRecipe, store: Store, output: Path, then: Then, report: Report, *, tool: str) -> Mapping[str, Any]:
    found = _sources(recipe, store)
    references = [Weighted(source.ref, weight) for source, weight in zip(found, recipe.weights, strict=True)]
    plan = plan_combine(references, store, output, keep=recipe.keep, dtype=recipe.dtype, tool=tool)
    given = tuple(replace(one, record=then.record(one.record, source)) for one, source in zip(plan.given, recipe.sources, strict=True))
    return run_combine(replace(plan, given=given), store, report=report, register=False).result


def _extracted(recipe: AdapterRecipe, store: Store, output: Path, then: Then, report: Report) -> Mapping[str, Any]:
    assert recipe.keep is not None, "adapter_recipe refuses an extraction without it"
    tuned, base = _sources(recipe, store)
    plan = plan_extract(
        tuned.ref,
        base.ref,
        store,
        output,
        keep=recipe.keep,
        components=recipe.components,
        biases=recipe.biases,
        seed=recipe.seed,
        dtype=recipe.dtype,
    )
    records = (then.record(plan.records[0], recipe.sources[0]), then.record(plan.records[1], recipe.sources[1]))
    return run_extract(replace(plan, records=records), store, report=report, register=False).result


ADAPTER_TOOLS: dict[str, Callable[[AdapterRecipe, Store, Path, Then, Report], Mapping[str, Any]]] = {
    "lora combine": partial(_combined, tool="combine"),
    "lora resize": partial(_combined, tool="resize"),
    EXTRACT: _extracted,
}


def _sources(recipe: AdapterRecipe, store: Store) -> list[Source]:
    """The recipe's sources as they are found now. Raises Refused when one is not what it was."""
    now = [_found_again(source, store) for source in recipe.sources]
    for source in now:
        digest = store.sha256(store.find(source.ref))
        if digest != source.sha256:
            raise Refused(f"{source.name} has the sha256 {digest[:12]}..., the recipe means {str(source.sha256)[:12]}...")
    return now


def _named(recipe: Recipe) -> Recipe:
    return replace(recipe, sources=tuple(replace(source, name=source.name or source.ref) for source in recipe.sources))


def _found_again(source: Source, store: Store) -> Source:
    if source.sha256:
        try:
            store.find(f"sha256:{source.sha256}")
            return replace(source, ref=f"sha256:{source.sha256}")
        except LoomError:
            pass  # not registered under its hash: by its name or path, and its hash is compared before anything is written
    return source
