"""LoRA files in every spelling, read into one: peft keys by the model's own module names, with rank and alpha of each module.

kohya names (`lora_unet_down_blocks_0_..._to_q`) have lost their dots, and no rule brings them back: they are looked up among
the model's own modules. diffusers' readers lose tensors in places (0.42: CLIP attention without out_proj, FLUX's time, text
and guidance layers), so every tensor is placed here, and a file with one that has no place is refused.
"""

# R rank, I in-width, O out-width

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.formats.adapter_keys import DENOISER, AdapterKey, parse_key
from registry.formats.layers import Layer
from registry.formats.layers import originals as originals_of
from registry.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

PEFT_KEYS = {"down": "lora_A.weight", "up": "lora_B.weight", "down_bias": "lora_A.bias", "up_bias": "lora_B.bias"}
SHOWN = 3  # names of misfits in a message


@dataclass(frozen=True)
class Original:
    """A layer in the names of the original implementation: the modules its rows are here, in order."""

    modules: tuple[str, ...]
    swapped: bool = False  # its two halves of rows stand the other way round


def originals_in(module: nn.Module, layers: Iterable[Layer]) -> dict[str, Original]:
    """The family's layers that this very model has, by their names in the original implementation."""
    weights = {name: layer.weight.shape for name, layer in own_layers(module)}
    found = originals_of(layers, weights)
    return {
        name: Original(layer.modules, all(layer.swaps(*weights[own][:2]) for own in layer.modules if own in weights))
        for name, layer in found.items()
    }


def transformer_lora(path: Path | str, parts: Parts, *, layers: Iterable[Layer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`Family.lora_state` of a transformer with these layers: fused ones of the original implementation are split, every tensor has its place."""
    return read_lora(path, parts, denoiser="transformer", originals=originals_in(parts.denoiser, layers))


def read_lora(
    path: Path | str, parts: Parts, *, denoiser: str, originals: Mapping[str, Original]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """({`<component>.<module>.lora_A.weight`: copies}, {"network_alphas": None, "metadata": LoraConfig settings}).

    `originals` are the denoiser's layers in the names of its original implementation. Raises BadFile when the file is no plain LoRA, and
    Refused when a tensor of it has no place in this model.
    """
    path = Path(path)
    state, header = _tensors(path)
    places = {denoiser: _Places.of(parts.denoiser, originals)} | {
        name: _Places.of(module, {}) for name, module in parts.text_encoders.items()
    }
    read: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    misfits: list[str] = []
    for name, tensor in state.items():
        key = parse_key(name)
        component = denoiser if key is not None and key.component in (DENOISER, "") else key.component if key is not None else ""
        _refuse_other_kinds(path, name, key)
        place = places[component].find(key.module) if key is not None and component in places else None
        if key is None or place is None:
            misfits.append(name)
        elif key.role == "alpha":
            alphas |= {f"{component}.{module}": float(tensor) for module in place.modules}
        elif key.role == "dora":
            read |= {f"{component}.{module}.lora_magnitude_vector": tensor.clone() for module in place.modules}
        else:
            pieces = places[component].split(place, tensor, role=key.role)
            read |= {f"{component}.{module}.{PEFT_KEYS[key.role]}": piece for module, piece in zip(place.modules, pieces, strict=True)}
    _refuse(path, misfits, len(state))
    if not any(".lora_A." in key for key in read):
        raise BadFile(path, "unknown-format", f"has no LoRA tensors that can be read (first key: {next(iter(state), 'none')}).")
    return read, {"network_alphas": None, "metadata": _settings(path, read, alphas, header)}


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise BadFile(path, "unreadable", f"is not readable as safetensors ({error}).") from error


def _refuse_other_kinds(path: Path, name: str, key: AdapterKey | None) -> None:
    """Refuse what is not a plain LoRA: loading a part of it would draw something else."""
    if key is None or key.role == "alpha":
        return
    if key.algorithm != "lora" or key.role == "mid" or (key.role == "dora" and key.spelling != "peft"):
        kind = {"mid": "a Tucker-decomposed convolution", "dora": "DoRA in kohya's form"}.get(key.role, key.algorithm)
        raise BadFile(
            path, "algorithm", f"holds {kind} ({name}); only plain LoRA (and peft's DoRA) is loaded. Convert it to a plain LoRA first."
        )


def _refuse(path: Path, misfits: list[str], total: int) -> None:
    if misfits:
        shown = ", ".join(misfits[:SHOWN]) + (f" and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else "")
        raise Refused(
            f"{path.name} does not fit this model: {total - len(misfits)} of its {total} tensors have their place, "
            f"{len(misfits)} have not: {shown}. Use an adapter trained for this base."
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
        """The place of a module as a file spells it."""
        plain = module.replace(".processor.", ".")  # diffusers' attention processors, before 0.22
        for spelling in (plain, plain.removeprefix("text_model."), f"{plain}.0" if plain.endswith("to_out") else plain):
            if spelling in self.names:
                return self.names[spelling]
        return None

    def split(self, place: Original, tensor: Tensor, *, role: str) -> list[Tensor]:
        """The tensor for each module of a place: a fused layer shares its down factor and splits the rows of its up factor."""
        import torch

        if role in ("down", "down_bias"):
            return [tensor.clone() for _module in place.modules]
        rows = [self.widths[module] for module in place.modules]
        if sum(rows) != len(tensor):
            return [tensor.clone() for _module in place.modules]  # of another width: told with both widths when it is attached
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


def _settings(path: Path, read: Mapping[str, Tensor], alphas: Mapping[str, float], header: Mapping[str, str]) -> dict[str, Any]:
    """LoraConfig settings of every component, keyed `<component>.<setting>`: the file's own where it carries them, else counted."""
    own: dict[str, Any] = json.loads(header["lora_adapter_metadata"]) if "lora_adapter_metadata" in header else {}
    components = {key.partition(".")[0] for key in read}
    told = {component for component in components if f"{component}.r" in own} if not alphas else set()
    settings = {key: value for key, value in own.items() if key.partition(".")[0] in told}
    return settings | lora_settings({key: tensor for key, tensor in read.items() if key.partition(".")[0] not in told}, alphas)


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
