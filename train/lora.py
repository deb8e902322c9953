"""The trained modules and the peft adapter on them: fp32 whatever the base's precision; targets without a match are refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.family import Family
from registry.names import suggest
from registry.parts import Parts
from registry.printable import counted, some
from train.adapters.attach import ADAPTER, attach, scales_of, set_tensors, switch, tensors_of
from train.adapters.kinds import Kind, choose_kind
from train.adapters.ranks import ranks_of
from train.config import WITH_UP, Precision, TrainConfig
from train.settings.lora import LoraConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter


TEXT_TARGETS = "q_proj|k_proj|v_proj|out_proj"  # attention of CLIP's text models, as the diffusers scripts train it
Weights = list[tuple[str, "Parameter"]]  # `<component>.<name>` and the weight


def learning_modules(family: Family, parts: Parts, config: TrainConfig) -> dict[str, Any]:
    """The modules that get a LoRA, by component: the denoiser, then the text encoders that are trained."""
    return {family.denoiser: parts.denoiser} | {name: parts.text_encoders[name] for name in learning_encoders(family, parts, config)}


def learning_encoders(family: Family, parts: Parts, config: TrainConfig) -> list[str]:
    """The text encoders that are trained. Raises Refused where the family has none that can be."""
    if not config.lora.text_encoder:
        return []
    found = [name for name in family.learning_encoders if name in parts.text_encoders]
    if not found:
        raise Refused(
            f"lora.text_encoder=true: {family.title} reads prompts with a language model, and no tool loads a LoRA for it. Leave it out."
        )
    return found


def encoder_targets(family: Family, name: str, encoder: Any, *, clip_skip: int | None) -> str:
    """peft's target_modules of a text encoder: its attention, but in the layers that are never read, which could not learn."""
    unread = family.learning_encoders[name]
    layers = int(encoder.config.num_hidden_layers) - (0 if unread is None else unread + (clip_skip or 0))
    return rf"(text_model\.)?encoder\.layers\.({'|'.join(map(str, range(layers)))})\.self_attn\.({TEXT_TARGETS})"


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
    """Names of the linear and convolution layers that the targets match. Raises Refused, listing the layers, for one without a match.

    Names match as peft matches them: a list by whole name or last parts, a regular expression in full.
    """
    layers = layers_of(module)
    if isinstance(targets, str):
        hit = [name for name in layers if re.fullmatch(targets, name)]
        if not hit:
            raise Refused(f"lora.targets=/{targets}/ matches none of the {counted(len(layers), 'layer')}. There are: {_kinds(layers)}.")
        return hit
    found = {target: [name for name in layers if name == target or name.endswith(f".{target}")] for target in targets}
    empty = [target for target, names in found.items() if not names]
    if empty:
        raise Refused(f"These lora.targets match no layer of the base: {', '.join(map(repr, empty))}. There are: {_kinds(layers)}.")
    return sorted({name for names in found.values() for name in names})


def layers_of(module: Module) -> dict[str, Module]:
    """Every linear and convolution layer by name: those that a LoRA can be added to."""
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


def parameter_count(module: Module, names: Sequence[str], lora: LoraConfig) -> int:
    """Weights that an adapter has on these layers, from their shapes alone (also on the meta device)."""
    layers, kind = layers_of(module), kind_of(lora)
    weights: dict[str, Any] = {name: layers[name].weight for name in names}
    return sum(kind.count(tuple(weights[name].shape), rank) for name, (rank, _) in ranks_of(names, lora).items())


def factor_shapes(module: Module, names: Sequence[str], lora: LoraConfig) -> Counter[tuple[int, ...]]:
    """How often each shape is among the weights of a LoRA or DoRA on these layers; empty for other kinds, which are not of factors."""
    layers, found = layers_of(module), Counter[tuple[int, ...]]()
    if lora.kind not in WITH_UP:
        return found
    for name, (rank, _) in ranks_of(names, lora).items():
        layer: Any = layers[name]
        outputs, inputs, *kernel = layer.weight.shape
        found[(rank, inputs, *kernel)] += 1
        found[(outputs, rank, *(1 for _ in kernel))] += 1
        if lora.kind == "dora":
            found[(outputs,) if not kernel else (1, outputs, *(1 for _ in kernel))] += 1
    return found


def check_learns(module: Module, names: Sequence[str], lora: LoraConfig) -> None:
    """Raise Refused for layers that would have no weights: an OFT's, where no block of outputs divides their width."""
    layers, kind = layers_of(module), kind_of(lora)
    shapes: dict[str, Any] = {name: tuple(layers[name].weight.shape) for name in names}  # type: ignore[arg-type]
    empty = [name for name, (rank, _) in ranks_of(names, lora).items() if not kind.count(shapes[name], rank)]
    if empty:
        widths = sorted({shapes[name][0] for name in empty})
        least = [next(size for size in range(2, width + 1) if width % size == 0) for width in widths if width > 1]
        size = f"lora.params.block_size={max(least)} or more, or " if len(least) == len(widths) else ""
        raise Refused(
            f"lora.kind={lora.kind}: the outputs of {some(empty, 3)} ({', '.join(map(str, widths))}) cannot be cut into blocks of 2 to"
            f" {lora.params.block_size or lora.rank}, so nothing there would learn. Give {size}lora.targets without these"
            " layers."
        )


def kind_of(lora: LoraConfig) -> Kind:
    """The kind of adapter with its options. Raises Refused or Faults."""
    return choose_kind(lora.kind, lora.params)


def file_ranks(family: Family, parts: Parts, config: TrainConfig, targets: str | Sequence[str]) -> dict[str, int]:
    """The rank of each layer that is trained, by `<component>.<module>` as the file names it."""
    found: dict[str, int] = {}
    for component, module in learning_modules(family, parts, config).items():
        own = targets if component == family.denoiser else encoder_targets(family, component, module, clip_skip=config.clip_skip)
        inside = inside_of(component, module)
        found |= {f"{component}.{inside}{name}": rank for name, (rank, _) in ranks_of(matched(module, own), config.lora).items()}
    return found


def add_loras(family: Family, modules: Mapping[str, Any], config: TrainConfig, targets: str | Sequence[str]) -> dict[str, Weights]:
    """Add the adapter to every module: to the denoiser by `targets`, to text encoders by their own. Gives the weights by component."""
    if not kind_of(config.lora).layers:
        for module in modules.values():
            module.requires_grad_(False)
        return {}
    found = {}
    for component, module in modules.items():
        own = targets if component == family.denoiser else encoder_targets(family, component, module, clip_skip=config.clip_skip)
        weights = add_lora(module, config, own)
        found[component] = [(f"{component}.{name}", weight) for name, weight in weights]
    return found


def add_lora(module: Any, config: TrainConfig, targets: str | Sequence[str]) -> Weights:
    """Add the adapter and give its weights by name: fp32, drawn from the seed, without effect as yet (the base unchanged)."""
    ranks = ranks_of(matched(module, targets), config.lora)
    weights = attach(module, kind_of(config.lora), ranks, _peft_targets(module, targets), seed=config.seed)
    if config.lora.product == "auto" and config.compile is None:  # the compiler joins operations by itself
        from train.adapters.product import compute_in_fewer_operations

        compute_in_fewer_operations(module)
    return weights


def _peft_targets(module: Any, targets: str | Sequence[str]) -> str | list[str]:
    """peft's target_modules that hit the matched layers and nothing else: peft fails on a block or a dropout of a matching name."""
    layers = set(matched(module, targets))
    wanted = targets if isinstance(targets, str) else sorted(targets)
    if isinstance(wanted, str):
        hit = {name for name, _ in module.named_modules() if re.fullmatch(wanted, name)}
    else:
        hit = {name for name, _ in module.named_modules() if any(name == target or name.endswith(f".{target}") for target in wanted)}
    return wanted if hit == layers else "|".join(re.escape(name) for name in sorted(layers))


def may_stack(config: TrainConfig, precision: Precision) -> bool:
    """Whether settings let weights be formed at once (adapters/stacks.py): nothing moves, recomputes or compiles their layers."""
    return precision is Precision.fp32 and not (config.swap_blocks or config.gradient_checkpointing or config.compile is not None)


def enable_gradient_checkpointing(module: Any) -> None:
    """Gradient checkpointing, in diffusers' or transformers' spelling."""
    if hasattr(module, "enable_gradient_checkpointing"):
        module.enable_gradient_checkpointing()
    elif hasattr(module, "activation_checkpointing_enable"):  # transformers' name for it since 5.20
        module.activation_checkpointing_enable()
    else:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextmanager
def adapter_disabled(modules: Mapping[str, Any]) -> Iterator[None]:
    """The adapter disabled inside the block."""
    for module in modules.values():
        switch(module, on=False)
    try:
        yield
    finally:
        for module in modules.values():
            switch(module, on=True)


def lora_tensors(modules: Mapping[str, Any]) -> dict[str, Tensor]:
    """The adapter in the keys of its file, `<component>.<module>.lora_A.weight`, on the CPU.

    Of a text encoder every reader expects `text_model.` in front, which newer classes have dropped from their names.
    """
    found = {}
    for component, module in modules.items():
        inside = inside_of(component, module)
        for name, tensor in tensors_of(module):
            found[f"{component}.{inside}{name}"] = tensor.detach().cpu().contiguous()
    return dict(sorted(found.items()))


def inside_of(component: str, module: Any) -> str:
    """The prefix between the component and the module's own names."""
    return "text_model." if component.startswith("text_encoder") and not hasattr(module, "text_model") else ""


def set_lora_tensors(modules: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Load saved weights, in the keys of `lora_tensors`, into the adapter; all must match. Raises Refused."""
    inside = {component: f"{component}.{inside_of(component, module)}" for component, module in modules.items()}
    places = lora_tensors(modules).keys()
    if places != tensors.keys():
        missing, extra = sorted(places - tensors.keys()), sorted(tensors.keys() - places)
        raise Refused(
            f"The saved adapter does not fit: {counted(len(missing), 'weight is', 'weights are')} missing, "
            f"{len(extra)} do not match (e.g. {(missing + extra)[0]})."
        )
    for component, module in modules.items():
        before = inside[component]
        set_tensors(module, {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)})


def scales(modules: Mapping[str, Any]) -> dict[str, float]:
    """`<component>.<module>` as in the file -> what the product of its factors is multiplied by."""
    return {
        f"{component}.{inside_of(component, module)}{name}": scale
        for component, module in modules.items()
        for name, scale in scales_of(module).items()
    }


def adapter_config(module: Any) -> dict[str, Any]:
    """peft's settings of the adapter as plain values, lists in a fixed order: what diffusers reads alpha and rank from."""
    plain: dict[str, Any] = module.peft_config[ADAPTER].to_dict()
    return {
        name: sorted(value) if isinstance(value, (set, list, tuple)) and all(isinstance(v, str) for v in value) else value
        for name, value in plain.items()
    }
