"""The dialects an adapter can be written in: the names of its tensors, and where its alpha stands.

diffusers  `unet.down_blocks...lora_A.weight`, rank and alpha of every module in the header's `lora_adapter_metadata`
peft       `base_model.model.down_blocks...lora_A.weight`, the same in adapter_config.json
kohya      `lora_unet_input_blocks_4_1...lora_down.weight` and an alpha tensor a module: what ComfyUI, A1111 and sd-scripts read;
           layers that the original implementation fuses are fused
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.adapters.reader import Module
from registry.converting.adapter_layers import AdapterLayer, pair_of
from registry.converting.fusing import Pair, fuse, split
from registry.errors import Faults
from registry.family import Family
from registry.formats.adapter_keys import DENOISER
from registry.formats.layers import Layer
from registry.formats.lora_state import lora_settings

if TYPE_CHECKING:
    from torch import Tensor

ADVICE = "Make a plain LoRA of it first: loraloom lora resize REF --rank N --output FILE, then convert that."
OUTER = "text_model."  # stands before the names of CLIP's tensors, and in no setting: peft matches the ends of names
KINDS = {
    "loha": "LoHa",
    "lokr": "LoKr",
    "glora": "GLoRA",
    "oft": "OFT",
    "boft": "BOFT",
    "ia3": "IA3",
    "full": "a full difference",
    "norm": "norms",
}


@dataclass(frozen=True)
class Spelled:
    """An adapter in a dialect: tensors by their names, LoraConfig settings by `<component>.<setting>`, and what was done."""

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    fused: int = 0  # layers joined of several modules
    split: int = 0  # layers taken apart
    empty: tuple[str, ...] = ()  # modules of a fused layer that it leaves as they are
    ranks: frozenset[int] = frozenset()
    alphas: frozenset[float] = frozenset()


# --- diffusers and peft


def as_modules(units: Sequence[AdapterLayer], family: Family, *, prefix: Callable[[str], str]) -> Spelled:
    """An adapter in diffusers' module names, fused layers taken apart; `prefix` is what stands before a component's modules."""
    faults = [fault for unit in units if (fault := _module_fault(unit)) is not None]
    if faults:
        raise Faults(f"{len(faults)} of its {len(units)} modules have no form in this dialect:", _some(faults))
    tensors: dict[str, Tensor] = {}
    empty: list[str] = []
    alphas: dict[str, float] = {}
    ranks: dict[str, Tensor] = {}
    for unit in units:
        component = family.denoiser if unit.component == DENOISER else unit.component
        for module, pair in _pairs(unit):
            if pair is None:
                empty.append(module)
                continue
            name = f"{prefix(component)}{module}"
            tensors |= {f"{name}.lora_A.weight": pair.down, f"{name}.lora_B.weight": pair.up}
            if pair.dora is not None:
                tensors[f"{name}.lora_magnitude_vector"] = pair.dora.reshape(1, -1, 1, 1) if pair.up.ndim == 4 else pair.dora
            told = module.removeprefix(OUTER)
            ranks[f"{component}.{told}.lora_A.weight"] = pair.down
            if pair.dora is not None:
                ranks[f"{component}.{told}.lora_magnitude_vector"] = pair.dora
            alphas[f"{component}.{told}"] = pair.alpha
    return Spelled(
        tensors=tensors,
        settings=lean(lora_settings(ranks, alphas)),
        split=sum(unit.whole for unit in units),
        empty=tuple(empty),
        ranks=frozenset(int(down.shape[0]) for name, down in ranks.items() if name.endswith(".lora_A.weight")),
        alphas=frozenset(alphas.values()),
    )


def lean(settings: Mapping[str, Any]) -> dict[str, Any]:
    """LoraConfig settings whose patterns hold only what differs from the common rank and alpha.

    Those of text encoders match the end of a name: with or without the outer name that newer classes dropped.
    """
    found = dict(settings)
    for name in settings:
        component, _, field = name.rpartition(".")
        common = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}.get(field)
        if common is not None:
            values = settings[name]
            most = Counter(values.values()).most_common(1)[0][0]  # of equally common ones the first
            found[f"{component}.{common}"] = most
            bound = not component.startswith("text_encoder")
            found[name] = {pattern if bound else pattern.removeprefix("^"): value for pattern, value in values.items() if value != most}
    return found


def _module_fault(unit: AdapterLayer) -> str | None:
    if unit.is_pair:
        return None
    module = unit.source
    if module.algorithm == "lora" and "mid" in module.roles:
        return f"{module.name} is a convolution with a Tucker core. {ADVICE}"
    if module.algorithm == "lora":
        return f"{module.name} has {', '.join(sorted(module.roles))}; down and up were expected."
    return f"{module.name} is {_kind(unit)}, for which diffusers and peft's LoRA have no form. {ADVICE}"


def _kind(unit: AdapterLayer) -> str:
    return KINDS.get(unit.source.algorithm, unit.source.algorithm or "of an unknown algorithm")


def _pairs(unit: AdapterLayer) -> Iterator[tuple[str, Pair | None]]:
    """(module, its factors; None for one that the layer leaves as it is) of a unit, in diffusers' own arrangement of rows."""
    pair = pair_of(unit)
    if swaps(unit.layer, pair) and unit.part is None:
        pair = swapped(pair)
    if not unit.whole:
        yield unit.module, pair
        return
    yield from zip(unit.layer.modules, split(pair, rows_of(unit.layer, pair)), strict=True)


def rows_of(layer: Layer, pair: Pair) -> tuple[int, ...]:
    """Rows of each module of a fused layer. Raises Faults where the family's widths do not come to the layer's."""
    rows = layer.rows(int(pair.down.shape[1]))
    if sum(rows) != len(pair.up):
        raise Faults(
            f"{layer.original} cannot be taken apart:",
            [f"it has {len(pair.up)} rows for {pair.down.shape[1]} inputs, where {' + '.join(map(str, rows))} were expected."],
        )
    return rows


def swaps(layer: Layer, pair: Pair) -> bool:
    """Whether the halves of this layer's rows stand the other way round in the original implementation."""
    return layer.swaps(len(pair.up), int(pair.down.shape[1]))


def swapped(pair: Pair) -> Pair:
    """The two halves of rows in the other order."""
    import torch

    def turn(tensor: Tensor) -> Tensor:
        return torch.cat(tensor.chunk(2)[::-1])

    return Pair(pair.down, turn(pair.up), pair.alpha, None if pair.dora is None else turn(pair.dora))


# --- kohya


def as_kohya(units: Sequence[AdapterLayer], family: Family, raw: Mapping[str, Mapping[str, Tensor]]) -> Spelled:
    """An adapter in kohya's names, the original implementation's where the family has them; separate parts of fused layers joined.

    `raw` has the tensors of each module as the file has them: of what is no pair of factors, names alone change.
    """
    names = family.adapter_names
    assert names is not None
    groups: dict[tuple[str, Layer], list[AdapterLayer]] = {}
    for unit in units:
        groups.setdefault((unit.component, unit.layer), []).append(unit)
    faults = [fault for (component, layer), group in groups.items() for fault in _kohya_faults(family, component, layer, group)]
    if faults:
        raise Faults(f"{len(faults)} of its {len(groups)} layers have no form in kohya's dialect:", _some(faults))
    original = names.original is None or names.original(_widths(units))
    tensors: dict[str, Tensor] = {}
    ranks: set[int] = set()
    alphas: set[float] = set()
    fused = 0
    for (component, layer), group in groups.items():
        flat = (layer.original if original or len(layer.modules) > 1 else layer.modules[0]).replace(".", "_")
        name = f"{'lora_unet_' if component == DENOISER else names.encoders[component]}{flat}"
        if not group[0].is_pair:
            tensors |= {f"{name}{ending}": tensor for ending, tensor in raw[group[0].source.name].items()}
            continue
        pair = _joined(layer, group)
        fused += len(layer.modules) > 1 and group[0].part is not None
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up, f"{name}.alpha": _alpha_tensor(pair)}
        if pair.dora is not None:
            tensors[f"{name}.dora_scale"] = pair.dora.reshape(-1, *[1] * (pair.up.ndim - 1))
        ranks.add(pair.rank)
        alphas.add(pair.alpha)
    return Spelled(tensors=tensors, settings={}, fused=fused, ranks=frozenset(ranks), alphas=frozenset(alphas))


def _kohya_faults(family: Family, component: str, layer: Layer, group: Sequence[AdapterLayer]) -> Iterator[str]:
    names = family.adapter_names
    assert names is not None
    if component != DENOISER and component not in names.encoders:
        yield f"{group[0].source.name}: kohya's files of {family.title} have no prefix for a {component}."
    for unit in group:
        strange = unit.source.roles & {"down_bias", "up_bias"}
        if strange:
            yield f"{unit.source.name} has a bias in its factors (lora_bias), for which kohya has no form."
        elif not unit.is_pair and is_pefts(unit.source):
            yield f"{unit.source.name} is {_kind(unit)} as peft lays it out, which other tools do not read. {ADVICE}"
        elif not unit.is_pair and len(layer.modules) > 1 and unit.part is not None:
            yield f"{unit.source.name} is {_kind(unit)} and its layer is fused with others in kohya's files. {ADVICE}"
    if len(layer.modules) > 1 and group[0].part is not None and all(unit.is_pair for unit in group):
        yield from _fused_faults(layer, group)


def is_pefts(module: Module) -> bool:
    """Whether a module of another algorithm than LoRA is peft's: its alpha stands in a config, and some of its tensors lie otherwise."""
    told_elsewhere = module.alpha is not None and "alpha" not in module.roles
    return module.peft or told_elsewhere or module.name.startswith("base_model.")


def _fused_faults(layer: Layer, group: Sequence[AdapterLayer]) -> Iterator[str]:
    doras = sum("dora" in unit.source.roles for unit in group)
    if doras and doras < len(layer.modules):
        missing = ", ".join(module for part, module in enumerate(layer.modules) if all(unit.part != part for unit in group))
        yield (
            f"{layer.original} is one layer in kohya's files and DoRA needs a magnitude for all of it; "
            + (f"{missing} has none. Train all of its modules, or convert to diffusers." if missing else "some of its modules have none.")
        )
    inputs = {unit.source.stored["down"].info.shape[1] for unit in group}
    rows = layer.rows(max(inputs))
    for unit in group:
        out = unit.source.stored["up"].info.shape[0]
        if len(inputs) > 1 or rows[unit.part or 0] != out:
            yield f"{unit.source.name} is {max(inputs)} to {out}, where {layer.original} has {rows[unit.part or 0]} rows for it."


def _joined(layer: Layer, group: Sequence[AdapterLayer]) -> Pair:
    """The factors of a layer in the original implementation's arrangement of rows."""
    if len(layer.modules) > 1 and group[0].part is not None:
        parts = {unit.part: pair_of(unit) for unit in group}
        inputs = int(next(iter(parts.values())).down.shape[1])
        return fuse([parts.get(part) for part in range(len(layer.modules))], layer.rows(inputs))
    pair = pair_of(group[0])
    return swapped(pair) if swaps(layer, pair) and group[0].part is not None else pair


def _alpha_tensor(pair: Pair) -> Tensor:
    """alpha as kohya has it: a number of the factors' own dtype, wider where that does not hold it exactly."""
    import torch

    narrow = torch.tensor(pair.alpha, dtype=pair.down.dtype)
    return narrow if float(narrow) == pair.alpha else torch.tensor(pair.alpha, dtype=torch.float32)


def _widths(units: Sequence[AdapterLayer]) -> dict[str, int]:
    """diffusers' module -> in-width, of the denoiser's plain modules."""
    return {
        unit.module: int(unit.source.stored["down"].info.shape[1])
        for unit in units
        if unit.component == DENOISER and "down" in unit.source.stored
    }


def _some(faults: Sequence[str], most: int = 5) -> list[str]:
    return [*faults[:most], *([f"and {len(faults) - most} more"] if len(faults) > most else [])]
