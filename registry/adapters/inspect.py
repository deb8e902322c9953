"""What is in an adapter: how strongly each module acts, with how many directions, and which do nothing or are broken."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import bias_delta, changes_bias, changes_weight, delta, kind_of, tensor_fault
from registry.adapters.factors import Factors, inner
from registry.adapters.reader import Adapter, Module
from registry.adapters.spectra import factors_of, sum_spectrum
from registry.adapters.understood import adapter_faults
from registry.errors import Faults, Refused

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = re.compile(
    r"(down_blocks_\d+|mid_block|up_blocks_\d+|encoder_layers_\d+|(?:double|single|joint)_blocks_\d+|(?:single_)?transformer_blocks_\d+|layers_\d+|blocks_\d+)"
)


@dataclass(frozen=True, kw_only=True)
class ModuleFacts:
    """One module in numbers. `norm` is the Frobenius norm of its delta, None where that needs the base."""

    name: str
    component: str
    block: str
    algorithm: str
    rank: int | None
    scale: float | None
    norm: float | None
    largest: float | None  # singular value
    effective_rank: float | None
    fault: str | None = None  # why it cannot be read
    state: str  # ok, zero (does nothing), broken (numbers that are none), base (cannot be computed without the base)


@dataclass(frozen=True, kw_only=True)
class AdapterReport:
    """An adapter in numbers."""

    path: str
    modules: tuple[ModuleFacts, ...]
    left: tuple[str, ...]

    def blocks(self) -> dict[str, dict[str, float | None]]:
        """'component block' -> modules; norm (of all deltas together) and mean effective rank of those computed; None: of none."""
        found: dict[str, list[ModuleFacts]] = {}
        for module in self.modules:
            found.setdefault(f"{module.component} {module.block}", []).append(module)
        return {name: {"modules": len(members)} | _of_block(members) for name, members in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        states = [module.state for module in self.modules]
        return {
            "path": self.path,
            "modules": [asdict(module) for module in self.modules],
            "blocks": self.blocks(),
            "zero": states.count("zero"),
            "broken": states.count("broken"),
            "left": list(self.left),
        }


def _of_block(members: Sequence[ModuleFacts]) -> dict[str, float | None]:
    """Norm and mean effective rank of the modules that are computed; None where none is."""
    norms = [member.norm for member in members if member.norm is not None]
    ranks = [member.effective_rank for member in members if member.effective_rank is not None]
    return {"norm": math.hypot(*norms) if norms else None, "effective_rank": sum(ranks) / len(ranks) if ranks else None}


def inspect_adapter(adapter: Adapter) -> AdapterReport:
    """The numbers of every module."""
    return AdapterReport(path=str(adapter.path), modules=tuple(map(_facts, adapter.modules)), left=adapter.left)


def _facts(module: Module) -> ModuleFacts:
    component, name = module.place
    found = BLOCK.search(name)
    plain: dict[str, Any] = {
        "name": module.name,
        "component": component,
        "block": found[1] if found else "other",
        "algorithm": kind_of(module),
        "rank": module.rank,
        "scale": module.scale(module.rank) if module.rank else None,
    }
    nothing: dict[str, Any] = {"norm": None, "largest": None, "effective_rank": None}
    if fault := tensor_fault(module):
        return ModuleFacts(**plain, **nothing, fault=fault, state="broken")
    if any(not _finite(module, role) for role in module.stored):
        return ModuleFacts(**plain, **nothing, state="broken")
    if module.needs_base:
        return ModuleFacts(**plain, **nothing, state="base")
    if not changes_weight(module):
        return ModuleFacts(**plain, **nothing, state="ok")
    try:
        values = sum_spectrum([(module, 1.0)], lambda _values, _square: 1)
    except (Refused, RuntimeError, ValueError, IndexError):  # factors that do not fit each other, numbers without an SVD
        return ModuleFacts(**plain, **nothing, state="broken")
    return ModuleFacts(
        **plain,
        norm=values.norm,
        largest=float(values.values[0]),
        effective_rank=values.effective_rank,
        state="ok" if values.norm > 0 else "zero",
    )


def _finite(module: Module, role: str) -> bool:
    import torch

    return module.stored[role].info.elements == 0 or bool(torch.isfinite(module.tensor(role)).all())


def draw(report: AdapterReport, path: Path) -> None:
    """An image of the blocks: norm and effective rank of each."""
    from io import BytesIO

    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    from registry.formats.atomic_file import atomic_file

    blocks = report.blocks()
    figure = Figure(figsize=(9, 1.2 + 0.26 * len(blocks)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, what in zip(axes, ("norm", "effective_rank"), strict=True):
        axis.barh(list(blocks), [math.nan if (value := values[what]) is None else value for values in blocks.values()], color="#4c72b0")
        axis.set_title({"norm": "norm of the change", "effective_rank": "effective rank (mean)"}[what])
        axis.invert_yaxis() if what == "norm" else None
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with atomic_file(path, needed=len(buffer.getvalue())) as file:
        file.write(buffer.getvalue())


# --- two adapters


@dataclass(frozen=True, kw_only=True)
class ModuleDifference:
    """One module of two adapters: the norms of both changes and of their difference, and the cosine between them."""

    name: str
    first: float
    second: float
    difference: float
    cosine: float | None  # None where one of them does nothing


@dataclass(frozen=True, kw_only=True)
class AdapterDifference:
    """How two adapters differ."""

    modules: tuple[ModuleDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    skipped: tuple[str, ...]  # what needs the base

    @property
    def same(self) -> bool:
        """Whether they change every weight alike, to a millionth of the change."""
        close = all(module.difference <= 1e-6 * max(module.first, module.second) for module in self.modules)
        return close and not (self.only_first or self.only_second or self.skipped)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {"same": self.same, **asdict(self), "cosine": self.cosine}

    @property
    def cosine(self) -> float | None:
        """The cosine between both changes as a whole."""
        product = sum((module.cosine or 0.0) * module.first * module.second for module in self.modules)
        lengths = [math.sqrt(sum(getattr(module, side) ** 2 for module in self.modules)) for side in ("first", "second")]
        return product / (lengths[0] * lengths[1]) if all(lengths) else None


def diff_adapters(one: Adapter, other: Adapter) -> AdapterDifference:
    """The difference of two adapters, module by module, whatever their spelling. Deltas of plain LoRAs are never made.

    Raises Faults for modules that cannot be read, Refused for those of another shape.
    """
    for adapter in (one, other):
        if faults := adapter_faults(adapter):
            raise Faults(f"{adapter.path} cannot be compared:", faults)
    places = [place for place in one.by_place if place in other.by_place]
    bent = [one.by_place[place].name for place in places if one.by_place[place].needs_base or other.by_place[place].needs_base]
    modules = [_difference(one.by_place[place], other.by_place[place]) for place in places if one.by_place[place].name not in bent]
    return AdapterDifference(
        modules=tuple(modules),
        only_first=tuple(module.name for place, module in one.by_place.items() if place not in other.by_place),
        only_second=tuple(module.name for place, module in other.by_place.items() if place not in one.by_place),
        skipped=tuple(bent),
    )


def _difference(one: Module, other: Module) -> ModuleDifference:
    try:
        return _compared(one, other)
    except (RuntimeError, ValueError, IndexError) as error:  # torch's, of shapes that do not fit
        raise Refused(f"{one.name} has another shape in both adapters, or factors that do not fit each other ({error}).") from error


def _compared(one: Module, other: Module) -> ModuleDifference:
    if one.is_product and other.is_product:
        factors: Sequence[Factors] = (factors_of(one), factors_of(other))
        products = inner(factors[0], factors[0]), inner(factors[0], factors[1]), inner(factors[1], factors[1])
    else:
        products = _products([delta(module) if changes_weight(module) else None for module in (one, other)])
    biases = _products([bias_delta(module) if changes_bias(module) else None for module in (one, other)])
    products = products[0] + biases[0], products[1] + biases[1], products[2] + biases[2]
    if not all(map(math.isfinite, products)):
        raise Refused(f"{one.name} has numbers that are none (NaN or infinite) in one of the two. Look at it with `loraloom lora inspect`.")
    first, second = math.sqrt(max(0.0, products[0])), math.sqrt(max(0.0, products[2]))
    return ModuleDifference(
        name=one.name,
        first=first,
        second=second,
        difference=math.sqrt(max(0.0, products[0] - 2 * products[1] + products[2])),
        cosine=products[1] / (first * second) if first and second else None,
    )


def _products(pair: Sequence[Tensor | None]) -> tuple[float, float, float]:
    """first . first, first . second, second . second of two changes; None is no change."""
    first, second = (None if change is None else change.double().reshape(-1) for change in pair)
    return (
        0.0 if first is None else float(first @ first),
        0.0 if first is None or second is None else float(first @ second),
        0.0 if second is None else float(second @ second),
    )
