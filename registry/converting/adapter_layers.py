"""An adapter file's modules with the layer that each belongs to, found by whatever name the file has for it.

Flat names have lost their dots and no rule restores them: they are looked up in the family's table of layers, or among the
modules of a base where one is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.adapters.delta import bias_delta
from registry.adapters.reader import Adapter, Module
from registry.adapters.targets import targets_of
from registry.adapters.writer import Pair, times
from registry.architectures.unet.diffusers_names import diffusers_underscored
from registry.detect.module_shapes import ldm_names
from registry.errors import Refused
from registry.formats.dialects import DENOISER
from registry.formats.layers import AdapterNames, Layer
from registry.printable import counted, some
from registry.tensors.layout import read_layout

if TYPE_CHECKING:
    from torch import Tensor

NO_NAMES = AdapterNames(layers=())
BIASES = {"up_bias", "diff_b"}
PLAIN = {"down", "up", "alpha", "dora", "singular"} | BIASES
T5, T5_PREFIX = "text_encoder_3", "lora_te3_"  # ComfyUI's t5xxl, by kohya's prefix where a family has it as its second encoder
SHOWN = 3


@dataclass(frozen=True)
class AdapterLayer:
    """What an adapter does to a layer: to all of it (`part` None), or to one of diffusers' modules in it."""

    component: str  # denoiser, text_encoder, ...
    layer: Layer
    part: int | None
    source: Module
    peft: bool  # whether the file is in peft's spelling: of a magnitude (1, N, 1, 1), whose axis that is

    @property
    def module(self) -> str:
        """diffusers' name, of a unit that is one module."""
        return self.layer.modules[self.part or 0]

    @property
    def whole(self) -> bool:
        """Whether it covers several of diffusers' modules."""
        return self.part is None and len(self.layer.modules) > 1

    @property
    def is_pair(self) -> bool:
        """Whether it is a product of two factors, with or without a magnitude and a bias for each row."""
        return self.source.algorithm == "lora" and self.source.roles <= PLAIN and {"down", "up"} <= self.source.roles


def adapter_layers(adapter: Adapter, names: AdapterNames | None, *, base: Path | None) -> list[AdapterLayer]:
    """The layers of an adapter. Raises Refused with every name that no layer has."""
    table = _Table(names or NO_NAMES, base, peft=adapter.spelling == "peft")
    found: list[AdapterLayer] = []
    lost: list[str] = []
    for module in adapter.modules:
        unit = table.find(module)
        if unit is None:
            lost.append(module.name)
        else:
            found.append(unit)
    if lost:
        way = "Is it an adapter for it?" if base else "Give --base REF, a checkpoint it was made for, or --family NAME where that is wrong."
        where = base or "its family"
        raise Refused(
            f"{adapter.path.name}: {len(lost)} of its {counted(len(adapter.modules), 'module')} {'has' if len(lost) == 1 else 'have'} "
            f"no layer in {where}: {some(lost, SHOWN)}. {way}"
        )
    _refuse_twice(adapter, found)
    return found


def _refuse_twice(adapter: Adapter, units: list[AdapterLayer]) -> None:
    """Refuse a layer that is there twice, or whole and in parts: joined, one would be lost."""
    seen: dict[tuple[str, str], set[int | None]] = {}
    for unit in units:
        parts = seen.setdefault((unit.component, unit.layer.modules[0]), set())
        if unit.part in parts or (parts and None in parts | {unit.part} and len(unit.layer.modules) > 1):
            raise Refused(f"{adapter.path.name} changes {unit.layer.original} of its {unit.component} twice. Use `loraloom lora combine`.")
        parts.add(unit.part)


class _Table:
    """Layers by the names of files: the base's own modules first, where one is given, then the family's table."""

    def __init__(self, names: AdapterNames, base: Path | None, *, peft: bool) -> None:
        self._peft = peft
        self._names = names
        self._own = base_names(base) if base is not None else None
        self._encoders = {prefix: component for component, prefix in names.encoders.items()}

    def find(self, module: Module) -> AdapterLayer | None:
        component = self._encoders.get(module.prefix, module.component or DENOISER)
        if component == T5 and component not in self._encoders.values():
            component = self._encoders.get(T5_PREFIX, component)
        known = self._names.denoiser if component == DENOISER else self._names.text
        own = self._own.get(component, {}) if self._own is not None else {}
        for spelled in _spellings(component, module.spelled):
            dotted = own.get(spelled.replace(".", "_"))
            found = known.find(dotted or spelled)
            if found is not None and self._has(component, found.layer):
                return AdapterLayer(component, found.layer, found.part, module, self._peft)
            if dotted is not None:
                return AdapterLayer(component, Layer(dotted, (dotted,)), 0, module, self._peft)
        if "." in module.spelled and self._own is None:  # nothing of its name is lost
            return AdapterLayer(component, Layer(module.spelled, (module.spelled,)), 0, module, self._peft)
        return None

    def _has(self, component: str, layer: Layer) -> bool:
        """Whether the base has the layer, by either name; without a base every layer of the table is taken."""
        if self._own is None:
            return True
        own = self._own.get(component, {})
        return any(name.replace(".", "_") in own for name in (layer.original, *layer.modules))


def _spellings(component: str, module: str) -> Iterator[str]:
    """A module's name as the file has it, and as a table may have it."""
    plain = module.replace(".processor.", ".")  # diffusers' attention processors, before 0.22
    yield plain
    if component != DENOISER:
        yield f"text_model.{plain.removeprefix('text_model.')}" if "." in plain else f"text_model_{plain.removeprefix('text_model_')}"
        return
    yield diffusers_underscored(plain.replace(".", "_"))
    yield f"{plain}.0"  # to_out of the first diffusers


def base_names(path: Path) -> dict[str, dict[str, str]]:
    """component -> {any name of a module, dots as underscores: its name in diffusers} of a diffusers folder or a single file."""
    found: dict[str, dict[str, str]] = {}
    for (component, _), dotted in targets_of(read_layout(path)).own:
        name = dotted if component == DENOISER or dotted.startswith("text_") else f"text_model.{dotted}"
        found.setdefault(component, {})[name.replace(".", "_")] = name
    denoiser = found.setdefault(DENOISER, {})
    denoiser |= {ldm.replace(".", "_"): name for name, ldm in ldm_names(denoiser.values()).items()}
    return found


def pair_of(unit: AdapterLayer) -> Pair:
    """The factors of a unit; a magnitude of each row is flat. Raises Refused for a magnitude of columns."""
    module = unit.source
    up, down = module.raw("up"), module.raw("down")
    rank = int(down.shape[0])
    if "singular" in module.roles:  # AdaLoRA's, between the two
        up = (module.tensor("up") * module.tensor("singular").flatten()).to(up.dtype)
    dora = module.raw("dora") if "dora" in module.roles else None
    if dora is not None and not _of_rows(dora.shape, len(up), peft=unit.peft):
        raise Refused(
            f"{module.name} has a DoRA magnitude of {tuple(dora.shape)}, one number a column; only magnitudes of rows ({len(up)}) have "
            "a form in other dialects."
        )
    counted = module.rank_stabilised or "singular" in module.roles
    alpha = module.scale(rank) * rank if counted else _alpha(module, rank)
    return Pair(down, up, alpha, None if dora is None else dora.flatten(), _bias(module, alpha / rank if rank else 0.0))


def _bias(module: Module, scale: float) -> Tensor | None:
    """What is added to the layer's bias: peft scales it as the factors, diff_b is added as it is."""
    if "up_bias" not in module.roles:
        return module.raw("diff_b") if "diff_b" in module.roles else None
    if "diff_b" in module.roles:
        return bias_delta(module)
    return module.raw("up_bias") if scale == 1.0 else times(module.raw("up_bias"), scale)


def _alpha(module: Module, rank: int) -> float:
    return float(rank) if module.alpha is None else module.alpha


def _of_rows(shape: Sequence[int], rows: int, *, peft: bool) -> bool:
    """Whether a magnitude has one number a row: LyCORIS's (O, 1, ...), peft's (O,) and, of convolutions, (1, O, 1, 1)."""
    axis = 1 if peft and len(shape) == 4 else 0
    return all(size == (rows if place == axis else 1) for place, size in enumerate(shape))
