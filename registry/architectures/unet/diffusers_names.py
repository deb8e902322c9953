"""UNet names of the original (LDM) checkpoints as diffusers' names: arithmetic on block numbers, nothing more."""

import re
from collections.abc import Iterable

from registry.architectures.unet.ldm_names import RESNET as LDM_RESNET

RESNET = {original_key: diffusers_key for diffusers_key, original_key in LDM_RESNET.items()}
TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)|(middle_block)\.(\d)\.(.+)")
DOWNSAMPLER = re.compile(r"input_blocks\.(\d+)\.0\.op\b")
LAYERS = 2  # resnets a level in every published UNet of this build


def layers_per_block(names: Iterable[str]) -> int:
    """Resnets a level: the first downsampler comes right after those of the first level."""
    found = [int(match[1]) for name in names if (match := DOWNSAMPLER.search(name))]
    return min(found) - 1 if found else LAYERS


def diffusers_module(module: str, *, layers: int = LAYERS) -> str | None:
    """diffusers' name of an LDM UNet module (without `.weight`); None for what is no UNet module."""
    if module in TOP:
        return TOP[module]
    found = BLOCK.fullmatch(module)
    if not found:
        return None
    if found[5]:
        place = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}.get(found[6])
        return f"{place}.{RESNET.get(found[7], found[7])}" if place else None
    side, number, slot, rest = found[1], int(found[2]), int(found[3]), found[4]
    if side == "input_blocks":
        level, layer = divmod(number - 1, layers + 1)
        if rest == "op":
            return f"down_blocks.{level}.downsamplers.0.conv"
        part = "resnets" if slot == 0 else "attentions"
        return f"down_blocks.{level}.{part}.{layer}.{RESNET.get(rest, rest)}"
    level, layer = divmod(number, layers + 1)
    if rest == "conv":
        return f"up_blocks.{level}.upsamplers.0.conv"
    part = "resnets" if slot == 0 else "attentions"
    return f"up_blocks.{level}.{part}.{layer}.{RESNET.get(rest, rest)}"


UNDERSCORED = re.compile(r"(input_blocks|output_blocks)_(\d+)_(\d+)_(.+)|(middle_block)_(\d)_(.+)")
RESNET_UNDERSCORED = {key.replace(".", "_"): value for key, value in RESNET.items()}
TOP_UNDERSCORED = {key.replace(".", "_"): value for key, value in TOP.items()}


def diffusers_underscored(module: str) -> str:
    """A kohya UNet module (dots as underscores) with LDM names, in diffusers' names; other modules as they are.

    The published UNets have two resnets a level: that is assumed, since an adapter does not hold its base's names.
    """
    if module in TOP_UNDERSCORED:
        return TOP_UNDERSCORED[module].replace(".", "_")
    found = UNDERSCORED.fullmatch(module)
    if not found:
        return module
    rest = found[7] if found[5] else found[4]
    dotted = RESNET_UNDERSCORED.get(rest, rest)
    name = f"middle_block.{found[6]}.{dotted}" if found[5] else f"{found[1]}.{found[2]}.{found[3]}.{dotted}"
    diffusers = diffusers_module(name)
    return diffusers.replace(".", "_") if diffusers else module
