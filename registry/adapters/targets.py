"""The tensors of a checkpoint that an adapter's modules change: whole, or rows of fused layers.

Read in reverse, they are the modules that an adapter for this checkpoint can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from registry.adapters.delta import changes_bias
from registry.adapters.reader import Module, ModuleId, canonical
from registry.architectures.unet.diffusers_names import diffusers_module, layers_per_block
from registry.detect.module_shapes import OPEN_CLIP, RESBLOCK, underscored
from registry.families import FAMILIES
from registry.formats.layers import AdapterNames, Layer, originals
from registry.tensors.layout import FLOATS, Layout


@dataclass(frozen=True)
class TargetSlice:
    """A part of a weight: rows first..last of a checkpoint's tensor (None: all), from rows of the delta that begin at `origin`."""

    key: str
    rows: tuple[int, int] | None = None
    origin: int = 0


@dataclass(frozen=True)
class Targets:
    """(component, canonical module) -> its target slices, in order; and the module names for an adapter written for this checkpoint."""

    targets: Mapping[ModuleId, tuple[TargetSlice, ...]]
    biases: Mapping[ModuleId, str]
    own: tuple[tuple[ModuleId, str], ...]  # every module once: place, dotted name

    def find(self, module: Module) -> tuple[TargetSlice, ...] | None:
        """The target slices of an adapter's module; None: this checkpoint has no such module."""
        return self.targets.get(module.place)


def biases_of(module: Module, targets: Sequence[TargetSlice], layout: Layout) -> list[TargetSlice] | None:
    """The biases that a module changes beside these weights, in the same rows; None where a layer has none to add to."""
    if not changes_bias(module):
        return []
    found = [replace(target, key=f"{target.key.removesuffix('weight')}bias") for target in targets]
    present = [target for target in found if target.key in layout.tensors and layout.tensors[target.key].info.dtype in FLOATS]
    return present if len(present) == len(found) or module.algorithm == "ia3" else None  # IA3 scales a bias where there is one


def targets_of(layout: Layout, family: str | None = None) -> Targets:
    """The targets in a checkpoint under every name that adapters of its family use for them."""
    targets: dict[ModuleId, tuple[TargetSlice, ...]] = {}
    biases: dict[ModuleId, str] = {}
    own: list[tuple[ModuleId, str]] = []
    for component, keys in _by_component(layout).items():
        layers = layers_per_block(keys)
        for name, target in _modules(component, keys, layout):
            renamed = diffusers_module(name, layers=layers) if component == "denoiser" else None
            place = (component, canonical(component, renamed or name))
            if place not in targets:
                targets[place] = target
                own.append((place, renamed or name))
            targets.setdefault((component, canonical(component, name)), target)
        for name, key in keys.items():
            if name.endswith(".bias"):
                bare = name.removesuffix(".bias")
                renamed = diffusers_module(bare, layers=layers) if component == "denoiser" else None
                biases[(component, canonical(component, renamed or bare))] = key
        if component == "denoiser" and (names := names_of(family)) is not None:
            targets = dict(_other_names(names, keys, layout)) | targets
    return Targets(targets, biases, tuple(own))


def _by_component(layout: Layout) -> dict[str, dict[str, str]]:
    """Component -> {name inside it: key}."""
    from registry.detect.module_shapes import SINGLE_FILE

    found: dict[str, dict[str, str]] = {}
    for key in layout.tensors:
        component = layout.component(key)
        if component in ("vae", "ema"):
            continue
        if layout.diffusers:
            name = key.partition("/")[2]
        else:
            name = next((key[len(prefix) :] for prefix, _ in SINGLE_FILE if key.startswith(prefix)), key)
        found.setdefault(component, {})[name] = key
    return found


def _modules(component: str, keys: Mapping[str, str], layout: Layout) -> Iterator[tuple[str, tuple[TargetSlice, ...]]]:
    """(module, targets) of every weight; OpenCLIP's fused attention as the three modules it is."""
    for name, key in keys.items():
        shape = layout.tensors[key].info.shape
        found = RESBLOCK.fullmatch(name)
        if found and found[2] == "attn.in_proj_weight":
            third = shape[0] // 3
            for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
                yield f"encoder.layers.{found[1]}.self_attn.{part}", (TargetSlice(key, (index * third, (index + 1) * third)),)
        elif found and found[2] in OPEN_CLIP:
            yield f"encoder.layers.{found[1]}.{OPEN_CLIP[found[2]]}", (TargetSlice(key),)
        elif name.endswith(".weight") and len(shape) >= 1:
            yield name.removesuffix(".weight"), (TargetSlice(key),)


def names_of(family: str | None) -> AdapterNames | None:
    """How adapters of a family are spelled; None where nothing is known of it."""
    return FAMILIES[family].adapter_names if family is not None and family in FAMILIES else None


def _other_names(names: AdapterNames, keys: Mapping[str, str], layout: Layout) -> Iterator[tuple[ModuleId, tuple[TargetSlice, ...]]]:
    """The denoiser's layers in the other implementation's names: a fused one is several tensors, a single one rows of a fused tensor."""
    modules = {name.removesuffix(".weight"): key for name, key in keys.items() if name.endswith(".weight")}
    for layer in originals(names.layers, modules).values():
        own = [modules.get(module) for module in layer.modules]
        if layer.original not in modules and all(own):
            yield ("denoiser", underscored(layer.original)), _below([key for key in own if key], layout, layer)
    for name, key in modules.items():
        found = names.denoiser.find(name)
        if found is None or found.part is not None or layout.tensors[key].info.shape == ():
            continue
        shape = layout.tensors[key].info.shape
        inputs = shape[1] if len(shape) > 1 else shape[0]
        heights = found.layer.rows(inputs) if len(found.layer.modules) > 1 else (shape[0],)
        begin = 0
        for module, height in zip(found.layer.modules, heights, strict=True):
            rows = (begin, begin + height) if len(heights) > 1 else None
            begin += height
            if sum(heights) == shape[0]:
                swaps = found.layer.swaps(shape[0], inputs)
                yield ("denoiser", underscored(module)), _halves(key, shape[0]) if swaps else (TargetSlice(key, rows),)


def _below(keys: list[str], layout: Layout, layer: Layer) -> tuple[TargetSlice, ...]:
    """Weights that a fused delta's rows are for, in order."""
    shape = layout.tensors[keys[0]].info.shape
    if len(keys) == 1 and len(shape) > 1 and layer.swaps(*shape[:2]):
        return _halves(keys[0], shape[0])
    parts, begin = [], 0
    for key in keys:
        parts.append(TargetSlice(key, None, begin))
        begin += layout.tensors[key].info.shape[0]
    return tuple(parts)


def _halves(key: str, rows: int) -> tuple[TargetSlice, ...]:
    """A weight whose halves are in the other order in the other implementation."""
    half = rows // 2
    return TargetSlice(key, (0, half), half), TargetSlice(key, (half, rows), 0)
