"""Plans a merge from a recipe, by headers alone: what happens to each key, the cost, and all faults at once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.detect.licences import Terms, inherited
from registry.errors import Faults, LoomError, Refused, UnknownName
from registry.files.unfinished import WRITING, is_being_written
from registry.formats.safetensors_header import DTYPE_BITS, TensorInfo
from registry.home import expanded
from registry.merging.keys import Key, Keys, plan_keys
from registry.merging.method import Method
from registry.merging.methods import METHODS
from registry.merging.recipe import Recipe, Source
from registry.plain_values import storable
from registry.printable import as_lines, counted, one_line
from registry.record import Record
from registry.references import check_name
from registry.tensors.chunks import CHUNK
from registry.tensors.layout import WEIGHTS, Layout, quantised, read_layout
from registry.tensors.relayout import match_layout

if TYPE_CHECKING:
    from registry.store import Store

MIB = 1 << 20
RATE = 250e6  # bytes read and written a second, one elementwise pass with hashes on two cores: for the estimate only
NO_CHECKPOINT = ("adapter", "embedding", "run", "dataset")
ADAPTER_ADVICE = "Adapters are merged by what they change: `loraloom lora combine`, or into a checkpoint by `loraloom lora fuse`."


@dataclass(frozen=True)
class OutFile:
    """One safetensors file of the result: its place in the output folder ("" for a single file), its keys with the names in it."""

    relative: str
    names: Mapping[str, str]  # name in the file -> key


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """A checked merge, ready to run."""

    recipe: Recipe
    method: Method
    records: tuple[Record, ...]
    layouts: tuple[Layout, ...]
    output: Path
    keys: Keys
    files: tuple[OutFile, ...]
    others: tuple[tuple[str, Path], ...]  # small files of a folder: place in the output, where they are copied from
    terms: Terms
    memory_mib: int
    threads: int
    notes: tuple[str, ...]

    @staticmethod
    def usual_threads() -> int:
        """One a core, at most 4: more only wait for the disk."""
        return min(os.cpu_count() or 1, 4)

    @property
    def bytes(self) -> int:
        """Size of the result's tensors."""
        return sum(size_of(key.out) for key in self.keys.keys.values())

    @property
    def bytes_read(self) -> int:
        """Bytes of the sources that are read, passes over whole tensors counted as often as they are made."""
        passes = 2 if self.method.measure else 1
        return sum(source.bytes * (passes if key.merged else 1) for key in self.keys.keys.values() for source in key.sources)

    @property
    def seconds(self) -> float:
        """About how long it will take, without the hashing of sources that are new here."""
        return (self.bytes + self.bytes_read) / RATE

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "method": self.method.name,
            "sources": [self._source_json(number) for number in range(1, len(self.records) + 1)],
            "output": str(self.output),
            "files": [file.relative or self.output.name for file in self.files],
            "keys": self.keys.counts(),
            "copied": self.keys.reasons(),
            "rules": [{**rule.to_plain(), "keys": hits} for rule, hits in zip(self.recipe.rules, self.keys.hits, strict=True)],
            "weights": dict(self.keys.weights),
            "components": list(self.layouts[0].components),
            "bytes": self.bytes,
            "bytes_read": self.bytes_read,
            "memory_mib": self.memory_mib,
            "threads": self.threads,
            "seconds": round(self.seconds, 1),
            "free_bytes": free_bytes(self.output),
            "licence": self.terms.licence,
            "licences": dict(self.terms.sources),
            "notes": list(self.notes),
            "recipe": self.recipe.to_plain(),
        }

    def _source_json(self, number: int) -> dict[str, Any]:
        source, record, layout = self.recipe.sources[number - 1], self.records[number - 1], self._layout(number)
        return {
            "ref": source.ref,
            "name": record.name,
            "family": record.family,
            "sha256": record.hashes.sha256,
            "path": record.path,
            "keys": len(layout.tensors) if layout else None,
            "dtype": record.dtype,
            "missing": self.keys.lacking.get(number, []),
            "extra": self.keys.beyond.get(number, []),
        }

    def _layout(self, number: int) -> Layout | None:
        """A source's layout; an adapter that is fused has none."""
        return self.layouts[number - 1] if number <= len(self.layouts) else None

    def to_text(self) -> str:
        """The plan as text."""
        counts = self.keys.counts()
        lines = [f"{self.method.name}: {self.method.summary}"]
        if used := {**self.method.defaults(), **self.recipe.params} if self.method.options else {}:
            lines.append("  params: " + " ".join(f"{name}={json.dumps(value)}" for name, value in used.items()))
        for number, (source, record) in enumerate(zip(self.recipe.sources, self.records, strict=True), 1):
            digest = f"sha256 {record.hashes.sha256[:12]}" if record.hashes.sha256 else "not hashed yet"
            layout = self._layout(number)
            keys = f"{counted(len(layout.tensors), 'key')}, " if layout else ""
            lines.append(f"  source {number}: {source.ref} ({record.family or 'family unknown'}, {keys}{record.dtype}, {digest})")
        lines.append(f"  {counted(counts['merged'], 'key')} merged, {counts['copied']} copied, {counts['skipped']} left out")
        lines += [f"    copied, {why}: {count}" for why, count in self.keys.reasons().items()]
        for number, (rule, hits) in enumerate(zip(self.recipe.rules, self.keys.hits, strict=True), 1):
            lines.append(f"    rule {number} ({rule.match}): {counted(hits, 'key')}")
        if self.keys.weights:
            lines.append("    alpha by block: " + ", ".join(f"{block} {alpha:g}" for block, alpha in self.keys.weights.items()))
        free = free_bytes(self.output)
        lines.append(
            f"  writes {self.bytes / MIB:,.1f} MiB to {self.output} ({free / MIB:,.0f} MiB free), reads {self.bytes_read / MIB:,.1f} MiB"
        )
        lines.append(f"  memory at most {self.memory_mib} MiB beyond mapped pages, {self.threads} threads, about {self.seconds:.0f} s")
        lines.append(f"  licence: {self.terms.licence or 'not known'}")
        return as_lines([*lines, *(f"note: {note}" for note in self.notes)])


def size_of(info: TensorInfo) -> int:
    """Bytes of a tensor."""
    return info.elements * DTYPE_BITS[info.dtype] // 8


def plan_merge(recipe: Recipe, store: Store, output: Path | str, *, memory_mib: int = 512, threads: int | None = None) -> MergePlan:
    """The plan of a recipe. Raises Faults with all faults; reads no tensor and writes nothing."""
    from registry.merging import methods  # noqa: F401  # fills the table

    faults: list[str] = []
    output = expanded(output).absolute()
    threads = threads or MergePlan.usual_threads()
    method = _method(recipe, faults)
    found = [_source(source, store, number, faults) for number, source in enumerate(recipe.sources, 1)]
    records = [record for record, _ in found if record is not None]
    layouts = [layout for _, layout in found if layout is not None]
    complete = method is not None and len(layouts) == len(found) == len(records)
    copies = method is not None and method.copies
    strangers = _kinship_faults(recipe, records[:1] if copies else records) if len(records) == len(found) else []
    faults += strangers
    if complete:
        layouts = _in_one_form(layouts, records, faults)
    folder = bool(layouts) and as_folder(layouts[0], recipe.shard_mib, output)
    why = "it gets shards (shard_mib)" if recipe.shard_mib else ""
    faults += output_faults(output, [layout.path for layout in layouts], folder=folder, why=why)
    faults += name_faults(recipe.name or output.stem)
    if not complete or _of_other_families(records if not copies else records[:1]):
        raise Faults("This merge was not started:", faults or ["its sources cannot be compared."])
    assert method is not None
    keys = plan_keys(recipe, method, layouts)
    faults += keys.faults
    faults += _memory_faults(method, keys, memory_mib)
    terms = inherited((record.name, record.licence) for record in records)
    plan = MergePlan(
        recipe=replace(recipe, name=recipe.name or output.stem),
        method=method,
        records=tuple(records),
        layouts=tuple(layouts),
        output=output,
        keys=keys,
        files=files_of(layouts, keys, recipe.shard_mib, folder=folder),
        others=others_of(layouts[0]) if folder else (),
        terms=terms,
        memory_mib=memory_mib,
        threads=threads,
        notes=(*keys.notes, *terms.notes(), *([] if copies else (*_kinship_notes(records), *_dtype_notes(recipe, layouts)))),
    )
    faults += disk_faults(output, plan.bytes + MIB)
    if faults:
        raise Faults("This merge was not started:", dict.fromkeys(faults))
    return plan


def _method(recipe: Recipe, faults: list[str]) -> Method | None:
    try:
        method = METHODS[recipe.method]
    except UnknownName as error:
        faults.append(str(error))
        return None
    faults += method.faults(recipe.params, len(recipe.sources))
    return method


def _source(source: Source, store: Store, number: int, faults: list[str]) -> tuple[Record | None, Layout | None]:
    """A source's Record and Layout; what is wrong with it goes to the faults."""
    try:
        record = store.find(source.ref, expected="checkpoint")
        if record.kind in ("adapter", "embedding"):
            advice = ADAPTER_ADVICE if record.kind == "adapter" else "It changes words, not weights."
            faults.append(f"source {number} ({source.ref}) is an {record.kind}, not a checkpoint. {advice}")
            return record, None
        if record.kind in NO_CHECKPOINT:
            faults.append(f"source {number} ({source.ref}) is a {record.kind}; a checkpoint was expected.")
            return record, None
        layout = read_layout(str(record.path))
        strange = quantised(layout.tensors)
        if strange:
            faults.append(
                f"source {number} ({source.ref}) is quantised ({strange}); its numbers cannot be averaged. Use the fp16 or bf16 version."
            )
        return record, layout
    except LoomError as error:
        faults.append(f"source {number}: {error}")
        return None, None


def _kinship_faults(recipe: Recipe, records: Sequence[Record]) -> list[str]:
    """Kinds, families and prediction types must agree where they are known."""
    faults = []
    kinds = {record.kind for record in records} - {"unknown", *NO_CHECKPOINT}  # reported one by one
    if len(kinds) > 1:
        faults.append(f"the sources are of different kinds: {_each(records, 'kind')}.")
    if _of_other_families(records):
        faults.append(f"the sources are of different families: {_each(records, 'family')}. Only models of one family can be merged.")
    predictions = {record.prediction.value for record in records if record.prediction.value}
    if len(predictions) > 1 and not recipe.mixed_prediction:
        predicted = ", ".join(
            f"{record.name}: {record.prediction.value} ({record.prediction.source})" for record in records if record.prediction.value
        )
        faults.append(
            f"the sources have different prediction types, and their mean has neither: {predicted}. To merge anyway: mixed_prediction=true."
        )
    return faults


def _of_other_families(records: Sequence[Record]) -> bool:
    """Whether the sources are known to be of several families, so that comparing their keys is pointless."""
    return len({record.family for record in records if record.family}) > 1


def _in_one_form(layouts: list[Layout], records: Sequence[Record], faults: list[str]) -> list[Layout]:
    """Every source under the keys of the first; what cannot be mapped is a fault."""
    family = next((record.family for record in records if record.family), None)
    found = layouts[:1]
    for layout, record in zip(layouts[1:], records[1:], strict=True):
        try:
            found.append(match_layout(layout, layouts[0], family=family, kind=record.kind))
        except LoomError as error:
            faults.append(str(error))
            found.append(layout)
    return found


def _each(records: Sequence[Record], field: str) -> str:
    return ", ".join(f"{record.name} is {getattr(record, field) or 'unknown'}" for record in records)


def _dtype_notes(recipe: Recipe, layouts: Sequence[Layout]) -> list[str]:
    """Sources that are stored more widely or narrowly than the first one, whose dtype the result has."""
    usual = [_usual_dtype(layout) for layout in layouts]
    others = [f"source {number} is {dtype}" for number, dtype in enumerate(usual[1:], 2) if dtype != usual[0]]
    if not others or recipe.dtype is not None:
        return []
    return [f"{', '.join(others)}, the first {usual[0]}: the result is {usual[0]}, unless dtype is given."]


def _usual_dtype(layout: Layout) -> str:
    """The dtype that most numbers of a model have."""
    counts: dict[str, int] = {}
    for stored in layout.tensors.values():
        counts[stored.info.dtype] = counts.get(stored.info.dtype, 0) + stored.info.elements
    return max(counts, key=lambda dtype: counts[dtype])


def _kinship_notes(records: Sequence[Record]) -> list[str]:
    notes = [
        f"{record.name}: the family is not known; its keys and shapes fit."
        for record in records
        if not record.family and record.kind == "checkpoint"
    ]
    unknown = [record.name for record in records if not record.prediction.value and record.kind == "checkpoint"]
    known = [record for record in records if record.prediction.value not in (None, "epsilon")]
    if unknown and known:
        notes.append(f"{known[0].name} is {known[0].prediction.value}; of {', '.join(unknown)} the prediction type is not known.")
    return notes


def as_folder(first: Layout, shard_mib: int | None, output: Path) -> bool:
    """Whether the result is a folder: as the first source is; a file with shard_mib becomes one; shards can be joined to a file."""
    if first.is_folder:
        return first.diffusers or output.suffix != ".safetensors" or bool(shard_mib)
    return bool(shard_mib)


def output_faults(output: Path, sources: Sequence[Path], *, folder: bool, why: str = "") -> list[str]:
    """Faults of the output path; `why` it is a folder or a single file, where that does not follow from the first source."""
    if storable(str(output)) != str(output):
        return [f"output {one_line(output)} is not UTF-8. Choose another name."]
    faults = []
    if output.exists() or output.is_symlink():
        faults.append(f"output {output} exists already. Choose another name or remove it.")
    if not folder and output.suffix != ".safetensors":
        faults.append(f"output {output.name} must end in .safetensors, as {why or 'its first source is a single file'}.")
    if folder and output.suffix.lower() in WEIGHTS:
        faults.append(f"output {output.name} must be a folder's name without {output.suffix}, as {why or 'its first source is one'}.")
    if is_being_written(output):
        faults.append(f"output {output} {WRITING}")
    parent = next((parent for parent in output.parents if parent.exists()), None)
    if parent is None or not parent.is_dir() or not os.access(parent, os.W_OK):
        faults.append(f"output {output} cannot be written: {parent} is no folder that may be written to.")
    if any(source.is_dir() and output.is_relative_to(source.absolute()) for source in sources):
        faults.append(f"output {output} is inside one of the sources.")
    return faults


def name_faults(name: str) -> list[str]:
    """What is wrong with the name that the result would be registered under."""
    try:
        check_name(name)
    except Refused as error:
        return [f"name: {error} Give one: name=..."]
    return []


def free_bytes(output: Path) -> int:
    """Free space where the output will lie."""
    parent = next(parent for parent in (output, *output.parents) if parent.exists())
    return shutil.disk_usage(parent).free


def disk_faults(output: Path, needed: int) -> list[str]:
    """What is wrong with the free space."""
    free = free_bytes(output)
    if needed <= free:
        return []
    return [f"output {output} needs {needed / MIB:,.0f} MiB, and {free / MIB:,.0f} MiB are free there. Make room or choose another disk."]


def chunk_bytes(sources: int) -> int:
    """Memory that one chunk takes while it is merged: sources and work in fp32, the result waiting to be written."""
    return CHUNK * 4 * (2 * sources + 4)


def _memory_faults(method: Method, keys: Keys, memory_mib: int) -> list[str]:
    most = max((len(key.sources) for key in keys.keys.values()), default=1)
    needed = 2 * chunk_bytes(most) / MIB
    if memory_mib < needed:
        return [f"memory_mib={memory_mib} is too little for {most} sources: at least {needed:.0f}."]
    whole = [
        key
        for key in keys.keys.values()
        if key.merged and key.shared and key.shared[1:] != key.out.shape[1:] and key.out.elements > 16 * CHUNK
    ]
    return [f"{key.name} is too large to be merged in part; mismatch=first copies it." for key in whole]


# --- the files of the result


def files_of(layouts: Sequence[Layout], keys: Keys, shard_mib: int | None, *, folder: bool) -> tuple[OutFile, ...]:
    """The files as the first source has them, or in shards of shard_mib; one file where the result is no folder.

    Keys that a rule takes from another source go to the first file of their component.
    """
    first = layouts[0]
    groups: dict[str, list[str]] = {file.relative: [key for key in file.keys if key in keys.keys] for file in first.files}
    known = {key for file in first.files for key in file.keys}
    for name in keys.keys:
        if name not in known:
            groups[_home_of(name, first)].append(name)
    if not folder:
        groups = {"": [name for names in groups.values() for name in names]}
    elif shard_mib is not None:
        groups = _sharded(groups, keys, shard_mib)
    return tuple(OutFile(relative, {_in_file(first, name): name for name in names}) for relative, names in groups.items() if names)


def _in_file(layout: Layout, key: str) -> str:
    return key.partition("/")[2] if layout.diffusers else key


def _home_of(name: str, layout: Layout) -> str:
    if layout.diffusers:
        for file in layout.files:
            if file.relative.startswith(f"{name.partition('/')[0]}/"):
                return file.relative
    return layout.files[0].relative


SHARD = "-of-"


def _sharded(groups: Mapping[str, Sequence[str]], keys: Keys, shard_mib: int) -> dict[str, list[str]]:
    """Other files: all of a folder's keys in one (shard_mib 0), or in files of at most that size, filled in the order of the keys."""
    folders: dict[str, list[str]] = {}
    stems: dict[str, str] = {}
    for relative, names in groups.items():
        folder, _, file = relative.rpartition("/")
        folders.setdefault(folder, []).extend(names)
        stems.setdefault(folder, file.removesuffix(".safetensors").partition("-0")[0] or "model")
    found: dict[str, list[str]] = {}
    for folder, names in folders.items():
        shards: list[list[str]] = [[]]
        size = 0
        for name in names:
            more = size_of(keys.keys[name].out)
            if shard_mib and shards[-1] and size + more > shard_mib * MIB:
                shards.append([])
                size = 0
            shards[-1].append(name)
            size += more
        lead = f"{folder}/" if folder else ""
        for number, shard in enumerate(shards, 1):
            place = stems[folder] if len(shards) == 1 else f"{stems[folder]}-{number:05d}{SHARD}{len(shards):05d}"
            found[f"{lead}{place}.safetensors"] = shard
    return found


def others_of(layout: Layout) -> tuple[tuple[str, Path], ...]:
    """A folder's small files: their place in the output, where they are copied from."""
    return tuple((name, layout.path / name) for name in layout.others)


__all__ = ["Key", "MergePlan", "OutFile", "plan_merge"]
