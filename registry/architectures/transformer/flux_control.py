"""ControlNets of FLUX's transformer: a residual for each double and each single block.

A hint is a VAE latent in packed tokens, sampled with the image's generator as the pipeline does it; nets with a hint block of
their own (XLabs') take pixels. A union net takes the kind of hint as its mode.
"""

# B batch, N packed tokens, D width, h w pixels

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.transformer.packing import pack, position_ids
from registry.architectures.vae.kl import encode_kl
from registry.errors import Refused
from registry.family import Control
from registry.formats.controlnet_file import load_controlnet, refuse_other_build
from registry.formats.safetensors_header import TensorInfo
from registry.parts import Conditioning, Parts, Residuals

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CLASSES = ("FluxControlNetModel",)
SAME = ("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim")
BLOCKS = {"num_layers": "transformer_blocks", "num_single_layers": "single_transformer_blocks"}


def load(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder or of a single file in diffusers' names, when it fits the base."""
    net = load_controlnet(
        path,
        family="FLUX",
        classes=CLASSES,
        build=lambda tensors: _of_base(parts.denoiser, tensors),
        dtype=dtype,
        device=device,
    )
    base: Any = parts.denoiser.config
    refuse_other_build(Path(path).name, net.config, base, SAME)
    if net.config.guidance_embeds and not base.get("guidance_embeds"):
        raise Refused(f"The ControlNet {Path(path).name} takes an embedded guidance (a dev net), which this base has not. Use a dev base.")
    return net  # type: ignore[no-any-return]  # diffusers is untyped


def _of_base(transformer: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
    """An empty net that is a copy of the transformer's first blocks, as many as the file has."""
    import diffusers

    if "controlnet_x_embedder.weight" not in tensors:
        raise Refused(
            "A FLUX ControlNet in a single file is read in diffusers' names only (controlnet_x_embedder). Give its diffusers folder."
        )
    modes = tensors.get("controlnet_mode_embedder.weight")
    accepted = inspect.signature(diffusers.FluxControlNetModel.__init__).parameters
    config = {name: value for name, value in transformer.config.items() if name in accepted}
    config |= {name: len(_numbers(tensors, blocks)) for name, blocks in BLOCKS.items()}
    config |= {"guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors}
    config |= {"num_mode": modes.shape[0] if modes is not None else None}
    return diffusers.FluxControlNetModel.from_config(config)  # type: ignore[no-any-return]  # diffusers is untyped


def _numbers(tensors: Mapping[str, TensorInfo], blocks: str) -> set[str]:
    return {found[1] for name in tensors if (found := re.match(rf"{blocks}\.(\d+)\.", name))}


def encode_hint(parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Packed latents (1, N, 4C) of pixels (1, 3, h, w) in [0, 1], or the pixels in [-1, 1] where the net has a hint block."""
    import torch

    signed = (2 * pixels - 1).to(parts.device, parts.dtype)
    if net.input_hint_block is not None:
        return signed
    posterior = encode_kl(parts.vae, signed)
    noise = torch.randn(posterior.mean.shape, generator=generator, dtype=posterior.mean.dtype).to(parts.device)
    return pack(posterior.sample(noise))


def residuals(
    parts: Parts, net: Any, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, hint: Tensor, *, mode: int | None = None
) -> Residuals:
    """{"double": (B, N, D) each block, "single": (B, N, D) each block}: the net's few, spread over the transformer's many."""
    import torch

    embeds = conditioning["embeds"]
    double, single = net(
        hidden_states=pack(noisy),
        controlnet_cond=hint,
        controlnet_mode=torch.tensor([[mode]], device=noisy.device).expand(len(noisy), 1) if modes(net) else None,
        timestep=timesteps.to(noisy.dtype) / 1000,  # cast first, as the transformer's own
        guidance=conditioning["guidance"] if net.config.guidance_embeds else None,
        pooled_projections=conditioning["pooled"],
        encoder_hidden_states=embeds,
        txt_ids=embeds.new_zeros(embeds.shape[1], 3),
        img_ids=position_ids(noisy.shape[-2] // 2, noisy.shape[-1] // 2, like=noisy),
        return_dict=False,
    )
    config: Any = parts.denoiser.config
    spread = _stretched if net.input_hint_block is None else _repeated
    return {"double": spread(double, config.num_layers), "single": _stretched(single, config.num_single_layers)}


def _stretched(few: Sequence[Tensor] | None, count: int) -> list[Tensor]:
    """Each of the few for a run of neighbouring blocks, as the transformer itself would share them out."""
    return [few[index // math.ceil(count / len(few))] for index in range(count)] if few else []


def _repeated(few: Sequence[Tensor] | None, count: int) -> list[Tensor]:
    """The few over and over: XLabs' way."""
    return [few[index % len(few)] for index in range(count)] if few else []


def modes(net: nn.Module) -> int:
    """The hint kinds of a union net; 0 of any other."""
    config: Any = net.config
    return int(config.num_mode or 0)


def block_residuals(control: Residuals | None) -> dict[str, Any]:
    """The transformer's own arguments for the residuals."""
    if control is None:
        return {}
    return {"controlnet_block_samples": control["double"] or None, "controlnet_single_block_samples": control["single"] or None}


def flux_control() -> Control:
    """How ControlNets steer FLUX's transformer."""
    return Control(classes=CLASSES, load=load, encode_hint=encode_hint, residuals=residuals, modes=modes)
