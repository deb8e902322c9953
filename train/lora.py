"""Which modules learn, and the peft adapter on them: fp32 whatever the base's precision, a target that hits nothing refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, Refused
from registry.families.base import Family
from registry.names import suggest
from train.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

ADAPTER = "default"  # peft's own name, which diffusers' savers look for


def targets_of(family: Family, given: object) -> str | list[str]:
    """peft's target_modules of `lora.targets`: a preset's, a list as it is, or the regular expression between slashes."""
    if isinstance(given, str):
        if len(given) > 2 and given[0] == given[-1] == "/":
            return _regex(given[1:-1])
        if given not in family.lora_presets:
            raise Refused(
                f"lora.targets={given!r} is no preset of {family.name}. {suggest(given, family.lora_presets)} "
                "Module names are given as a list ([to_q,to_v]), a regular expression between slashes (/.*attn2.*/)."
            )
        preset = family.lora_presets[given]
        return preset if isinstance(preset, str) else list(preset)
    assert isinstance(given, Sequence)
    return [str(item) for item in given]


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise Refused(f"lora.targets=/{pattern}/ is not a regular expression: {error}.") from error
    return pattern


def matched(module: Module, targets: str | Sequence[str]) -> list[str]:
    """Names of the linear and convolution layers that the targets hit. Raises Refused with what there is for one that hits none.

    Names match as peft matches them: a list by whole name or last parts, a regular expression in full.
    """
    layers = layers_of(module)
    if isinstance(targets, str):
        hit = [name for name in layers if re.fullmatch(targets, name)]
        if not hit:
            raise Refused(f"lora.targets=/{targets}/ matches none of the {len(layers)} layers. There are: {_kinds(layers)}.")
        return hit
    found = {target: [name for name in layers if name == target or name.endswith(f".{target}")] for target in targets}
    empty = [target for target, names in found.items() if not names]
    if empty:
        raise Faults("These lora.targets match no layer of the base:", [*map(repr, empty), f"there are: {_kinds(layers)}"])
    return sorted({name for names in found.values() for name in names})


def layers_of(module: Module) -> dict[str, Module]:
    """Every linear and convolution layer by name: what a LoRA can be put on."""
    from torch import nn

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d)) and ".lora_" not in name}


def _kinds(layers: Mapping[str, object]) -> str:
    """The layers' last names with how often each occurs: 'to_q (32), ff.net.2 (16), ...'."""
    counts = Counter(_last_name(name) for name in layers)
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common())


def _last_name(name: str) -> str:
    """The name after its last numbered block: transformer_blocks.0.attn1.to_out.0 -> to_out.0, ...ff.net.0.proj -> ff.net.0.proj."""
    parts = name.split(".")
    if parts[-1].isdigit() and len(parts) > 1:
        inner = parts[-3:] if parts[-2] == "net" and len(parts) > 2 else parts[-2:]
        return ".".join(inner)
    return ".".join(parts[-4:]) if len(parts) > 3 and parts[-3] == "net" else parts[-1]


def parameter_count(module: Module, names: Sequence[str], rank: int) -> int:
    """Weights a LoRA of this rank has on these layers, from their shapes alone (also on the meta device)."""
    layers = layers_of(module)
    total = 0
    for name in names:
        weight: Any = layers[name].weight
        groups = getattr(layers[name], "groups", 1)
        outputs, inputs = weight.shape[0], weight.shape[1] * groups
        size = weight[0, 0].numel() if weight.ndim == 4 else 1  # A has the kernel of the layer, B is 1 x 1
        total += rank * (inputs * size // groups + outputs)
    return total


def add_lora(denoiser: Any, config: TrainConfig, targets: str | Sequence[str]) -> list[tuple[str, Parameter]]:
    """Put the adapter on and give its weights by name: fp32, A drawn from the seed, B zero (the base unchanged)."""
    import torch
    from peft import LoraConfig

    matched(denoiser, targets)
    denoiser.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        wanted = targets if isinstance(targets, str) else sorted(targets)
        denoiser.add_adapter(LoraConfig(r=config.lora.rank, lora_alpha=_number(config.alpha), target_modules=wanted), adapter_name=ADAPTER)
    weights = []
    for name, weight in denoiser.named_parameters():
        if ".lora_" in name:
            weight.data = weight.data.float()
            weight.requires_grad_(True)
            weights.append((name, weight))
    return weights


def _number(alpha: float) -> int | float:
    """Whole alphas as int, which is how every reader writes them."""
    return int(alpha) if alpha == int(alpha) else alpha


@contextmanager
def base_alone(denoiser: Any) -> Iterator[None]:
    """The base without its adapter, for as long as the block lasts."""
    denoiser.disable_adapters()
    try:
        yield
    finally:
        denoiser.enable_adapters()


def lora_tensors(denoiser: Any) -> dict[str, Tensor]:
    """The adapter in peft's keys `<module>.lora_A.weight`, on the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}


def set_lora_tensors(denoiser: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put saved weights into the adapter; every one must have its place. Raises Refused."""
    import torch

    places = {name.replace(f".{ADAPTER}.", "."): weight for name, weight in denoiser.named_parameters() if ".lora_" in name}
    if places.keys() != tensors.keys():
        missing, extra = sorted(places.keys() - tensors.keys()), sorted(tensors.keys() - places.keys())
        raise Refused(
            f"The saved adapter does not fit: {len(missing)} weights are missing, {len(extra)} have no place (e.g. {(missing + extra)[0]})."
        )
    with torch.no_grad():
        for name, weight in places.items():
            weight.copy_(tensors[name].to(weight.dtype))


def adapter_config(denoiser: Any) -> dict[str, Any]:
    """peft's settings of the adapter as plain values, lists in a fixed order: what diffusers reads alpha and rank from."""
    plain: dict[str, Any] = denoiser.peft_config[ADAPTER].to_dict()
    return {
        name: sorted(value) if isinstance(value, (set, list, tuple)) and all(isinstance(v, str) for v in value) else value
        for name, value in plain.items()
    }
