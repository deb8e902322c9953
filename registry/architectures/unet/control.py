"""ControlNets of the UNet families (Zhang et al. 2023): residuals on every skip of the down half, and one in the middle.

A hint is pixels in [0, 1]. A union net (ControlNetUnionModel) takes several kinds of hint, selected by its mode.
"""

# B batch, C channels, h w pixels, H W latent size

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.family import Control
from registry.formats.controlnet_file import load_controlnet, refuse_other_build
from registry.formats.safetensors_header import TensorInfo
from registry.parts import Conditioning, Parts, Residuals

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CLASSES = ("ControlNetModel", "ControlNetUnionModel")
SAME = ("in_channels", "block_out_channels", "layers_per_block", "addition_embed_type", "projection_class_embeddings_input_dim")
HINT = re.compile(  # the hint's convolutions between the first and the last, in diffusers' and in LDM's names
    r"^(?:controlnet_cond_embedding\.blocks|(?:control_model\.)?input_hint_block(?!\.(?:0|14)\.))\.(\d+)\.weight$"
)
UNION_MARK = "task_embedding"  # a parameter that only the union net has


def load(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder or of a single file in diffusers' or LDM's names, when it fits the base."""
    net = load_controlnet(
        path,
        family="this base's family",
        classes=CLASSES,
        build=lambda tensors: _of_base(parts.denoiser, tensors),
        rename=_diffusers_names,
        dtype=dtype,
        device=device,
    )
    base: Any = parts.denoiser.config
    same = [*SAME, "cross_attention_dim"] if any("attn2" in name for name in net.state_dict()) else SAME
    refuse_other_build(Path(path).name, net.config, base, same)
    if net.config.global_pool_conditions:
        raise Refused(f"The ControlNet {Path(path).name} pools its hint to one vector (a shuffle net), which is not drawn here.")
    if (factor := 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)) != parts.latent_factor:
        raise Refused(
            f"The ControlNet {Path(path).name} has {factor} pixels of its hint a latent cell; this base has {parts.latent_factor}."
        )
    return net  # type: ignore[no-any-return]  # diffusers is untyped


def _of_base(unet: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
    """An empty net that is a copy of the UNet's down half, with the hint's channels as the file has them."""
    import diffusers

    if UNION_MARK in tensors:
        raise Refused("A union ControlNet in a single file needs the config.json of its folder beside it, or the folder itself.")
    options: dict[str, Any] = {"load_weights_from_unet": False}
    if channels := _hint_channels(tensors):
        options["conditioning_embedding_out_channels"] = channels
    return diffusers.ControlNetModel.from_unet(unet, **options)  # type: ignore[no-any-return]  # diffusers is untyped


def _hint_channels(tensors: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    """What the hint's convolutions give: pairs n -> n, n -> m at each size after the first; () where the names are no net's."""
    found = {int(match[1]): info.shape for name, info in tensors.items() if (match := HINT.search(name))}
    pairs = [found[index] for index in sorted(found)]
    return (pairs[0][1], *(shape[0] for shape in pairs[1::2])) if pairs else ()


def _diffusers_names(keys: Mapping[str, str], config: Any) -> Mapping[str, str]:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    renamed: Mapping[str, str] = convert_controlnet_checkpoint(dict(keys), config)
    return renamed


def encode_hint(parts: Parts, net: nn.Module, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """The pixels (1, 3, h, w) in [0, 1] as they are, where the net is."""
    return pixels.to(parts.device, parts.dtype)


def residuals(
    parts: Parts, net: Any, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, hint: Tensor, *, mode: int | None = None
) -> Residuals:
    """{"down": one a skip (B, C, H, W), "mid": one}."""
    import torch

    options: dict[str, Any] = {"controlnet_cond": hint}
    if modes(net):
        kind = torch.zeros(len(noisy), modes(net), dtype=noisy.dtype, device=noisy.device)
        kind[:, mode] = 1
        options = {"controlnet_cond": [hint], "control_type": kind, "control_type_idx": [mode]}
    down, mid = net(
        noisy, timesteps, encoder_hidden_states=conditioning["embeds"], added_cond_kwargs=added(conditioning), return_dict=False, **options
    )
    return {"down": down, "mid": [mid]}


def added(conditioning: Conditioning) -> dict[str, Tensor] | None:
    """SDXL's added conditioning (diffusers' added_cond_kwargs); None for the others."""
    return {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]} if "time_ids" in conditioning else None


def modes(net: nn.Module) -> int:
    """The hint kinds of a union net; 0 of any other."""
    config: Any = net.config
    return int(config.get("num_control_type") or 0)


def unet_residuals(control: Residuals | None) -> dict[str, Any]:
    """The UNet's own arguments for the residuals."""
    if control is None:
        return {}
    return {"down_block_additional_residuals": tuple(control["down"]), "mid_block_additional_residual": control["mid"][0]}


def unet_control() -> Control:
    """How ControlNets steer a UNet."""
    return Control(classes=CLASSES, load=load, encode_hint=encode_hint, residuals=residuals, modes=modes)
