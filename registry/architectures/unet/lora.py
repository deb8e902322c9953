"""LoRA on the UNets of the Stable Diffusion line: which layers, and their names in the original implementation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import Original, own_layers, read_lora
from registry.architectures.unet.ldm_names import RESNET, unet_modules, unet_prefixes
from registry.formats.layers import Layer, every, same_names
from registry.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MLP = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
PRESETS: Mapping[str, tuple[str, ...]] = {
    "attention": ATTENTION,
    "attention_mlp": (*ATTENTION, *MLP),
    "convolutions": (*ATTENTION, *MLP, *CONVOLUTIONS),
}

INSIDE_ATTENTION = (  # of a Transformer2DModel
    *("norm", "proj_in", "proj_out"),
    *every("transformer_blocks.*.", ("attn1.", "attn2."), ATTENTION),
    *every("transformer_blocks.*.", ("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")),
)
INSIDE_RESNET = tuple(RESNET)
OUTSIDE = (
    *("conv_in", "conv_out", "conv_norm_out"),
    *every(("time_embedding", "add_embedding"), ".", ("linear_1", "linear_2")),
    *("down_blocks.*.downsamplers.0.conv", "up_blocks.*.upsamplers.0.conv"),
)

UNET_LAYERS: tuple[Layer, ...] = same_names(
    *OUTSIDE,
    *every(("down_blocks.*.", "mid_block.", "up_blocks.*."), "attentions.*.", INSIDE_ATTENTION),
    *every(("down_blocks.*.", "mid_block.", "up_blocks.*."), "resnets.*.", INSIDE_RESNET),
)
"""Every layer of a UNet under diffusers' names, which kohya's files of SD 1 and SD 2 have too, dots as underscores."""


def ldm_layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Every layer of a UNet of this config with its name in the original implementation, as kohya's files of SDXL have it."""
    found: list[Layer] = []
    for diffusers_key, original_key in unet_prefixes(config):
        if ".resnets." in diffusers_key:
            found += [Layer(f"{original_key}.{RESNET[part]}", (f"{diffusers_key}.{part}",)) for part in INSIDE_RESNET]
        elif ".attentions." in diffusers_key:
            found += [Layer(f"{original_key}.{part}", (f"{diffusers_key}.{part}",)) for part in INSIDE_ATTENTION]
        else:
            found.append(Layer(original_key, (diffusers_key,)))
    return tuple(found)


def unet_lora_state(path: Path | str, parts: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The LoRA of a file for a UNet and its text encoders, in peft keys, with the alphas it carries."""
    names = [name for name, _layer in own_layers(parts.denoiser)]
    config: Any = parts.denoiser.config
    originals = {ldm: Original((name,)) for name, ldm in unet_modules(config, names).items()}
    return read_lora(path, parts, denoiser="unet", originals=originals)
