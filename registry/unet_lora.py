"""LoRA on the UNets of the Stable Diffusion line: which layers, and their names in the first code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.ldm_names import unet_modules
from registry.lora_files import Original, own_layers, read_lora

if TYPE_CHECKING:
    from torch import Tensor

    from registry.families.base import Parts

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MLP = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
PRESETS: Mapping[str, tuple[str, ...]] = {
    "attention": ATTENTION,
    "attention_mlp": (*ATTENTION, *MLP),
    "convolutions": (*ATTENTION, *MLP, *CONVOLUTIONS),
}


def unet_lora_state(path: Path | str, parts: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The LoRA of a file for a UNet and its text encoders, in peft keys, with the alphas it carries."""
    names = [name for name, _layer in own_layers(parts.denoiser)]
    config: Any = parts.denoiser.config
    originals = {ldm: Original((name,)) for name, ldm in unet_modules(config, names).items()}
    return read_lora(path, parts, denoiser="unet", originals=originals)
