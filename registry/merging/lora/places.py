"""Where an adapter's modules lie in a checkpoint: the tensor, and the rows of it where layers are fused.

The other way round they are the modules that an adapter made of this checkpoint would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry.base_modules import OPEN_CLIP, RESBLOCK, underscored
from registry.flux_names import flux_layers
from registry.formats.unet_names import diffusers_module, layers_per_block
from registry.merging.layout import Layout
from registry.merging.lora.adapter import Module, canonical


@dataclass(frozen=True)
class Landing:
    """A part of a weight: rows first..last of a checkpoint's tensor (None: all), from rows of the delta that begin at `origin`."""

    key: str
    rows: tuple[int, int] | None = None
    origin: int = 0


Place = tuple[str, str]


@dataclass(frozen=True)
class Places:
    """(component, canonical module) -> its landings, in order; and the names that an adapter for this checkpoint is written with."""

    landings: Mapping[Place, tuple[Landing, ...]]
    biases: Mapping[Place, str]
    own: tuple[tuple[Place, str], ...]  # every module once: place, dotted name

    def find(self, module: Module) -> tuple[Landing, ...] | None:
        """Where a module of an adapter lands; None: nowhere in this checkpoint."""
        return self.landings.get(module.place)


def places_of(layout: Layout) -> Places:
    """The places of a checkpoint's weights under every name that adapters use for them."""
    landings: dict[Place, tuple[Landing, ...]] = {}
    biases: dict[Place, str] = {}
    own: list[tuple[Place, str]] = []
    for component, keys in _by_component(layout).items():
        layers = layers_per_block(keys)
        for name, landing in _modules(component, keys, layout):
            told = diffusers_module(name, layers=layers) if component == "denoiser" else None
            place = (component, canonical(component, told or name))
            if place not in landings:
                landings[place] = landing
                own.append((place, told or name))
            landings.setdefault((component, canonical(component, name)), landing)
        for name, key in keys.items():
            if name.endswith(".bias"):
                bare = name.removesuffix(".bias")
                told = diffusers_module(bare, layers=layers) if component == "denoiser" else None
                biases[(component, canonical(component, told or bare))] = key
        fused = dict(_fused(component, keys, layout))
        landings = fused | landings
    return Places(landings, biases, tuple(own))


def _by_component(layout: Layout) -> dict[str, dict[str, str]]:
    """Component -> {name inside it: key}."""
    from registry.base_modules import SINGLE_FILE

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


def _modules(component: str, keys: Mapping[str, str], layout: Layout) -> Iterator[tuple[str, tuple[Landing, ...]]]:
    """(module, landings) of every weight; OpenCLIP's fused attention as the three modules it is."""
    for name, key in keys.items():
        shape = layout.tensors[key].info.shape
        found = RESBLOCK.fullmatch(name)
        if found and found[2] == "attn.in_proj_weight":
            third = shape[0] // 3
            for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
                yield f"encoder.layers.{found[1]}.self_attn.{part}", (Landing(key, (index * third, (index + 1) * third)),)
        elif found and found[2] in OPEN_CLIP:
            yield f"encoder.layers.{found[1]}.{OPEN_CLIP[found[2]]}", (Landing(key),)
        elif name.endswith(".weight") and len(shape) >= 1:
            yield name.removesuffix(".weight"), (Landing(key),)


def _fused(component: str, keys: Mapping[str, str], layout: Layout) -> Iterator[tuple[Place, tuple[Landing, ...]]]:
    """FLUX's layers under the names of the other code: fused ones as rows of theirs, single ones as parts of the fused."""
    if component != "denoiser":
        return
    counts = [_count(keys, kind) for kind in ("double_blocks.", "single_blocks.", "transformer_blocks.", "single_transformer_blocks.")]
    if not (counts[0] or counts[1] or counts[3]):
        return
    original = bool(counts[0] or counts[1])
    for layer in flux_layers(*(counts[:2] if original else counts[2:])):
        if layer.swapped:
            continue  # its halves stand the other way round: adapters of this layer are told as not placed
        theirs = keys.get(f"{layer.original}.weight")
        ours = [keys.get(f"{module}.weight") for module in layer.modules]
        if original and theirs is not None:
            spans = _split(layout.tensors[theirs].info.shape, len(layer.modules))
            for module, span in zip(layer.modules, spans, strict=True):
                yield (component, underscored(module)), (Landing(theirs, span if len(spans) > 1 else None),)
        elif not original and all(ours):
            begin, parts = 0, []
            for key in ours:
                assert key is not None
                parts.append(Landing(key, None, begin))
                begin += layout.tensors[key].info.shape[0]
            yield (component, underscored(layer.original)), tuple(parts)


def _split(shape: tuple[int, ...], parts: int) -> list[tuple[int, int]]:
    """Rows of a fused layer: q, k and v are as wide as the input, what is left is the last one's."""
    if parts == 1:
        return [(0, shape[0])]
    spans = [(index * shape[1], (index + 1) * shape[1]) for index in range(parts - 1)]
    return [*spans, (spans[-1][1], shape[0])]


def _count(keys: Mapping[str, str], beginning: str) -> int:
    numbers = [name[len(beginning) :].partition(".")[0] for name in keys if name.startswith(beginning)]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
