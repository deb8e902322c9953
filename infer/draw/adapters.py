"""Adapters on a loaded model: attached by name, weighted per image, and detached without a trace.

Every tensor of a file must land, or the file is refused: a LoRA that quietly does nothing is worse than an error. A plain
LoRA is peft's: its weight lives in the layers' scaling, beside the base's own weights. All other kinds are in the weights
(`registry.adapters.in_place`), whose originals are kept. Taking adapters off gives the base back to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.in_place import WeightChanges, is_beside, layout_of
from registry.adapters.reader import read_adapter
from registry.errors import Refused, UnknownName
from registry.family import Family
from registry.merging.adapter_blocks import Factors, blocks_of
from registry.names import suggest
from registry.parts import Parts
from registry.printable import counted, some

if TYPE_CHECKING:
    from torch import Tensor, nn


def attach(family: Family, parts: Parts, adapters: Mapping[str, Path], *, blocks: Mapping[str, str] | None = None) -> None:
    """Load each file as an adapter of that name, inactive until `set_weights`. On a refusal the model is unchanged.

    `blocks`: the block weights of those that have such, as `registry.merging.adapter_blocks.on_blocks` gives them.
    """
    known = _names(parts)
    taken = [name for name in adapters if name in known]
    if taken:
        raise Refused(f"Adapters named {', '.join(taken)} are attached already. Detach them first, or give other names.")
    attached: list[str] = []
    try:
        for name, path in adapters.items():
            attached.append(name)
            adapter = read_adapter(path)
            factors = Factors(blocks[name], blocks_of(layout_of(family, parts))) if blocks and name in blocks else None
            if is_beside(adapter):
                _attach_one(family, parts, name, Path(path))
                if factors is not None:
                    _weigh_by_block(parts, name, factors)
            else:
                parts.changes = parts.changes or WeightChanges(family, parts)
                parts.changes.attach(name, adapter, factors=factors)
    except BaseException:
        detach(parts, attached)
        raise
    set_weights(parts, {})


def set_weights(parts: Parts, weights: Mapping[str, float], *, text_weights: Mapping[str, float] | None = None) -> None:
    """Use exactly these adapters at these weights from now on; {} is the base alone, bit-equal to the untouched model.

    `text_weights`: those on the text encoders, of the adapters that have another weight there.
    """
    known = _names(parts)
    for name in weights:
        if name not in known:
            raise UnknownName(f"No adapter named {name!r} is attached. {suggest(name, known)}")
    if parts.changes is not None:
        here = parts.changes.names
        in_text = {name: weight for name, weight in (text_weights or {}).items() if name in here}
        parts.changes.set_weights({name: weight for name, weight in weights.items() if name in here}, text_weights=in_text)
    for module in (parts.denoiser, *parts.text_encoders.values()):
        own = weights if module is parts.denoiser else {**weights, **(text_weights or {})}
        mine = {name: weight for name, weight in own.items() if name in _configs(module) and weight != 0.0}
        for layer in _adapter_layers(module):
            layer.set_adapter(list(mine), inference_mode=True)
            for name, weight in mine.items():
                layer.set_scale(name, weight)
            layer._disable_adapters = not mine  # enable_adapters() would also switch gradients on


def detach(parts: Parts, names: Iterable[str] | None = None) -> None:
    """Remove the named adapters (None: all); with the last one, peft's wrappers are replaced by the original layers."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    if parts.changes is not None:
        parts.changes.detach(parts.changes.names if names is None else names)
    for module in (parts.denoiser, *parts.text_encoders.values()):
        configs = _configs(module)
        for name in list(configs) if names is None else [name for name in names if name in configs]:
            with _quiet():
                for layer in _adapter_layers(module):
                    layer.delete_adapter(name)
            del configs[name]
        if not configs and hasattr(module, "peft_config"):
            recurse_remove_peft_layers(module)
            del module.peft_config
            module._hf_peft_config_loaded = False  # type: ignore[assignment]  # the flag diffusers and transformers keep


def changes_text(parts: Parts, name: str) -> bool:
    """Whether an attached adapter changes a text encoder."""
    in_weights = parts.changes.components(name) if parts.changes is not None else ()
    return any(name in _configs(encoder) or component in in_weights for component, encoder in parts.text_encoders.items())


def _names(parts: Parts) -> set[str]:
    """The attached adapters."""
    beside = {name for module in (parts.denoiser, *parts.text_encoders.values()) for name in _configs(module)}
    return beside | set(parts.changes.names if parts.changes is not None else ())


def _attach_one(family: Family, parts: Parts, name: str, path: Path) -> None:
    """Load one file into every component that it has tensors for, and check that each was loaded."""
    state, facts = family.lora_state(path, parts)
    modules = _modules(family, parts)
    by_component = _by_component(state)
    _refuse_misfits(family, path, by_component, modules)
    for component, tensors in by_component.items():
        module = modules[component]
        with _quiet():
            _load_into(module, component, tensors, name=name, facts=facts)
        _check_loaded(module, component, tensors, name=name, path=path)
        for key, weight in module.named_parameters():
            if f".{name}." in key:
                weight.requires_grad_(False)


def _weigh_by_block(parts: Parts, name: str, factors: Factors) -> None:
    """Put the block weights of an adapter into its alphas, which every scale of a layer multiplies."""
    for module in (parts.denoiser, *parts.text_encoders.values()):
        for place, layer in module.named_modules():
            if name in getattr(layer, "lora_alpha", {}):
                layer.lora_alpha[name] *= factors.of_denoiser(place) if module is parts.denoiser else factors.of_text


def _load_into(module: nn.Module, component: str, tensors: Mapping[str, Tensor], *, name: str, facts: Mapping[str, Any]) -> None:
    """peft's injection of one component's tensors. transformers' own loader reports every base weight as missing, so it is not used."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    settings = {key.partition(".")[2]: value for key, value in (facts.get("metadata") or {}).items() if key.startswith(f"{component}.")}
    config = LoraConfig(**{**settings, "inference_mode": True, "init_lora_weights": True})
    inject_adapter_in_model(config, module, adapter_name=name, state_dict=dict(tensors))
    set_peft_model_state_dict(module, dict(tensors), adapter_name=name)
    module._hf_peft_config_loaded = True  # type: ignore[assignment]  # the flag by which diffusers and transformers know


def _by_component(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`unet.a.b.lora_A.weight` -> {"unet": {"a.b.lora_A.weight": ...}}."""
    split: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        component, _, rest = key.partition(".")
        split.setdefault(component, {})[rest] = tensor
    return split


def _refuse_misfits(family: Family, path: Path, by_component: Mapping[str, Mapping[str, Tensor]], modules: Mapping[str, nn.Module]) -> None:
    """Refuse a file with tensors that match no layer or have another shape, with counts and the first few names."""
    total = sum(len(tensors) for tensors in by_component.values())
    misfits: list[str] = []
    for component, tensors in by_component.items():
        if component not in modules:
            misfits += [f"{component}.{key} (this model has no {component})" for key in tensors]
            continue
        layers = dict(modules[component].named_modules())
        misfits += [f"{component}.{key} ({why})" for key, tensor in tensors.items() if (why := _misfit(layers, key, tensor))]
    if misfits or not total:
        raise Refused(
            f"{path.name} does not fit this {family.name} model: {total - len(misfits)} of its "
            f"{counted(total, 'tensor')} have their place, "
            f"{len(misfits)} have not: {some(misfits, between='; ')}. Use an adapter trained for this base."
        )


def _misfit(layers: Mapping[str, nn.Module], key: str, tensor: Tensor) -> str | None:
    """Why a tensor of a LoRA fits no layer; None when it fits. Other kinds than lora_A, lora_B are left to peft."""
    for factor, axis in (("lora_A", 1), ("lora_B", 0)):
        module_name, found, ending = key.rpartition(f".{factor}.")
        if not found or ending != "weight":
            continue
        layer = layers.get(module_name.removeprefix("text_model.")) or layers.get(module_name)
        if layer is None:
            return f"no module {module_name}"
        weight: Any = getattr(layer, "base_layer", layer).weight
        mine, its = int(weight.shape[axis]), int(tensor.shape[axis])
        return None if mine == its else f"{its} wide where the model has {mine}"
    return None


def _check_loaded(module: nn.Module, component: str, tensors: Mapping[str, Tensor], *, name: str, path: Path) -> None:
    """Refuse when a tensor of the file is not in the model now, value for value: loaders drop unexpected keys."""
    from peft import get_peft_model_state_dict

    landed = get_peft_model_state_dict(module, adapter_name=name)
    lost = [key for key, tensor in tensors.items() if not _is_in(landed, key, tensor)]
    if lost:
        raise Refused(
            f"{path.name}: {len(tensors) - len(lost)} of {counted(len(tensors), 'tensor')} landed in "
            f"{component}, {len(lost)} were lost on the way "
            f"(first: {lost[0]}). The file is in a form that cannot be loaded in full, and a part of it would draw something else."
        )


def _is_in(landed: Mapping[str, Tensor], key: str, tensor: Tensor) -> bool:
    mine = landed.get(key, landed.get(key.removeprefix("text_model.")))
    return mine is not None and mine.shape == tensor.shape and bool(mine.cpu().equal(tensor.to(mine.dtype).cpu()))


def _modules(family: Family, parts: Parts) -> dict[str, nn.Module]:
    return {family.denoiser: parts.denoiser, **parts.text_encoders}


def _configs(module: nn.Module) -> dict[str, Any]:
    """The attached adapters of a model by name."""
    configs: dict[str, Any] = getattr(module, "peft_config", {})
    return configs


def _adapter_layers(module: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (layer for layer in module.modules() if isinstance(layer, BaseTunerLayer))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without peft's warnings about a second adapter, and about one that is deleted while it is active: `set_weights` follows each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        yield
