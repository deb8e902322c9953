"""A two-layer Z-Image with one refining layer on each side: 64 pixels, latents 16 x 8 x 8."""

from __future__ import annotations

from typing import Any

from tests.tiny import kl_vae, lively
from tests.tiny_llm import qwen3, qwen_tokenizer

SIZE = 64
VARIANTS = ("base",)
CONTROL = "ZImageControlNetPipeline"
CONTROLS = ("1", "2")
STARTS = ("ZImageImg2ImgPipeline", "ZImageInpaintPipeline")


def pipeline(variant: str) -> Any:
    import diffusers
    import torch

    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],  # sums to the width of a head
        axes_lens=[1024, 64, 64],
    )
    with torch.no_grad():  # zeros until trained: padding that is seen would pass unnoticed
        transformer.x_pad_token.normal_(0.0, 0.5)
        transformer.cap_pad_token.normal_(0.0, 0.5)
    return diffusers.ZImagePipeline(
        transformer=lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, quant=False, levels=4),
        text_encoder=qwen3(),
        tokenizer=qwen_tokenizer(),
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int, **extra: Any) -> Any:
    import torch

    return pipeline(
        prompt=prompt,
        negative_prompt=negative,
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        **extra,
    ).images


def control_net(transformer: Any, variant: str) -> Any:
    """The first version of its nets, or the second, which refines the noise too and has channels for inpainting."""
    from diffusers import ZImageControlNetModel

    sizes = {name: transformer.config[name] for name in ("dim", "n_refiner_layers", "n_heads", "n_kv_heads")}
    second = {"control_in_dim": 33, "add_control_noise_refiner": "control_noise_refiner", "control_refiner_layers_places": [0]}
    return ZImageControlNetModel(control_layers_places=[0, 1], **sizes, **(second if variant == "2" else {"control_in_dim": 16}))
