"""ControlNets of Stable Diffusion 3's transformer: a residual for each of its blocks.

A hint is a VAE latent. The pipeline samples it with torch's global generator, which no seed of an image fixes; here it is the
posterior's mean. Nets that force a zero pooled state were made with latents that are not shifted, as the pipeline knows too.
The nets of 3.5 large have no places of their own and read no text: they borrow the transformer's places.
"""

# B batch, N tokens (H/2 * W/2), D width, h w pixels

from __future__ import annotations

import inspect
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

CLASSES = ("SD3ControlNetModel",)
SAME = ("in_channels", "num_attention_heads", "attention_head_dim", "pooled_projection_dim", "patch_size")
HINT = "pos_embed_input.proj.weight"


def load(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder or of a single file in diffusers' names, when it fits the base."""
    net = load_controlnet(
        path, family="SD3", classes=CLASSES, build=lambda tensors: _of_base(parts.denoiser, tensors), dtype=dtype, device=device
    )
    base: Any = parts.denoiser
    refuse_other_build(Path(path).name, net.config, base.config, SAME)
    if net.config.joint_attention_dim is not None:
        refuse_other_build(Path(path).name, net.config, base.config, ("joint_attention_dim",))
    if extra := net.config.extra_conditioning_channels:
        raise Refused(
            f"The ControlNet {Path(path).name} takes {extra} channels beside the hint's latents (a mask), which are not given here."
        )
    if not net.config.use_pos_embed:
        net.pos_embed = base.pos_embed  # shared: the very table, on the base's device
    return net  # type: ignore[no-any-return]  # diffusers is untyped


def _of_base(transformer: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
    """An empty net that is a copy of the transformer's first blocks, as many as the file has."""
    import diffusers

    if HINT not in tensors:
        raise Refused(f"An SD3 ControlNet in a single file is read in diffusers' names only ({HINT}). Give its diffusers folder.")
    accepted = inspect.signature(diffusers.SD3ControlNetModel.__init__).parameters
    config = {name: value for name, value in transformer.config.items() if name in accepted}
    blocks = {found[1] for name in tensors if (found := re.match(r"transformer_blocks\.(\d+)\.", name))}
    config |= {"num_layers": len(blocks), "extra_conditioning_channels": tensors[HINT].shape[1] - transformer.config.in_channels}
    config["dual_attention_layers"] = [layer for layer in transformer.config.dual_attention_layers if layer < len(blocks)]
    if "context_embedder.weight" not in tensors:  # as 3.5 large's are published
        config |= {"joint_attention_dim": None, "use_pos_embed": "pos_embed.proj.weight" in tensors, "pos_embed_type": None}
        config["force_zeros_for_pooled_projection"] = False
    return diffusers.SD3ControlNetModel.from_config(config)  # type: ignore[no-any-return]  # diffusers is untyped


def encode_hint(parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (1, C, H, W) of pixels (1, 3, h, w) in [0, 1], scaled; shifted unless the net is one that forces a zero pooled state."""
    vae: Any = parts.vae
    mean = vae.encode((2 * pixels - 1).to(vae.device, vae.dtype)).latent_dist.mean
    shift = 0.0 if net.config.force_zeros_for_pooled_projection else vae.config.shift_factor or 0.0
    hint: Tensor = ((mean - shift) * vae.config.scaling_factor).to(parts.device, parts.dtype)
    return hint


def residuals(
    parts: Parts, net: Any, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, hint: Tensor, *, mode: int | None = None
) -> Residuals:
    """{"blocks": (B, N, D) each block of the transformer}: the net's few, each for a run of neighbours."""
    import torch

    pooled = conditioning["pooled"]
    few = net(
        hidden_states=noisy,
        controlnet_cond=hint,
        timestep=timesteps,
        encoder_hidden_states=conditioning["embeds"] if net.config.joint_attention_dim is not None else None,
        pooled_projections=torch.zeros_like(pooled) if net.config.force_zeros_for_pooled_projection else pooled,
        return_dict=False,
    )[0]
    config: Any = parts.denoiser.config
    return {"blocks": [few[int(index / (config.num_layers / len(few)))] for index in range(config.num_layers)]}


def block_residuals(control: Residuals | None) -> dict[str, Any]:
    """The transformer's own argument for the residuals."""
    return {} if control is None else {"block_controlnet_hidden_states": list(control["blocks"])}


def sd3_control() -> Control:
    """How ControlNets steer Stable Diffusion 3."""
    return Control(classes=CLASSES, load=load, encode_hint=encode_hint, residuals=residuals)
