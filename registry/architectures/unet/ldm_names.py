"""The names of the first Stable Diffusion code (LDM), as single-file checkpoints and many adapters still use them.

Every function takes a parameter or module name of diffusers or transformers and gives the name in the file. They are held
against diffusers' own converters by a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}


@lru_cache(maxsize=32)
def _unet_prefixes(levels: int, layers: int, attended_down: tuple[bool, ...], attended_up: tuple[bool, ...]) -> tuple[tuple[str, str], ...]:
    """(diffusers prefix, LDM prefix) of every part of a UNet; the numbering counts resnets and samplers in one row."""
    table = [
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("mid_block.resnets.0", "middle_block.0"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("mid_block.resnets.1", "middle_block.2"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ]
    for level in range(levels):
        for layer in range(layers):
            row = 1 + level * (layers + 1) + layer
            table += [(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{row}.0")]
            table += [(f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{row}.1")]
        table += [(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{(level + 1) * (layers + 1)}.0.op")]
        for layer in range(layers + 1):
            row = level * (layers + 1) + layer
            table += [(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{row}.0")]
            table += [(f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{row}.1")]
        last = level * (layers + 1) + layers
        table += [(f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{last}.{2 if attended_up[level] else 1}.conv")]
    return tuple(table)


def unet_name(config: Mapping[str, Any], name: str) -> str | None:
    """The LDM name of a UNet's module or parameter, without `model.diffusion_model.`; None for a part LDM does not have."""
    for prefix, ldm in unet_prefixes(config):
        if name == prefix or name.startswith(f"{prefix}."):
            rest = name[len(prefix) :]
            return ldm + (_replaced_part(rest, RESNET) if ".resnets." in prefix else rest)
    return None


def _replaced_part(rest: str, parts: Mapping[str, str]) -> str:
    """`.conv1.weight` -> `.in_layers.2.weight`."""
    for diffusers_key, original_key in parts.items():
        if rest == f".{diffusers_key}" or rest.startswith(f".{diffusers_key}."):
            return f".{original_key}{rest[len(diffusers_key) + 1 :]}"
    return rest


def unet_modules(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Module name of diffusers -> LDM module name, of those that have one."""
    return {name: ldm for name in names if (ldm := unet_name(config, name)) is not None}


def unet_prefixes(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(diffusers prefix, LDM prefix) of every part of a UNet of this config."""
    down, up = (tuple("Attn" in block for block in config[key]) for key in ("down_block_types", "up_block_types"))
    return _unet_prefixes(len(down), int(config["layers_per_block"]), down, up)


def vae_name(config: Mapping[str, Any], name: str) -> str:
    """The LDM name of an AutoencoderKL's parameter, without `first_stage_model.`."""
    levels = len(config["block_out_channels"])
    found = re.match(
        r"(encoder|decoder)\.(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(\..*)", name
    )
    if not found:
        return name.replace("conv_norm_out", "norm_out")
    side, way, level, kind, number, rest = found.groups()
    if way is None:
        if kind == "attentions":
            return f"{side}.mid.attn_1{_replaced_part(rest, VAE_ATTENTION)}"
        return f"{side}.mid.block_{int(number) + 1}{rest.replace('.conv_shortcut', '.nin_shortcut')}"
    row = int(level) if way == "down" else levels - 1 - int(level)
    if kind == "resnets":
        return f"{side}.{way}.{row}.block.{number}{rest.replace('.conv_shortcut', '.nin_shortcut')}"
    return f"{side}.{way}.{row}.{kind.removesuffix('rs')}{rest}"  # downsamplers.0.conv -> downsample.conv


def clip_name(name: str) -> str:
    """The name of a CLIP text model's parameter inside `...transformer.`, with the `text_model.` that newer classes dropped."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def open_clip_name(name: str) -> tuple[str, int | None]:
    """The name of a CLIP parameter in OpenCLIP's text tower, and which third of a fused q, k, v it is (None: all of it)."""
    name = name.removeprefix("text_model.")
    if name == "text_projection.weight":
        return "text_projection", None
    for diffusers_key, original_key in OPEN_CLIP.items():
        name = name.replace(diffusers_key, original_key)
    found = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
    if found:
        return f"{found[1]}.attn.in_proj_{found[3]}", "qkv".index(found[2])
    return name, None
