"""Adapters fused into a checkpoint: W + the sum of their deltas, streamed like any merge, with coverage and retention reported.

Every delta is computed from the base's own weight, so the order of the adapters does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import changes_weight, kind_of
from registry.adapters.delta_retention import FUSE, Part, Retention, options_of
from registry.adapters.named_sources import NamedAdapter, family_faults, find_adapters, find_checkpoint, understood_faults
from registry.adapters.reader import Module
from registry.adapters.shape_check import misshape
from registry.adapters.targets import Targets, TargetSlice, biases_of, targets_of
from registry.adapters.understood import left_out
from registry.detect.licences import inherited
from registry.errors import Faults
from registry.formats.safetensors_header import TensorInfo
from registry.home import expanded
from registry.merging.job import Merged, run_plan
from registry.merging.keys import Key, Keys
from registry.merging.plan import (
    MIB,
    MergePlan,
    disk_faults,
    files_of,
    name_faults,
    others_of,
    output_faults,
)
from registry.merging.recipe import DTYPES, Recipe, Source
from registry.printable import counted, some
from registry.progress import Report, silent
from registry.record import Record
from registry.tensors.layout import FLOATS, Layout

if TYPE_CHECKING:
    from registry.references import Weighted
    from registry.store import Store

TEXT = "text_encoder"  # the first part of each text encoder's name
LEAST_RETAINED = 0.95  # share of the change; where the output's dtype leaves less of it, the command warns


@dataclass
class Coverage:
    """How many of the adapters' modules the base has, by component, and which it has not."""

    placed: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # no such module in the base
    mismatched: list[str] = field(default_factory=list)  # there, in another shape
    left: list[str] = field(default_factory=list)  # keys of the files that belong to no module
    absent: dict[str, int] = field(default_factory=dict)  # text encoder -> modules, where the base has none: it is not counted
    without_bias: list[str] = field(default_factory=list)  # modules that change a bias where the base has none

    @property
    def share(self) -> float:
        """Placed of all, 0 to 1."""
        total = sum(self.total.values())
        return sum(self.placed.values()) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        components = {name: {"placed": self.placed.get(name, 0), "total": total} for name, total in self.total.items()}
        return {
            "share": self.share,
            "components": components,
            "missing": self.missing,
            "mismatched": self.mismatched,
            "left": self.left,
            "absent": self.absent,
        }

    def to_text(self) -> str:
        """'denoiser 128 of 128, text_encoder 0 of 72; not in the base: ...'."""
        text = ", ".join(f"{name} {self.placed.get(name, 0)} of {total}" for name, total in self.total.items())
        for what, names in (("not in the base", self.missing), ("of another shape", self.mismatched), ("keys of no module", self.left)):
            text += f"; {what}: {some(names)}" if names else ""
        return "; ".join(filter(None, (text, self.without())))

    def without(self) -> str:
        """'the base has no text encoder: 72 modules of text_encoder are left out'; empty where nothing is."""
        names = ", ".join(f"{counted(count, 'module')} of {name}" for name, count in self.absent.items())
        return f"the base has no text encoder: {names} are left out" if names else ""


@dataclass(frozen=True, kw_only=True)
class FusePlan:
    """A fusion that can be run: a merge plan with the adapters' coverage."""

    merge: MergePlan
    coverage: Coverage
    retained: Retention
    weights: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {**self.merge.to_json(), "coverage": self.coverage.to_json(), "weights": list(self.weights)}

    def to_text(self) -> str:
        """The plan for a person."""
        return f"{self.merge.to_text()}\n  modules applied: {self.coverage.to_text()}"


def plan_fuse(
    base: str,
    adapters: Sequence[Weighted],
    store: Store,
    output: Path | str,
    *,
    dtype: str | None = None,
    coverage: float = 1.0,
    name: str | None = None,
    memory_mib: int = 512,
    threads: int | None = None,
) -> FusePlan:
    """Everything checked, nothing written. `coverage` is the share of the adapters' modules that must be in the base. Raises Faults."""
    faults: list[str] = []
    output = expanded(output).absolute()
    found = find_checkpoint(base, store, faults, expected="a checkpoint was expected as the base. Adapters follow --adapter.")
    given = find_adapters(adapters, store, faults)
    layout = found[1] if found else None
    if not adapters:
        faults.append("no adapter was given. Name at least one: --adapter REF:WEIGHT.")
    if dtype is not None and dtype not in DTYPES:
        faults.append(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    faults += output_faults(output, [layout.path] if layout else [], folder=bool(layout and layout.is_folder))
    faults += name_faults(name or output.stem)
    if found is None or not given:
        raise Faults("This fusion was not started:", faults)
    faults += [*family_faults(found[0], given), *(unread := understood_faults(given))]
    covered = Coverage()
    family = next((record.family for record in (found[0], *(one.record for one in given)) if record.family), None)
    parts = _parts(given, found[1], targets_of(found[1], family), covered)
    if covered.without_bias:
        faults.append(
            f"{len(covered.without_bias)} of the adapters' modules change a bias that their layer in the base has not, and a weight cannot "
            f"hold it: {some(covered.without_bias)}."
        )
    if all(one.weight == 0.0 for one in given):
        faults.append("every adapter has the weight 0, which changes nothing. Give one, as in --adapter ink:0.8.")
    elif not unread and (covered.share < coverage or not parts):
        advice = "Use an adapter made for this base, or accept less: --coverage 0.8."
        faults.append(
            f"{covered.share:.1%} of the adapters' modules are in the base, {coverage:.0%} are required: {covered.to_text()}. {advice}"
        )
    recipe = Recipe(
        method="fuse",
        sources=(Source(ref=base), *(Source(ref=one.reference) for one in given)),
        params={"weights": tuple(one.weight for one in given)},
        dtype=dtype,
        name=name or output.stem,
    )
    retained = Retention()
    keys = _keys(found[1], parts, dtype if not faults else None, retained)
    plan = _merge_plan(recipe, found, given, keys, covered, output, memory_mib=memory_mib, threads=threads)
    faults += _memory_faults(keys, memory_mib) + disk_faults(output, plan.bytes + MIB)
    if faults:
        raise Faults("This fusion was not started:", dict.fromkeys(faults))
    return FusePlan(merge=plan, coverage=covered, retained=retained, weights=tuple(one.weight for one in given))


def _merge_plan(
    recipe: Recipe,
    base: tuple[Record, Layout],
    given: Sequence[NamedAdapter],
    keys: Keys,
    covered: Coverage,
    output: Path,
    *,
    memory_mib: int,
    threads: int | None,
) -> MergePlan:
    """The fusion as a merge of the base alone, whose method adds the adapters."""
    records = (base[0], *(one.record for one in given))
    terms = inherited((record.name, record.licence) for record in records)
    notes = [*keys.notes, *terms.notes()]
    if covered.absent:
        notes.append(f"{covered.without()}. Load them with the adapter where the prompts are encoded.")
    if covered.share < 1.0:
        notes.append(f"not every module is in the base: {covered.to_text()}")
    return MergePlan(
        recipe=recipe,
        method=FUSE,
        records=records,
        layouts=(base[1],),
        output=output,
        keys=keys,
        files=files_of([base[1]], keys, None, folder=base[1].is_folder),
        others=others_of(base[1]),
        terms=terms,
        memory_mib=memory_mib,
        threads=threads or MergePlan.usual_threads(),
        notes=tuple(notes),
    )


def run_fuse(plan: FusePlan, store: Store, *, report: Report = silent, register: bool = True) -> Merged:
    """Write and register a planned fusion; `result` also has coverage, retained and noise."""
    done = run_plan(plan.merge, store, report=report, register=register)
    share = plan.retained.share
    noise = plan.retained.noise
    result = {
        **done.result,
        "coverage": plan.coverage.to_json(),
        "retained": None if share is None else round(share, 6),
        "noise": None if noise is None else round(noise, 6),
    }
    return replace(done, result=result)


def _parts(given: Sequence[NamedAdapter], layout: Layout, places: Targets, covered: Coverage) -> dict[str, list[Part]]:
    """Key -> the parts that change it; the coverage is counted on the way."""
    found: dict[str, list[Part]] = {}
    encoders = any(component.startswith(TEXT) for component in layout.components)
    for one in given:
        covered.left += [f"{one.record.name}: {key}" for key in left_out(one.adapter)]
        for module in one.adapter.modules:
            component = module.place[0]
            if component.startswith(TEXT) and not encoders:
                covered.absent[component] = covered.absent.get(component, 0) + 1
                continue
            covered.total[component] = covered.total.get(component, 0) + 1
            targets = places.find(module)
            if targets is None:
                covered.missing.append(module.name)
            elif wrong := misfit(module, targets, layout):
                covered.mismatched.append(f"{module.name} ({wrong})")
            else:
                covered.placed[component] = covered.placed.get(component, 0) + 1
                biases = biases_of(module, targets, layout)
                if biases is None:
                    covered.without_bias.append(module.name)
                for part in module_parts(module, targets, biases or (), one.weight):
                    found.setdefault(part.target.key, []).append(part)
    return found


def module_parts(module: Module, targets: Sequence[TargetSlice], biases: Sequence[TargetSlice], weight: float) -> list[Part]:
    """What a module changes: its targets and, where it has any, their biases."""
    if weight == 0.0:
        return []
    parts = [Part(module, target, weight) for target in targets] if changes_weight(module) else []
    return [*parts, *(Part(module, target, weight, bias=True) for target in biases)]


def misfit(module: Module, targets: Sequence[TargetSlice], layout: Layout) -> str | None:
    """Why a module's change cannot be added to its targets, by headers alone; None when it can."""
    if module.needs_base and len(targets) > 1:
        return f"{kind_of(module)} on a layer that the base holds in {len(targets)} parts: its change needs all of the layer at once"
    if strange := next((info.dtype for target in targets if (info := layout.tensors[target.key].info).dtype not in FLOATS), None):
        return f"{strange} in the base, where floating point numbers were expected"
    target = layout.tensors[targets[0].key].info.shape
    return misshape(module, (sum(_rows(target, layout) for target in targets), *target[1:]))


def _rows(target: TargetSlice, layout: Layout) -> int:
    return target.rows[1] - target.rows[0] if target.rows else layout.tensors[target.key].info.shape[0]


def _keys(layout: Layout, parts: Mapping[str, Sequence[Part]], dtype: str | None, retained: Retention) -> Keys:
    found = Keys()
    for name, stored in layout.tensors.items():
        convert = dtype is not None and stored.info.dtype in FLOATS and stored.info.elements > 0
        out = TensorInfo(DTYPES[dtype] if convert and dtype else stored.info.dtype, stored.info.shape)
        if name in parts and stored.info.dtype in FLOATS:
            options = options_of(parts[name], shape=stored.info.shape, dtype=out.dtype, retained=retained)
            found.keys[name] = Key(name=name, out=out, sources=(stored,), options=options)
        else:
            found.keys[name] = Key(name=name, out=out, sources=(stored,), copied="no adapter changes it")
    return found


def _memory_faults(keys: Keys, memory_mib: int) -> list[str]:
    """A plain LoRA's change is made row by row; any other is made whole: it, its making, the next one's beside it, and the base."""
    whole = (key for key in keys.keys.values() if key.merged and not all(part.by_rows for part in key.options["parts"]))
    largest = max((key.out.elements for key in whole), default=0)
    needed = (largest * 4 * 5 + 64 * MIB) / MIB
    return (
        [f"memory_mib={memory_mib} is too little for this base's largest changed tensor: at least {needed:.0f}."]
        if memory_mib < needed
        else []
    )
