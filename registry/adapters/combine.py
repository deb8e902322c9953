"""Several adapters as one, and one adapter at another rank: the weighted sum of their deltas, exact or truncated by its SVD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import changes_weight, finite, kind_of
from registry.adapters.factors import Factors, Keep, concatenated, one_thread, spectrum
from registry.adapters.named_sources import NamedAdapter, find_adapters, place_faults, source_entries, understood_faults
from registry.adapters.reader import Adapter, Module
from registry.adapters.result import AdapterResult, Layer, beside_factors, has_matrix, is_unet, metadata_of, module_names, save, tensors_of
from registry.adapters.shape_check import NO_KERNEL, layer_shape, outline_shape
from registry.adapters.spectra import factors_of, sum_spectrum
from registry.adapters.understood import left_out
from registry.adapters.writer import adapter_tensors
from registry.detect.licences import inherited
from registry.errors import Faults
from registry.formats.dialects import DIALECTS, writing_of
from registry.home import expanded
from registry.index.written import writing_output
from registry.merging.recipe import DTYPES
from registry.printable import as_lines, counted
from registry.progress import Report, Tick, silent
from registry.tensors.role_form import BIASES

if TYPE_CHECKING:
    from torch import Tensor

    from registry.references import Weighted
    from registry.store import Store

TOLERANCE = 1e-6  # singular values of an exact decomposition below this share of the first are rounding


@dataclass(frozen=True, kw_only=True)
class CombinePlan:
    """A combination that can be run."""

    given: tuple[NamedAdapter, ...]
    references: tuple[str, ...]
    keep: Keep | None  # None: exact
    output: Path
    dtype: str  # a safetensors word
    name: str | None
    tool: str
    places: tuple[tuple[str, str], ...]
    ranks: Mapping[tuple[str, str], int]  # exact rank of each module, as far as it is known from the header
    left: tuple[str, ...]  # keys of no module
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "tool": self.tool,
            "adapters": [
                {"ref": ref, "name": one.record.name, "weight": one.weight, "family": one.record.family}
                for ref, one in zip(self.references, self.given, strict=True)
            ],
            "output": str(self.output),
            "modules": len(self.places),
            "dtype": self.dtype,
            "keep": "exact" if self.keep is None else self.keep.to_plain(),
            "rank": max(self.ranks.values(), default=0) if self.keep is None else self.keep.rank,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        lines = [f"{self.tool}: {counted(len(self.places), 'module')} to {self.output}"]
        for one in self.given:
            lines.append(
                f"  {one.record.name} at {one.weight:g} ({one.record.family or 'family unknown'}, "
                f"{counted(len(one.adapter.modules), 'module')})"
            )
        rank = f"exact, rank up to {max(self.ranks.values(), default=0)}" if self.keep is None else str(self.keep.to_plain())
        return as_lines([*lines, f"  {rank}; {self.dtype}", *(f"note: {note}" for note in self.notes)])


def plan_combine(
    references: Sequence[Weighted],
    store: Store,
    output: Path | str,
    *,
    keep: Keep | None = None,
    dtype: str | None = None,
    average: bool = False,
    name: str | None = None,
    tool: str = "combine",
) -> CombinePlan:
    """Everything checked, nothing written. `keep` None is the exact sum; `average` divides the weights by their sum. Raises Faults."""
    faults: list[str] = []
    output = expanded(output).absolute()
    given = find_adapters(references, store, faults)
    if not references:
        faults.append("no adapter was given. Name at least one: REF:WEIGHT.")
    if average and given:
        total = sum(one.weight for one in given)
        if total == 0:
            faults.append("the weights sum to 0 and cannot be averaged.")
        else:
            given = [replace(one, weight=one.weight / total) for one in given]
    faults += keep.faults() if keep else []
    if dtype is not None and dtype not in DTYPES:
        faults.append(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    faults += place_faults(output, name)
    faults += _module_faults(given)
    if faults:
        raise Faults(f"This {tool} was not started:", dict.fromkeys(faults))
    places = tuple(dict.fromkeys(module.place for one in given for module in one.adapter.modules))
    ranks = {place: sum(one.adapter.by_place[place].rank or 0 for one in given if place in one.adapter.by_place) for place in places}
    left = [f"{one.record.name}: {key}" for one in given for key in left_out(one.adapter)]
    notes = inherited((one.record.name, one.record.licence) for one in given).notes()
    if not any(one.weight for one in given):
        notes.append("every weight is 0: the result is all zeros, and changes nothing")
    if left:
        notes.append(f"{counted(len(left), 'key belongs', 'keys belong')} to no module, and left out, the first: {left[0]}")
    return CombinePlan(
        given=tuple(given),
        references=tuple(one.reference for one in given),
        keep=keep,
        output=output,
        dtype=DTYPES[dtype] if dtype else _widest(given),
        name=name,
        tool=tool,
        places=places,
        ranks=ranks,
        left=tuple(left),
        notes=tuple(notes),
    )


def _widest(given: Sequence[NamedAdapter]) -> str:
    """The first adapter's dtype, or fp32 when they differ: a sum needs the wider one."""
    dtypes = {one.adapter.dtype for one in given}
    return dtypes.pop() if len(dtypes) == 1 else "F32"


def _module_faults(given: Sequence[NamedAdapter]) -> list[str]:
    """Modules that cannot be summed without their base, or twice the same place in one file, or other shapes."""
    faults, unet = understood_faults(given), is_unet(_family(given))
    shapes: dict[tuple[str, str], dict[tuple[int, ...], str]] = {}
    biases: dict[tuple[str, str], dict[int, str]] = {}
    for one in given:
        bent = sorted({kind_of(module) for module in one.adapter.modules if module.needs_base})
        if bent:
            faults.append(
                f"{one.record.name} holds {' and '.join(bent)}, whose change depends on the base's weights and has no sum without them. "
                "Fuse it into its base, and take the difference: loraloom lora extract."
            )
        tables = sum(module.algorithm in ("table", "embedding") for module in one.adapter.modules)
        if tables:
            faults.append(
                f"{one.record.name} changes embeddings in {counted(tables, 'module')}, which are not summed here. Fuse it instead."
            )
        if len(one.adapter.by_place) < len(one.adapter.modules):
            faults.append(f"{one.record.name} names a module twice.")
        if faults or bent or tables:
            continue
        for module in one.adapter.modules:
            for role in module.roles & set(BIASES):
                count = module.stored[role].info.elements
                biases.setdefault(module.place, {}).setdefault(count, f"{one.record.name} [{count}]")
        for module in filter(changes_weight, one.adapter.modules):
            shape = outline_shape(module)
            if shape is None:
                faults.append(f"{one.record.name}: the factors of {module.name} do not fit each other.")
            elif (shape := layer_shape(module, shape, unet=unet)) is None:
                faults.append(f"{one.record.name}: {module.name} {NO_KERNEL}")
            else:
                shapes.setdefault(module.place, {}).setdefault(_flat(shape), f"{one.record.name} {list(shape)}")
    faults += [f"{place[1]} has different shapes: {' and '.join(found.values())}." for place, found in shapes.items() if len(found) > 1][:3]
    lengths = [f"{place[1]} has different biases: {' and '.join(found.values())}." for place, found in biases.items() if len(found) > 1]
    return faults + lengths[:3]


def _family(given: Sequence[NamedAdapter]) -> str | None:
    """The first adapter's whose family is known."""
    return next((one.record.family for one in given if one.record.family), None)


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1 x 1 convolution is a matrix."""
    return shape[:2] if all(size == 1 for size in shape[2:]) else shape


def run_combine(plan: CombinePlan, store: Store, *, report: Report = silent, register: bool = True) -> AdapterResult:
    """Compute, write and register a planned combination; `result` has the retained energy of every layer."""
    with writing_output(plan.output, store, register=register):
        return _written(plan, store, report, register=register)


def _written(plan: CombinePlan, store: Store, report: Report, *, register: bool) -> AdapterResult:
    began = monotonic()
    records = [one.record for one in plan.given]
    recipe = {
        "tool": f"lora {plan.tool}",
        "sources": source_entries(records, plan.references, store),
        "weights": [one.weight for one in plan.given],
        "keep": None if plan.keep is None else plan.keep.to_plain(),
        "dtype": plan.dtype,
    }
    first = plan.given[0].adapter
    if _unchanged(plan):
        tensors, metadata, layers = _as_it_is(first), {**first.metadata}, []
        metadata |= {key: value for key, value in metadata_of(first, recipe, []).items() if key == "loraloom_recipe"}
    else:
        spelling = _spelling(plan.given)
        with one_thread():
            layers = _layers(plan, report)
            names = _names(plan.given)
            whole = beside_factors(((names[place], _parts(plan, place)) for place in plan.places), spelling)
            beside = adapter_tensors(whole, writing_of(spelling), dtype=plan.dtype)
        tensors, metadata = tensors_of(layers, spelling=spelling, dtype=plan.dtype) | beside, metadata_of(first, recipe, layers)
    numbers = {
        "modules": len(plan.places),
        "ranks": {layer.name: layer.factors.rank for layer in layers},
        "retained": {layer.name: round(layer.energy, 9) for layer in layers},
        "left": list(plan.left),
        "retained_least": round(min((layer.energy for layer in layers), default=1.0), 9),
    }
    return save(
        tensors,
        metadata,
        plan.output,
        store,
        recipe=recipe,
        roles=["adapter"] * len(records),
        terms=inherited((record.name, record.licence) for record in records),
        family=_family(plan.given),
        name=plan.name,
        began=began,
        numbers=numbers,
        register=register,
        report=report,
    )


def _unchanged(plan: CombinePlan) -> bool:
    """One adapter at weight 1, exact, in its own dtype: nothing is computed."""
    one = plan.given[0]
    same = len(plan.given) == 1 and one.weight == 1.0 and plan.keep is None and plan.dtype == one.adapter.dtype
    return same and all(module.is_plain and _has_its_scale(module) for module in one.adapter.modules)


def _has_its_scale(module: Module) -> bool:
    """Whether the tensors have a module's scale: one in the header, or in an adapter_config.json beside it, is not read by every tool."""
    return module.alpha is None or "alpha" in module.roles or module.scale(module.rank or 0) == 1.0


def _as_it_is(adapter: Adapter) -> dict[str, Tensor]:
    """The file's own tensors, without those that belong to no module."""
    from safetensors.torch import load_file

    left = set(adapter.left)
    return {name: tensor for name, tensor in load_file(adapter.path).items() if name not in left}


def _layers(plan: CombinePlan, report: Report) -> list[Layer]:
    names, unet = _names(plan.given), is_unet(_family(plan.given))
    layers = []
    for done, place in enumerate(plan.places, 1):
        if parts := [(module, weight) for module, weight in _parts(plan, place) if has_matrix(module)]:
            found, energy = combined(parts, plan.keep)
            shapes = [layer_shape(module, found.shape, unet=unet) or found.shape for module, _ in parts]
            found = replace(found, shape=max(shapes, key=len))  # with the axes of a kernel that a factor has flattened
            layers.append(Layer(name=names[place], place=place, factors=found, energy=energy))
        report(Tick(plan.tool, done, len(plan.places), note=names[place]))
    return layers


def _parts(plan: CombinePlan, place: tuple[str, str]) -> list[tuple[Module, float]]:
    return [(one.adapter.by_place[place], one.weight) for one in plan.given if place in one.adapter.by_place]


def combined(parts: Sequence[tuple[Module, float]], keep: Keep | None) -> tuple[Factors, float]:
    """(factors of the weighted sum, share of its energy that they hold). A part of weight 0 takes no part."""
    active = [(module, weight) for module, weight in parts if weight != 0.0] or [(parts[0][0], 0.0)]
    for module, _ in active:
        for role in module.roles:
            finite(module.tensor(role), module)
    if all(module.is_product for module, _ in active):
        whole = concatenated([(factors_of(module), weight) for module, weight in active])
        if keep is None:
            return whole, 1.0
        found = spectrum(whole)
    else:
        found = sum_spectrum(active, _numerical_rank if keep is None else keep.of, None if keep is None else keep.rank)
        if keep is None:
            rank = _numerical_rank(found.values, found.square)
            return found.cut(rank), found.energy(rank)
    rank = keep.of(found.values, found.whole)
    return found.cut(rank), found.energy(rank)


def _numerical_rank(values: Tensor, _square: float) -> int:
    """How many singular values are no rounding."""
    return int((values > TOLERANCE * values[0]).sum())


# --- names


def _spelling(given: Sequence[NamedAdapter]) -> str:
    """The adapters' own spelling when they agree, else kohya's, which all readers know."""
    spellings = {one.adapter.spelling for one in given}
    return spellings.pop() if len(spellings) == 1 else "kohya"


def _names(given: Sequence[NamedAdapter]) -> dict[tuple[str, str], str]:
    """Place -> the module's name in the result: as the first adapter that has it spells it, or kohya's when they spell differently."""
    own = any(DIALECTS[one.adapter.dialect].own_modules for one in given)
    if own or len({one.adapter.spelling for one in given}) > 1:
        return module_names((module.place for one in given for module in one.adapter.modules), _family(given))
    return {module.place: module.name for one in reversed(given) for module in one.adapter.modules}
