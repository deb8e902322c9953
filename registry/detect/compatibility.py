"""Whether an adapter fits a base: its modules and shapes against the base's header, per component."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.adapters.delta import changes_bias, tensor_fault
from registry.adapters.reader import Adapter, read_adapter
from registry.adapters.shape_check import misshape
from registry.adapters.understood import adapter_faults
from registry.detect.module_shapes import BaseModules, ModuleShape, base_modules
from registry.formats.adapter_keys import adapter_keys
from registry.formats.adapter_shapes import LayerSize, layer_sizes
from registry.formats.quantised.model_shapes import GGUF
from registry.formats.safetensors_header import read_header
from registry.printable import some
from registry.tensors.layout import read_layout

SHOWN = 3  # modules named in an explanation


@dataclass(frozen=True)
class ComponentFit:
    """Number of an adapter's modules in one component that the base has with the same shape."""

    matched: int
    total: int


@dataclass(frozen=True)
class Fit:
    """How an adapter fits a base. `missing` are modules that the base lacks, `mismatched` those of another shape, each described.

    `refused` are the reasons why it cannot be applied whole to any base: fusing, drawing and conversion refuse it by them.
    """

    adapter: str
    base: str
    components: Mapping[str, ComponentFit]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    refused: tuple[str, ...] = ()
    absent: Mapping[str, int] = field(default_factory=dict)  # text encoder -> modules, where the base has none: it is not counted
    without_bias: tuple[str, ...] = ()  # modules that change a bias which the base has not: fusing refuses them

    @property
    def share(self) -> float:
        """Share of matched modules, 0 to 1."""
        total = sum(part.total for part in self.components.values())
        return sum(part.matched for part in self.components.values()) / total if total else 0.0

    @property
    def ok(self) -> bool:
        """Whether every module of the adapter matches, and is understood."""
        return self.share == 1.0 and not self.refused

    def explain(self) -> str:
        """One or two sentences: how much fits, and what does not."""
        parts = ", ".join(f"{name} {part.matched} of {part.total}" for name, part in self.components.items())
        text = f"{self.share:.0%} of its modules fit ({parts or 'it has none'})."
        if self.refused:
            text += f" It cannot be applied whole: {' '.join(self.refused[:SHOWN])}"
        if self.mismatched:
            text += f" Other shapes: {some(self.mismatched, SHOWN, between='; ')}."
        if self.missing:
            text += f" Not in the base: {some(self.missing, SHOWN, between='; ')}."
        if self.absent:
            text += f" The base has no text encoder, for which it has {sum(self.absent.values())} more modules."
        if self.without_bias:
            text += f" Fusing refuses it: the base has no bias in {some(self.without_bias, SHOWN, between='; ')}."
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "adapter": self.adapter,
            "base": self.base,
            "ok": self.ok,
            "share": self.share,
            "components": {name: {"matched": part.matched, "total": part.total} for name, part in self.components.items()},
            "missing": list(self.missing),
            "mismatched": list(self.mismatched),
            "refused": list(self.refused),
            "absent": dict(self.absent),
            "without_bias": list(self.without_bias),
        }


def fits(adapter: Path | str, base: Path | str) -> Fit:
    """The Fit of an adapter file and a base (diffusers folder or single file), by headers, alpha and flags. Raises BadFile."""
    adapter, base = Path(adapter), Path(base)
    header = read_header(adapter)
    keys = adapter_keys(header.tensors)
    read = read_adapter(adapter)
    refused = adapter_faults(read)
    own = {(module.component, module.spelled): module for module in read.modules}
    assert keys is not None  # read_adapter refuses a file that has none
    modules = base_modules(base)
    counts: dict[str, list[int]] = {}
    missing, mismatched = [], []
    absent: dict[str, int] = {}
    encoders = any(name.startswith("text_encoder") for name in modules.components)
    for (component, module), size in layer_sizes(keys, header.tensors).items():
        found = modules.find(component, module)
        named = found[0] if found else component or modules.denoiser
        if named == "denoiser":
            named = modules.denoiser
        if found is None and named.startswith("text_encoder") and not encoders:
            absent[named] = absent.get(named, 0) + 1
            continue
        count = counts.setdefault(named, [0, 0])
        count[1] += 1
        if found is None:
            missing.append(f"{named}.{module}")
        elif (wrong := _mismatch(size, found[1])) is not None:
            mismatched.append(f"{named}.{module} is {wrong}, the base has {found[1]}")
        elif (whole := own.get((component, module))) and (wrong := misshape(whole, found[1].shape)) and not tensor_fault(whole):
            mismatched.append(f"{named}.{module} ({wrong})")
        else:
            count[0] += 1
    parts = {name: ComponentFit(*count) for name, count in sorted(counts.items())}
    return Fit(str(adapter), str(base), parts, tuple(missing), tuple(mismatched), tuple(refused), absent, _without_bias(read, base))


def _without_bias(adapter: Adapter, base: Path) -> tuple[str, ...]:
    """The adapter's modules whose change of a bias has no place in this base."""
    from registry.adapters.targets import biases_of, targets_of  # not at the top: importing it imports every family

    changing = [module for module in adapter.modules if changes_bias(module)]
    if not changing or base.suffix.lower() == GGUF:  # which fusing refuses
        return ()
    layout = read_layout(base)
    places = targets_of(layout)
    found = ((module, places.find(module)) for module in changing)
    return tuple(module.name for module, targets in found if targets and biases_of(module, targets, layout) is None)


def _mismatch(layer: LayerSize, base: ModuleShape) -> str | None:
    """The sizes that an adapter's layer needs, described, where they differ from the base's; None when they agree."""
    area = math.prod(base.kernel or ())
    agrees = (
        layer.out in (None, base.out)
        and layer.into in (None, base.into)
        and (base.kernel is None or layer.kernel in (None, base.kernel))
        and (layer.flat is None or base.into is None or layer.flat == base.into * area)
        and (layer.either is None or layer.either in (base.out, base.into))
    )
    if agrees:
        return None
    if layer.either is not None:
        return f"for width {layer.either}"
    into = layer.into or (layer.flat // area if layer.flat else base.into)
    return str(ModuleShape(layer.out or base.out, into, layer.kernel or base.kernel))


__all__ = ["BaseModules", "ComponentFit", "Fit", "fits"]
