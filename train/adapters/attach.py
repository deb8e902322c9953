"""Adapters on the layers of a model: peft's own LoRA layers, or ours for the kinds that peft has no form for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from train.adapters.delta import Delta, DeltaOfWeight, TrainedDelta, of_dora, of_factors
from train.adapters.kinds import Kind
from train.adapters.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

ADAPTER = "default"  # peft's own name, which diffusers' savers look for
MAGNITUDE = ".lora_magnitude_vector"


def attach(module: Any, kind: Kind, ranks: Ranks, wanted: str | list[str], *, seed: int) -> list[tuple[str, Parameter]]:
    """Add the adapter to these layers and give its weights by name, fp32, drawn from the seed. `wanted` are peft's target_modules."""
    import torch

    from registry.quantised.linear import shapes_alone

    module.requires_grad_(False)
    if kind.make is None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = _peft_config(kind, ranks, wanted)
            with shapes_alone() if _ignores_weights(config) else nullcontext():
                module.add_adapter(config, adapter_name=ADAPTER)
    else:
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(ranks):
            rank, alpha = ranks[name]
            layer = module.get_submodule(name)
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, kind.make(layer, rank, kind.scale(rank, alpha), generator))
    weights = []
    for name, weight in adapter_weights(module):
        weight.data = weight.data.float()
        weight.requires_grad_(True)
        weights.append((name, weight))
    return weights


def _peft_config(kind: Kind, ranks: Ranks, wanted: str | list[str]) -> Any:
    """peft's LoraConfig; layers that differ from the most common rank and alpha are named in its patterns."""
    from peft import LoraConfig

    every = list(ranks.values())
    rank, alpha = max(dict.fromkeys(every), key=every.count)
    return LoraConfig(
        r=rank,
        lora_alpha=number(alpha),
        target_modules=wanted,
        rank_pattern={exact(name): own for name, (own, _) in ranks.items() if own != rank},
        alpha_pattern={exact(name): number(own) for name, (_, own) in ranks.items() if own != alpha},
        **kind.peft,
    )


def exact(name: str) -> str:
    """A pattern of peft's for one layer alone: it matches the end of a name unless bound to its beginning."""
    return f"^{re.escape(name)}"


def number(alpha: float) -> int | float:
    """Whole alphas as int, which is how every reader writes them."""
    return int(alpha) if alpha == int(alpha) else alpha


def adapter_weights(module: Any) -> Iterator[tuple[str, Parameter]]:
    """The adapter's weights by name, in the model's order."""
    from train.adapters.layer import adapter_layers

    own = {f"{name}.{inner}" for name, layer in adapter_layers(module) for inner, _ in layer.named_parameters(recurse=False)}
    for name, weight in module.named_parameters():
        if name in own or ".lora_" in name:
            yield name, weight


def is_up(name: str) -> bool:
    """Whether a weight of this name is the up matrix (B) of a LoRA, peft's or ours."""
    return ".lora_B" in name


def switch(module: Any, *, on: bool) -> None:
    """Adapters on or off, layer by layer: the classes' own switches differ, and transformers' leaves gradients disabled."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from train.adapters.layer import AdapterLayer

    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(enabled=on)
        elif isinstance(layer, AdapterLayer):
            layer.enabled = on


def tensors_of(module: Any) -> Iterator[tuple[str, Tensor]]:
    """`<module>.lora_A.weight` and the like -> tensor, all that a file of the adapter holds, the scale of factors left out."""
    from peft import get_peft_model_state_dict

    from train.adapters.layer import adapter_layers

    if hasattr(module, "peft_config"):
        yield from get_peft_model_state_dict(module, adapter_name=ADAPTER).items()
    for name, layer in adapter_layers(module):
        for ending, tensor in layer.file_tensors().items():
            yield f"{name}{ending}", tensor


def set_tensors(module: Any, tensors: Mapping[str, Tensor]) -> None:
    """Give the adapter the numbers of `tensors_of`."""
    import torch

    from train.adapters.layer import adapter_layers

    own = dict(adapter_layers(module))
    for name, layer in own.items():
        layer.load_file_tensors({key.removeprefix(name): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")})
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if ".lora_" in name and name.rpartition(".")[0] not in own:
                weight.copy_(tensors[file_name(name)].to(weight.dtype))


def file_name(parameter: str) -> str:
    """The key of a parameter of peft's."""
    name = parameter.replace(f".{ADAPTER}.", ".")
    return name.removesuffix(".weight") if name.endswith(f"{MAGNITUDE}.weight") else name


def scales_of(module: Any) -> dict[str, float]:
    """Layer -> what the product of its factors is multiplied by, of layers whose file has factors."""
    from peft.tuners.lora import LoraLayer

    from train.adapters.layer import adapter_layers

    found = {name: layer.scaling[ADAPTER] for name, layer in module.named_modules() if isinstance(layer, LoraLayer) and layer.lora_A}
    return found | {name: layer.scale for name, layer in adapter_layers(module)}


def training_resumed(module: Any) -> None:
    """Use the parameters again where a file's numbers are in use."""
    from train.adapters.layer import adapter_layers

    for _, layer in adapter_layers(module):
        layer.use_parameters()


def _ignores_weights(config: Any) -> bool:
    """Whether the first factors are no function of the weights: not those of DoRA and PiSSA."""
    return not config.use_dora and config.init_lora_weights in (True, False, "gaussian")


def deltas_of(module: Any) -> Iterator[tuple[str, Delta]]:
    """(layer, what is added to its weight as peft or the runtimes would merge it), made of the module when it is looked at."""
    return ((name, change.on(partial(weight_of, module, name))) for name, change in _changes_of(module))


def trained_deltas_of(module: Any) -> Iterator[tuple[str, Delta | TrainedDelta]]:
    """The same to be kept, as numbers of the adapter alone: no part of the module, and no products, which take more than a quantised
    model does."""
    for name, change in _changes_of(module):
        yield name, change if isinstance(change, Delta) else change.trained_on(weight_of(module, name))


def weight_of(module: Any, name: str) -> Tensor:
    """The weight of a layer, whatever adapter is around it: fp32 on the CPU."""
    layer = module.get_submodule(name)
    found: Tensor = getattr(layer, "base_layer", layer).weight.detach().float().cpu()
    return found


def _changes_of(module: Any) -> Iterator[tuple[str, Delta | DeltaOfWeight]]:
    """(layer, what is added to its weight), of copies of the adapter's own numbers."""
    import torch
    from peft.tuners.lora import LoraLayer

    from train.adapters.layer import adapter_layers

    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, LoraLayer) and layer.lora_A:
                yield name, _peft_change(layer)
        for name, layer in adapter_layers(module):
            yield name, layer.change()


def _peft_change(layer: Any) -> Delta | DeltaOfWeight:
    """B A alpha / r; of a DoRA with its magnitudes."""
    (adapter,) = layer.lora_A.keys()
    up, down = (factor[adapter].weight.detach().float().cpu().clone() for factor in (layer.lora_B, layer.lora_A))
    product = of_factors(up, down, float(layer.scaling[adapter]))
    if adapter not in getattr(layer, "lora_magnitude_vector", {}):
        return product
    magnitude = layer.lora_magnitude_vector[adapter].weight.detach().float().cpu().clone()
    return of_dora(product, magnitude, tuple(layer.get_base_layer().weight.shape))
