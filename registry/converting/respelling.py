"""An adapter in another dialect: its layers as that dialect's modules, fused layers joined or taken apart, and what has no form there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import lora_settings
from registry.adapters.reader import Module
from registry.adapters.result import has_matrix
from registry.adapters.writer import OutputModule, Pair
from registry.converting.adapter_layers import BIASES, AdapterLayer, pair_of
from registry.converting.fusing import fuse, split
from registry.errors import Faults
from registry.family import Family
from registry.formats.dialects import DENOISER, DIALECTS, Dialect, Writing, writing_of
from registry.formats.layers import Layer
from registry.printable import counted

if TYPE_CHECKING:
    from torch import Tensor

ADVICE = "Make a plain LoRA of it first: loraloom lora resize REF --rank N --output FILE, then convert that."
FUSING = "kohya's form holds it (--to kohya); or fuse it into its base: loraloom lora fuse."
OUTER = "text_model."  # precedes the names of CLIP's tensors, and is in no setting: peft matches the ends of names
KINDS = {
    "loha": "LoHa",
    "lokr": "LoKr",
    "glora": "GLoRA",
    "oft": "OFT",
    "boft": "BOFT",
    "ia3": "IA3",
    "full": "a difference as it is (diff, diff_b)",
    "norm": "norms",
}


@dataclass(kw_only=True)
class Respelled:
    """An adapter's modules in a dialect, LoraConfig settings by `<component>.<setting>` where alpha is stored so, and what was done."""

    modules: list[OutputModule] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    fused: int = 0  # layers joined of several modules
    split: int = 0  # layers taken apart
    empty: list[str] = field(default_factory=list)  # modules of a fused layer that it leaves as they are
    ranks: set[int] = field(default_factory=set)
    alphas: set[float] = field(default_factory=set)
    scaled: int = 0  # modules whose alpha / rank was multiplied into the factors

    def add(self, name: str, pair: Pair) -> None:
        """Add a module with factors."""
        self.modules.append(OutputModule(name=name, pair=pair))
        self.ranks.add(pair.rank)
        self.alphas.add(pair.alpha)


def respelled(units: Sequence[AdapterLayer], family: Family, target: str) -> Respelled:
    """An adapter in the dialect `target`. Raises Faults with what has no form there."""
    dialect, writing = DIALECTS[target], writing_of(target)
    spelling = _Spelling(dialect, writing, family, units)
    groups = _by_layer(units)
    faults = [fault for (component, layer), group in groups.items() for fault in _faults(spelling, component, layer, group)]
    if writing.alpha is None:
        faults += _bias_faults(dialect.title, units)
    if faults:
        raise Faults(
            f"{len(faults)} of its {counted(len(units), 'module')} {'has' if len(faults) == 1 else 'have'} "
            f"no form in {dialect.title}'s dialect:",
            _some(faults),
        )
    return _whole(spelling, groups) if writing.original else _apart(spelling, units)


def _by_layer(units: Sequence[AdapterLayer]) -> dict[tuple[str, Layer], list[AdapterLayer]]:
    groups: dict[tuple[str, Layer], list[AdapterLayer]] = {}
    for unit in units:
        groups.setdefault((unit.component, unit.layer), []).append(unit)
    return groups


class _Spelling:
    """How a dialect names the modules of a family's adapter."""

    def __init__(self, dialect: Dialect, writing: Writing, family: Family, units: Sequence[AdapterLayer]) -> None:
        self.dialect, self.writing, self.family = dialect, writing, family
        names = family.adapter_names
        self._encoders = names.encoders if names is not None else {}
        self._original = writing.original and (names is None or names.original is None or names.original(_widths(units)))

    def prefix(self, component: str) -> str | None:
        """What precedes the modules of a component; None where the dialect does not hold it."""
        return self.writing.prefix(component, self.family.denoiser, self._encoders)

    def name(self, component: str, module: str) -> str:
        """A module's name with its prefix."""
        return f"{self.prefix(component)}{module.replace('.', '_') if self.writing.flat else module}"

    def layer(self, component: str, layer: Layer) -> str:
        """A layer's name in a dialect that keeps fused layers whole."""
        return self.name(component, layer.original if self._original or len(layer.modules) > 1 else layer.modules[0])


# --- dialects with diffusers' modules


def _apart(spelling: _Spelling, units: Sequence[AdapterLayer]) -> Respelled:
    """An adapter in diffusers' modules, fused layers taken apart."""
    found = Respelled(split=sum(unit.whole for unit in units))
    settings: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for unit in units:
        if not unit.is_pair:
            found.modules.append(OutputModule(name=spelling.name(unit.component, unit.module), raw=unit.source.raw_tensors()))
            continue
        for module, pair in _pairs(unit):
            if pair is None:
                found.empty.append(module)
                continue
            if spelling.writing.alpha is None:
                found.scaled += pair.alpha != pair.rank
                pair = pair.at_scale_one()
            found.add(spelling.name(unit.component, module), pair)
            component = spelling.family.denoiser if unit.component == DENOISER else unit.component
            setting = f"{component}.{module.removeprefix(OUTER)}"
            settings[f"{setting}.lora_A.weight"] = pair.down
            settings |= {f"{setting}.lora_magnitude_vector": pair.dora} if pair.dora is not None else {}
            settings |= {f"{setting}.lora_B.bias": pair.bias} if pair.bias is not None else {}
            alphas[setting] = pair.alpha
    if spelling.writing.alpha is None:
        found.settings = lean(lora_settings(settings, alphas))
    return found


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
            [f"it has {counted(len(pair.up), 'row')} for {pair.down.shape[1]} inputs, where {' + '.join(map(str, rows))} were expected."],
        )
    return rows


def swaps(layer: Layer, pair: Pair) -> bool:
    """Whether the halves of this layer's rows are in the other order in the original implementation."""
    return layer.swaps(len(pair.up), int(pair.down.shape[1]))


def swapped(pair: Pair) -> Pair:
    """The two halves of rows in the other order."""
    import torch

    def turn(tensor: Tensor) -> Tensor:
        return torch.cat(tensor.chunk(2)[::-1])

    dora, bias = (None if values is None else turn(values) for values in (pair.dora, pair.bias))
    return Pair(pair.down, turn(pair.up), pair.alpha, dora, bias)


# --- dialects with the original implementation's layers


def _whole(spelling: _Spelling, groups: Mapping[tuple[str, Layer], Sequence[AdapterLayer]]) -> Respelled:
    """An adapter in the original implementation's layers, separate parts of fused ones joined."""
    found = Respelled()
    for (component, layer), group in groups.items():
        name = spelling.layer(component, layer)
        if not group[0].is_pair:
            found.modules.append(OutputModule(name=name, raw=group[0].source.raw_tensors()))
            continue
        found.fused += len(layer.modules) > 1 and group[0].part is not None
        found.add(name, _joined(layer, group))
    return found


def _joined(layer: Layer, group: Sequence[AdapterLayer]) -> Pair:
    """The factors of a layer in the original implementation's arrangement of rows."""
    if len(layer.modules) > 1 and group[0].part is not None:
        parts = {unit.part: pair_of(unit) for unit in group}
        inputs = int(next(iter(parts.values())).down.shape[1])
        return fuse([parts.get(part) for part in range(len(layer.modules))], layer.rows(inputs))
    pair = pair_of(group[0])
    return swapped(pair) if swaps(layer, pair) and group[0].part is not None else pair


def _widths(units: Sequence[AdapterLayer]) -> dict[str, int]:
    """diffusers' module -> in-width, of the denoiser's plain modules."""
    return {
        unit.module: int(unit.source.stored["down"].info.shape[1])
        for unit in units
        if unit.component == DENOISER and "down" in unit.source.stored
    }


# --- what has no form


def _faults(spelling: _Spelling, component: str, layer: Layer, group: Sequence[AdapterLayer]) -> Iterator[str]:
    """Why a layer cannot be written in a dialect."""
    title, writing = spelling.dialect.title, spelling.writing
    if spelling.prefix(component) is None:
        yield f"{group[0].source.name}: {title}'s files of {spelling.family.title} have no prefix for a {component}."
    for unit in group:
        module = unit.source
        if unit.is_pair:
            continue
        if "down_bias" in module.roles:
            yield f"{module.name} has a bias in its factors (lora_A.bias), for which {title} has no form."
        elif not writing.lycoris:
            yield _not_plain(unit, title)
        elif is_pefts(module):
            yield f"{module.name} is {_kind(unit)} as peft lays it out, which other tools do not read. {ADVICE}"
        elif len(layer.modules) > 1 and (unit.part is None) != writing.original:
            how = "fused with others" if writing.original else "several modules"
            yield f"{module.name} is {_kind(unit)} and its layer is {how} in {title}'s files. {ADVICE}"
    if writing.original and len(layer.modules) > 1 and group[0].part is not None and all(unit.is_pair for unit in group):
        yield from _fused_faults(title, layer, group)


def _not_plain(unit: AdapterLayer, title: str) -> str:
    module = unit.source
    if module.algorithm == "lora" and "mid" in module.roles:
        return f"{module.name} is a convolution with a Tucker core. {ADVICE}"
    if module.algorithm == "lora":
        return f"{module.name} has {', '.join(sorted(module.roles))}; down and up were expected."
    advice = ADVICE if has_matrix(module) else FUSING
    return f"{module.name} is {_kind(unit)}, for which the LoRA of {title} has no form. {advice}"


def _bias_faults(title: str, units: Sequence[AdapterLayer]) -> Iterator[str]:
    """Biases that peft's setting lora_bias has no form for: it is one for all modules of a model, and not for DoRA."""
    for component in dict.fromkeys(unit.component for unit in units):
        pairs = [unit.source for unit in units if unit.component == component and unit.is_pair]
        biased = [module for module in pairs if module.roles & BIASES]
        bare = [module for module in pairs if not module.roles & BIASES]
        if biased and bare:
            yield (
                f"{len(biased)} of its {counted(len(pairs), 'module')} have a bias beside their factors "
                f"({biased[0].name}) and {len(bare)} have none "
                f"({bare[0].name}): {title} loads one for every module of a model or for none (lora_bias). {FUSING}"
            )
        if decomposed := [module for module in biased if "dora" in module.roles]:
            yield f"{decomposed[0].name} is DoRA with a bias, which {title} does not load (lora_bias with use_dora). {FUSING}"


def _kind(unit: AdapterLayer) -> str:
    return KINDS.get(unit.source.algorithm, unit.source.algorithm or "of an unknown algorithm")


def is_pefts(module: Module) -> bool:
    """Whether a module of another algorithm is peft's: alpha is in a config, and some of its tensors are laid out otherwise."""
    alpha_in_config = module.alpha is not None and "alpha" not in module.roles
    return module.peft or alpha_in_config or module.name.startswith("base_model.")


def _fused_faults(title: str, layer: Layer, group: Sequence[AdapterLayer]) -> Iterator[str]:
    doras = sum("dora" in unit.source.roles for unit in group)
    if doras and doras < len(layer.modules):
        missing = ", ".join(module for part, module in enumerate(layer.modules) if all(unit.part != part for unit in group))
        yield (
            f"{layer.original} is one layer in {title}'s files and DoRA needs a magnitude for all of it; "
            + (f"{missing} has none. Train all of its modules, or convert to diffusers." if missing else "some of its modules have none.")
        )
    inputs = {unit.source.stored["down"].info.shape[1] for unit in group}
    rows = layer.rows(max(inputs))
    for unit in group:
        out = unit.source.stored["up"].info.shape[0]
        if len(inputs) > 1 or rows[unit.part or 0] != out:
            yield f"{unit.source.name} is {max(inputs)} to {out}, where {layer.original} has {counted(rows[unit.part or 0], 'row')} for it."


def _some(faults: Sequence[str], most: int = 5) -> list[str]:
    return [*faults[:most], *([f"and {len(faults) - most} more"] if len(faults) > most else [])]
