"""A quantised base in the plan: what is kept in how many bits, what it weighs, and what cannot go with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.errors import Faults
from registry.family import Family
from registry.parts import Parts
from registry.quantised.checks import counted_titles, device_faults, stored_faults
from registry.quantised.layers import Quantisation
from registry.quantised.skeleton import stored_layers, stored_titles
from train.config import TrainConfig
from train.settings.quantised import NAMES

if TYPE_CHECKING:
    import torch

MULTIPLIED = {"dora": "DoRA's magnitudes", "oft": "OFT's rotations"}
PISSA = "PiSSA's factors"


def quantisation_of(config: TrainConfig, family: Family) -> Quantisation:
    """What the settings keep in few bits."""
    return Quantisation(denoiser=config.base_dtype, text_encoders=config.text_encoder_dtype, layers=family.quantised)


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Raise Faults for a dtype that the device has no numbers for."""
    faults = device_faults({name: getattr(config, name) for name in NAMES}, device.type)
    if faults:
        raise Faults("These cannot be kept on this device:", faults)


def check_stored(config: TrainConfig, parts: Parts, device: torch.device) -> None:
    """Refuse what cannot go with a base that is quantised in its file. Raises Faults."""
    stored = stored_titles(parts.denoiser, rounded=True)
    modules = {"denoiser": parts.denoiser, **parts.text_encoders}
    faults = [fault for name, module in modules.items() for fault in stored_faults(name, module, None, device.type)]
    if stored and config.adapter.training is not None:
        faults.append(
            f"adapter.training is fused into the weights, and the file of the base has {counted_titles(stored)}: most of it would be"
            " rounded away. Fuse it into the bf16 base before (loraloom lora fuse)."
        )
    if faults:
        raise Faults("The base is quantised in its file:", faults)


def quantised_layers(family: Family, parts: Parts, config: TrainConfig) -> dict[str, dict[str, int]]:
    """Component -> dtype, or a file's own coding -> how many of its layers are kept in it; {} without a quantised component."""
    from torch import nn

    found: dict[str, dict[str, int]] = {}
    quantised = quantisation_of(config, family)
    for component, module in {family.denoiser: parts.denoiser, **parts.text_encoders}.items():
        choose, stored = quantised.of(component), stored_layers(module)
        names = [name for name, layer in module.named_modules() if type(layer) is nn.Linear]
        chosen = {name: dtype for name in names if choose is not None and (dtype := choose(name)) is not None}
        kept = {name: f"{weight.coding.title} (as its file has it)" for name, weight in stored.items()} | chosen
        if kept:
            found[component] = dict(Counter(kept.values()).most_common())
    return found


def quantised_rows(layers: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """The plan's row."""
    if not layers:
        return []
    words = [f"{name}: {' and '.join(f'{count} layers in {dtype}' for dtype, count in kept.items())}" for name, kept in layers.items()]
    return [("quantised", f"{'; '.join(words)}; all else as precision (norms, embeddings, convolutions)")]


def quantised_notes(config: TrainConfig, stored: Mapping[str, int]) -> list[str]:
    """What to know of an adapter that is trained on a quantised base; `stored` are the codings of the denoiser's file."""
    if config.base_dtype is None and not stored:
        return []
    if config.base_dtype is None:
        notes = [
            f"the base is quantised in its file ({counted_titles(stored)}): the adapter learns on these weights, kept as they are stored."
            " On the base as it was before its images differ by what that changed"
        ]
    else:
        notes = [
            f"base_dtype={config.base_dtype}: the adapter learns on the quantised weights, and is proven on them again. On the base as it"
            " is published its images differ by what quantising changed: the weight error is in result.json"
        ]
    made = MULTIPLIED.get(config.lora.kind) or (PISSA if config.lora.params.init == "pissa" else None)
    if made is not None:
        notes.append(f"{made} are made of the quantised weights, and the file is exact on these alone")
    return notes
