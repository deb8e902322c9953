"""An adapter as diffusers and peft load it: peft keys by the model's own module names, with rank and alpha of each module.

kohya names (`lora_unet_down_blocks_0_..._to_q`) have lost their dots, and no rule restores them: they are looked up among
the model's own modules. diffusers' readers lose tensors in places (0.42: CLIP attention without out_proj, FLUX's time, text
and guidance layers), so every tensor is placed here, and a file with one that has no place is refused.
"""

# R rank, I in-width, O out-width

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import finite
from registry.adapters.peft_settings import STARTS
from registry.adapters.reader import Module, read_adapter
from registry.adapters.understood import adapter_faults
from registry.errors import BadFile, Refused
from registry.formats.dialects import DENOISER
from registry.formats.layers import Layer
from registry.formats.layers import originals as originals_of
from registry.parts import Parts
from registry.printable import counted, some

if TYPE_CHECKING:
    from torch import Tensor, nn

PEFT_KEYS = {"down": "lora_A.weight", "up": "lora_B.weight", "up_bias": "lora_B.bias", "diff_b": "lora_B.bias"}
SHOWN = 3  # names of misfits in a message


@dataclass(frozen=True)
class Original:
    """A layer in the names of the original implementation: the modules its rows are here, in order."""

    modules: tuple[str, ...]
    swapped: bool = False  # its two halves of rows are in the other order


def originals_in(module: nn.Module, layers: Iterable[Layer]) -> dict[str, Original]:
    """The family's layers that this very model has, by their names in the original implementation."""
    weights = {name: layer.weight.shape for name, layer in own_layers(module)}
    found = originals_of(layers, weights)
    return {
        name: Original(layer.modules, all(layer.swaps(*weights[own][:2]) for own in layer.modules if own in weights))
        for name, layer in found.items()
    }


def transformer_lora(path: Path | str, parts: Parts, *, layers: Iterable[Layer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`Family.lora_state` of a transformer with these layers; the original implementation's fused layers are split."""
    return read_lora(path, parts, denoiser="transformer", originals=originals_in(parts.denoiser, layers))


def read_lora(
    path: Path | str, parts: Parts, *, denoiser: str, originals: Mapping[str, Original]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """({`<component>.<module>.lora_A.weight`: copies}, {"network_alphas": None, "metadata": LoraConfig settings}).

    `originals` are the denoiser's layers in the names of its original implementation. Raises BadFile when the file is no plain
    LoRA, and Refused when a tensor of it has no place in this model.
    """
    adapter = read_adapter(path)
    if faults := adapter_faults(adapter):
        raise Refused(f"{adapter.path.name} cannot be drawn in full. {' '.join(faults[:SHOWN])}")
    places = {denoiser: _Places.of(parts.denoiser, originals)} | {
        name: _Places.of(module, {}) for name, module in parts.text_encoders.items()
    }
    read: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    misfits = list(adapter.left)
    for module in adapter.modules:
        _refuse_other_kinds(adapter.path, module)
        component = denoiser if module.component in (DENOISER, "") else module.component
        place = places[component].find(module.spelled) if component in places else None
        if place is None:
            misfits += module.keys.values()
            continue
        read |= _state(module, component, place, places[component])
        if (alpha := _alpha(module)) is not None:
            alphas |= {f"{component}.{name}": alpha for name in place.modules}
    _refuse(adapter.path, misfits, sum(len(module.keys) for module in adapter.modules) + len(adapter.left))
    if not any(".lora_A." in key for key in read):
        first = next(iter(adapter.modules), None)
        raise BadFile(adapter.path, "unknown-format", f"has no LoRA tensors that can be read (first: {first.name if first else 'none'}).")
    return read, {"network_alphas": None, "metadata": lora_settings(read, alphas)}


def _state(module: Module, component: str, place: Original, places: _Places) -> dict[str, Tensor]:
    """The tensors of a module under the names of the model's own modules."""
    found: dict[str, Tensor] = {}
    for role in module.keys:
        if role == "dora":
            magnitude = finite(module.tensor(role), module).to(module.raw(role).dtype)
            found |= {f"{component}.{name}.lora_magnitude_vector": magnitude.clone() for name in place.modules}
        elif role in PEFT_KEYS:
            values = _values(module, role)
            finite(values.float(), module)
            parts = places.split(place, values, role=role)
            found |= {f"{component}.{name}.{PEFT_KEYS[role]}": part for name, part in zip(place.modules, parts, strict=True)}
    return found


def _values(module: Module, role: str) -> Tensor:
    """A tensor as peft has it: AdaLoRA's singular values in `up`, a bias that is no factor by the scale that peft multiplies it with."""
    if role == "up" and "singular" in module.roles:
        return module.tensor("up") * module.tensor("singular").flatten()
    if role == "diff_b" and module.rank:
        scale = module.scale(module.rank)
        if scale == 0.0:
            raise Refused(
                f"{module.name} has alpha 0 and a bias, which peft would multiply with it. Set its alpha, or leave the module out."
            )
        return module.tensor("diff_b") / scale
    return module.raw(role)


def _alpha(module: Module) -> float | None:
    """alpha, such that alpha / rank is the module's scale; None where the file has none."""
    if module.alpha is None or not module.rank:
        return None
    return module.scale(module.rank) * module.rank if module.rank_stabilised or "singular" in module.roles else module.alpha


def _refuse_other_kinds(path: Path, module: Module) -> None:
    """Refuse what is not a plain LoRA: loading a part of it would draw something else."""
    for role, name in module.keys.items():
        if role == "mid":
            kind = "a Tucker-decomposed convolution"
        elif role == "dora" and "lora_magnitude_vector" not in name:
            kind = "DoRA in kohya's form"
        elif role != "alpha" and module.algorithm != "lora":
            kind = "LoRA of an embedding" if module.algorithm == "table" else module.algorithm
        elif module.start:
            kind = f"{STARTS[module.start]}, whose factors hold a part of the base"
        else:
            continue
        raise BadFile(path, "algorithm", f"holds {kind} ({name}); peft loads plain LoRA and its own DoRA alone.")


def _refuse(path: Path, misfits: list[str], total: int) -> None:
    if misfits:
        raise Refused(
            f"{path.name} does not fit this model: {total - len(misfits)} of its {counted(total, 'tensor')} have their place, "
            f"{len(misfits)} have not: {some(misfits)}. Use an adapter trained for this base."
        )


@dataclass(frozen=True)
class _Places:
    """Where the layers of one component are found: by module name, by kohya's flat name, by the original implementation's name."""

    names: Mapping[str, Original]
    widths: Mapping[str, int]  # module -> out-width

    @classmethod
    def of(cls, module: nn.Module, originals: Mapping[str, Original]) -> _Places:
        layers = dict(own_layers(module))
        known = {name: Original((name,)) for name in layers}
        known |= {f"text_model.{name}": place for name, place in known.items()}  # transformers 5 flattened CLIPTextModel
        known |= {name: place for name, place in originals.items() if all(module in layers for module in place.modules)}
        flat = {name.replace(".", "_"): place for name, place in known.items()}
        return cls(names=flat | known, widths={name: int(layer.weight.shape[0]) for name, layer in layers.items()})

    def find(self, module: str) -> Original | None:
        """The layer of a module as a file spells it."""
        plain = module.replace(".processor.", ".")  # diffusers' attention processors, before 0.22
        for spelling in (plain, plain.removeprefix("text_model."), f"{plain}.0" if plain.endswith("to_out") else plain):
            if spelling in self.names:
                return self.names[spelling]
        return None

    def split(self, place: Original, tensor: Tensor, *, role: str) -> list[Tensor]:
        """The tensor for each module of a place: a fused layer shares its down factor and splits the rows of its up factor."""
        import torch

        if role == "down":
            return [tensor.clone() for _module in place.modules]
        rows = [self.widths[module] for module in place.modules]
        if sum(rows) != len(tensor):
            return [tensor.clone() for _module in place.modules]  # of another width: `attach` reports it with both widths
        if place.swapped:
            first, second = tensor.chunk(2)
            tensor = second.new_empty(tensor.shape)
            tensor[: len(second)], tensor[len(second) :] = second, first
        return [piece.clone() for piece in torch.split(tensor, rows)]


def own_layers(module: nn.Module) -> Iterable[tuple[str, Any]]:
    """The layers that can carry a LoRA by name, whatever adapters wrap them already."""
    for name, layer in module.named_modules():
        if re.search(r"(^|\.)(base_layer|lora_[A-Za-z_]+)(\.|$)", name) or not name:
            continue
        base = getattr(layer, "base_layer", layer)
        weight = getattr(base, "weight", None)
        if weight is not None and weight.ndim >= 2:
            yield name, base


def lora_settings(read: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, Any]:
    """LoraConfig settings from the tensors: rank and alpha of every module by its full name. No alpha means alpha = rank."""
    settings: dict[str, Any] = {}
    ranks = {key.removesuffix(".lora_A.weight"): int(tensor.shape[0]) for key, tensor in read.items() if key.endswith(".lora_A.weight")}
    for component in sorted({module.partition(".")[0] for module in ranks}):
        mine = {module.partition(".")[2]: rank for module, rank in ranks.items() if module.startswith(f"{component}.")}
        scales = {module: alphas.get(f"{component}.{module}", float(rank)) for module, rank in mine.items()}
        settings |= {
            f"{component}.r": next(iter(mine.values())),
            f"{component}.lora_alpha": next(iter(scales.values())),
            f"{component}.rank_pattern": {f"^{re.escape(module)}": rank for module, rank in mine.items()},
            f"{component}.alpha_pattern": {f"^{re.escape(module)}": alpha for module, alpha in scales.items()},
            f"{component}.target_modules": sorted(mine),
            f"{component}.use_dora": any(key.startswith(f"{component}.") and key.endswith("lora_magnitude_vector") for key in read),
            f"{component}.lora_bias": any(key.startswith(f"{component}.") and key.endswith(".lora_B.bias") for key in read),
        }
    return settings
