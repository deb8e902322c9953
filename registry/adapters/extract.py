"""What a tuned checkpoint changed of its base, as a LoRA: the difference of each layer, cut by its singular values."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.adapters.factors import Keep, Spectrum, dense_spectrum, leading_spectrum, one_thread
from registry.adapters.named_sources import find_checkpoint, place_faults, source_entries
from registry.adapters.reader import ModuleId
from registry.adapters.result import AdapterResult, Layer, metadata_of, module_names, save, tensors_of
from registry.adapters.targets import Targets, TargetSlice, targets_of
from registry.adapters.writer import held
from registry.detect.licences import inherited
from registry.errors import Faults, JobFailed
from registry.formats.atomic_file import torch_dtype
from registry.formats.safetensors_header import TensorInfo
from registry.home import expanded
from registry.index.written import writing_output
from registry.merging.recipe import DTYPES
from registry.printable import as_lines, counted, some
from registry.progress import Report, Tick, silent
from registry.record import Record
from registry.tensors.chunks import CHUNK
from registry.tensors.layout import FLOATS, Layout
from registry.tensors.mmap_files import MappedFiles

if TYPE_CHECKING:
    from torch import Tensor

    from registry.store import Store


@dataclass(frozen=True)
class LayerPair:
    """One layer in both checkpoints."""

    place: ModuleId
    tuned: TargetSlice
    base: TargetSlice
    shape: tuple[int, ...]
    ending: str | None = None  # of what is no layer: how its change is written, .diff_b or .diff; None: an adapter has no form for it
    kind: str = "layers"  # what it is, of what is no layer


@dataclass(frozen=True, kw_only=True)
class ExtractPlan:
    """An extraction that can be run."""

    records: tuple[Record, Record]
    references: tuple[str, str]
    layouts: tuple[Layout, Layout]
    pairs: tuple[LayerPair, ...]
    others: tuple[LayerPair, ...]  # biases, norms, embeddings, the VAE: a LoRA cannot hold their change, but its size is reported
    keep: Keep
    components: tuple[str, ...] | None
    seed: int
    dtype: str
    output: Path
    name: str | None
    notes: tuple[str, ...]
    biases: bool = False  # the changes of biases and norms are written too

    @property
    def family(self) -> str | None:
        """The base's, else that of the tuned checkpoint."""
        return self.records[1].family or self.records[0].family

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "tool": "extract",
            "tuned": self.references[0],
            "base": self.references[1],
            "output": str(self.output),
            "modules": len(self.pairs),
            "keep": self.keep.to_plain(),
            "dtype": self.dtype,
            "seed": self.seed,
            "biases": self.biases,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        lines = [f"extract: what {self.references[0]} changed of {self.references[1]}, to {self.output}"]
        lines.append(f"  {counted(len(self.pairs), 'layer')}, {self.keep.to_plain()}; {self.dtype}")
        return as_lines([*lines, *(f"note: {note}" for note in self.notes)])


def plan_extract(
    tuned: str,
    base: str,
    store: Store,
    output: Path | str,
    *,
    keep: Keep,
    components: tuple[str, ...] | None = None,
    seed: int = 0,
    dtype: str = "fp16",
    biases: bool = False,
    name: str | None = None,
) -> ExtractPlan:
    """Everything checked, nothing written. A rank in `keep` is the most a layer gets; `biases` writes their changes and those of norms.

    Raises Faults.
    """
    faults: list[str] = []
    output = expanded(output).absolute()
    found = [find_checkpoint(reference, store, faults) for reference in (tuned, base)]
    faults += keep.faults()
    if not keep.to_plain():
        faults.append("say how much to keep: --rank N, or --energy, --sv-fro, --sv-ratio.")
    if dtype not in DTYPES:
        faults.append(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    faults += place_faults(output, name)
    if found[0] is None or found[1] is None:
        raise Faults("This extraction was not started:", faults)
    records, layouts = (found[0][0], found[1][0]), (found[0][1], found[1][1])
    families = {record.family for record in records if record.family}
    if len(families) > 1:
        faults.append(f"{records[0].name} is {records[0].family}, {records[1].name} is {records[1].family}: not tuned from it.")
    if unknown := [name for name in components or () if name not in layouts[1].components]:
        faults.append(f"the base has no component {', '.join(unknown)}; it has {', '.join(layouts[1].components)}.")
    pairs, others, unmatched = _pairs(layouts, components, next(iter(sorted(families)), None))
    if not pairs:
        faults.append("the two have no layer in common that a LoRA could change. Are both checkpoints of one family?")
    if faults:
        raise Faults("This extraction was not started:", faults)
    notes = inherited((record.name, record.licence) for record in records).notes()
    if unmatched:
        notes.append(
            f"{counted(len(unmatched), 'tensor is', 'tensors are')} in one of the two only, or of "
            f"another shape, and left out: {some(unmatched)}"
        )
    return ExtractPlan(
        records=records,
        references=(tuned, base),
        layouts=layouts,
        pairs=tuple(pairs),
        others=tuple(others),
        keep=keep,
        components=components,
        seed=seed,
        dtype=DTYPES[dtype],
        output=output,
        name=name,
        notes=tuple(notes),
        biases=biases,
    )


def _pairs(
    layouts: tuple[Layout, Layout], components: tuple[str, ...] | None, family: str | None
) -> tuple[list[LayerPair], list[LayerPair], list[str]]:
    """(layers in both, all else in both, names of the rest). The two may be spelled differently: a folder and a single file."""
    tuned, base = (targets_of(layout, family) for layout in layouts)
    pairs: list[LayerPair] = []
    others: list[LayerPair] = []
    unmatched = [name for place, name in tuned.own if place not in base.targets and (components is None or place[0] in components)]
    for place, name in base.own:
        if components is not None and place[0] not in components:
            continue
        in_tuned, in_base = tuned.targets.get(place), base.targets[place]
        if in_tuned is None or len(in_tuned) != 1 or len(in_base) != 1:
            unmatched.append(name)
            continue
        shapes = [_shape(layout, target) for layout, target in zip(layouts, (in_tuned[0], in_base[0]), strict=True)]
        dtypes = {layout.tensors[target.key].info.dtype for layout, target in zip(layouts, (in_tuned[0], in_base[0]), strict=True)}
        if TensorInfo("F32", shapes[0]).elements != TensorInfo("F32", shapes[1]).elements or shapes[0][0] != shapes[1][0]:
            unmatched.append(name)
        elif dtypes <= set(FLOATS) and all(shapes[0]):
            layer = len(shapes[1]) in (2, 4) and "embedding" not in name
            norm = len(shapes[1]) == 1
            kind = "layers" if layer else "norms" if norm else "embeddings"
            pair = LayerPair(place, in_tuned[0], in_base[0], shapes[1], ".diff" if norm else None, kind)
            (pairs if layer else others).append(pair)
    found, lone = _rest(layouts, (tuned, base), components)
    return pairs, [*others, *found], [*unmatched, *lone]


def _rest(
    layouts: tuple[Layout, Layout], targets: tuple[Targets, Targets], components: tuple[str, ...] | None
) -> tuple[list[LayerPair], list[str]]:
    """(tensors in both that are no module's weight, with biases by their module, names of those that are in one only)."""
    (tuned, base), (tuned_targets, base_targets) = layouts, targets
    weights = {target.key for place, _ in base_targets.own for target in base_targets.targets[place]}
    biases = {key: place for place, key in base_targets.biases.items()}
    places = {place for place, _ in base_targets.own}
    found: list[LayerPair] = []
    lone: list[str] = []
    for key, stored in base.tensors.items():
        component, shape = base.component(key), stored.info.shape
        if key in weights or component == "ema" or stored.info.dtype not in FLOATS or not stored.info.elements:
            continue
        if components is not None and component not in components:
            continue
        place = biases.get(key)
        other = tuned_targets.biases.get(place, key) if place is not None else key
        there = tuned.tensors.get(other)
        if there is None or there.info.shape != shape or there.info.dtype not in FLOATS:
            lone.append(key)
            continue
        kind = "the VAE" if component == "vae" else "biases" if key.endswith("bias") else "other tensors"
        ending = ".diff_b" if place in places else None
        found.append(LayerPair(place or (component, key), TargetSlice(other), TargetSlice(key), shape, ending, kind))
    if tuned.diffusers == base.diffusers:  # else a key in one form has another name in the other
        lone += _beyond(tuned, tuned_targets, {pair.tuned.key for pair in found} | base.tensors.keys(), components)
    return found, lone


def _beyond(layout: Layout, targets: Targets, known: Collection[str], components: tuple[str, ...] | None) -> list[str]:
    """Keys of the tuned checkpoint that are no module's weight, and that the base has not."""
    weights = {target.key for place, _ in targets.own for target in targets.targets[place]}
    return [
        key
        for key, stored in layout.tensors.items()
        if key not in known
        and key not in weights
        and stored.info.dtype in FLOATS
        and stored.info.elements
        and (component := layout.component(key)) != "ema"
        and (components is None or component in components)
    ]


def _shape(layout: Layout, target: TargetSlice) -> tuple[int, ...]:
    shape = layout.tensors[target.key].info.shape
    return (target.rows[1] - target.rows[0], *shape[1:]) if target.rows else shape


def run_extract(plan: ExtractPlan, store: Store, *, report: Report = silent, register: bool = True) -> AdapterResult:
    """Compute, write and register a planned extraction; `result` has each layer's rank and retained energy, and what was left out."""
    with writing_output(plan.output, store, register=register):
        return _written(plan, store, report, register=register)


def _written(plan: ExtractPlan, store: Store, report: Report, *, register: bool) -> AdapterResult:
    began = monotonic()
    recipe = {
        "tool": "lora extract",
        "sources": source_entries(plan.records, plan.references, store),
        "keep": plan.keep.to_plain(),
        "seed": plan.seed,
        "dtype": plan.dtype,
        "components": None if plan.components is None else list(plan.components),
        **({"biases": True} if plan.biases else {}),
    }
    maps = [MappedFiles({stored.file for stored in layout.tensors.values()}) for layout in plan.layouts]
    with one_thread():
        layers, changed = _layers(plan, maps, report)
    vectors, sizes = _vectors(plan, maps)
    if not layers and not vectors:
        also = f" They differ in {', '.join(sizes)}; --biases writes biases and norms." if sizes else ""
        raise JobFailed(
            f"{plan.references[0]} and {plan.references[1]} have the same weights in every layer: there is nothing to extract.{also}"
        )
    left, whole = sum(sizes.values()), sum(changed.values()) + sum(sizes.values()) + _square(vectors.values())
    kept = sum(layer.energy * changed[layer.place] for layer in layers) + _square(vectors.values())
    for one in maps:
        one.check()
    numbers: Mapping[str, Any] = {
        "modules": len(layers),
        "unchanged": len(plan.pairs) - len(layers),
        "ranks": {layer.name: layer.factors.rank for layer in layers},
        "retained": {layer.name: round(layer.energy, 9) for layer in layers},
        "vectors": len(vectors),  # changes of biases and norms that are written
        "retained_all": round(kept / whole, 9),
        "left_out": round(left / whole, 9),  # share of the change that lies where nothing is written: biases, norms, embeddings, the VAE
        "left_out_by": {kind: round(size / whole, 9) for kind, size in sizes.items()},
    }
    return save(
        {**tensors_of(layers, spelling="kohya", dtype=plan.dtype), **_held(vectors, plan.dtype)},
        metadata_of(None, recipe, layers),
        plan.output,
        store,
        recipe=recipe,
        roles=["source", "base"],
        terms=inherited((record.name, record.licence) for record in plan.records),
        family=plan.family,
        name=plan.name,
        began=began,
        numbers=numbers,
        register=register,
        report=report,
    )


def _vectors(plan: ExtractPlan, maps: list[MappedFiles]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(key -> change of every bias and norm that is written, kind -> squared norm of the changes that are not); fp32."""
    names = module_names((pair.place for pair in plan.others if pair.ending), plan.family)
    written: dict[str, Tensor] = {}
    left: dict[str, float] = {}
    for pair in plan.others:
        change = difference(plan, pair, maps)
        size = _square([change])
        if size > 0 and plan.biases and pair.ending:
            written[f"{names[pair.place]}{pair.ending}"] = change
        elif size > 0:
            left[pair.kind] = left.get(pair.kind, 0.0) + size
    return written, left


def _square(changes: Iterable[Tensor]) -> float:
    """The sum of all squares, in fp64 a part at a time: a word embedding in fp64 is 300 MiB."""
    import torch

    parts = (part for change in changes for part in torch.split(change.reshape(-1), CHUNK))
    return sum((float(part.double().square().sum()) for part in parts), 0.0)


def _held(vectors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {name: held(vector, torch_dtype(dtype), name) for name, vector in vectors.items()}


def _layers(plan: ExtractPlan, maps: list[MappedFiles], report: Report) -> tuple[list[Layer], dict[ModuleId, float]]:
    """(factors of every layer that changed, the squared norm of its whole change)."""
    layers: list[Layer] = []
    changed: dict[ModuleId, float] = {}
    names = module_names((pair.place for pair in plan.pairs), plan.family)
    for done, pair in enumerate(plan.pairs, 1):
        name = names[pair.place]
        change = difference(plan, pair, maps)
        total = _square([change])
        if total > 0:
            found = _spectrum(change, plan, pair.place)
            rank = plan.keep.of(found.values, total)
            energy = min(1.0, float(found.values[:rank].square().sum()) / total)
            layers.append(Layer(name=name, place=pair.place, factors=found.cut(rank), energy=energy))
            changed[pair.place] = total
        report(Tick("extract", done, len(plan.pairs), note=name))
    return layers, changed


def difference(plan: ExtractPlan, pair: LayerPair, maps: list[MappedFiles]) -> Tensor:
    """tuned - base of one layer, fp32, in the base's shape. Raises JobFailed for numbers that are none."""
    import torch

    tuned, base = (
        _stored(layout, target, mapped) for layout, target, mapped in zip(plan.layouts, (pair.tuned, pair.base), maps, strict=True)
    )
    change = tuned.to(torch.float32, copy=True)
    for first in range(0, change.shape[0], CHUNK):
        change[first : first + CHUNK] -= base[first : first + CHUNK].to(torch.float32)
    if change.shape[0] and not all(bool(bound.isfinite()) for bound in torch.aminmax(change)):
        raise JobFailed(f"{pair.base.key} is not finite in one of the two. Nothing was written.")
    return change.reshape(pair.shape)


def _stored(layout: Layout, target: TargetSlice, mapped: MappedFiles) -> Tensor:
    """One side's numbers as they lie in its file, flat."""
    stored = layout.tensors[target.key]
    height = stored.info.shape[0] if stored.info.shape else 1
    width = stored.info.elements // height
    first, last = target.rows or (0, height)
    return mapped.tensor(stored, first * width, (last - first) * width)


def _spectrum(change: Tensor, plan: ExtractPlan, place: ModuleId) -> Spectrum:
    """The whole, or the first values where only so many are wanted; the random start is the layer's own."""
    if plan.keep.rank is None:
        return dense_spectrum(change)
    digest = hashlib.sha256(f"{plan.seed} {place[0]} {place[1]}".encode()).digest()
    return leading_spectrum(change, plan.keep.rank, seed=int.from_bytes(digest[:7], "big"))
