"""SDXL's refiner: the second text encoder alone, five size numbers, Euler with leading spacing."""

from __future__ import annotations

from typing import Any

from tests.tiny import BETAS, STANDARD_UNET, UNET, clip_text, clip_tokenizer, kl_vae, lively

SIZE = 32
VARIANTS = ("published",)  # `standard` has the published constants: its single file needs no base_config


def pipeline(variant: str) -> Any:
    import diffusers

    standard = variant == "standard"
    width = 128 if standard else 48
    unet = diffusers.UNet2DConditionModel(
        **(STANDARD_UNET if standard else UNET),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=2,
        cross_attention_dim=width,
        attention_head_dim=(1, 1) if standard else (2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=5 * 8 + 40,
    )
    tokenizer = clip_tokenizer("!", standard=standard)
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=kl_vae(latent_channels=4, scaling_factor=0.13025, standard=standard),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=clip_text(tokenizer, width=width, heads=2 if standard else 4, layers=3, projection=40, act="gelu", projected=True),
        tokenizer_2=tokenizer,
        unet=lively(unet),
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int) -> Any:
    """Image-to-image from the noise that a text-to-image pipeline begins with: its latents are given, its image is not looked at."""
    import torch

    cells = size // pipeline.vae_scale_factor
    noise = torch.randn(1, 4, cells, cells, generator=torch.Generator("cpu").manual_seed(seed), dtype=pipeline.unet.dtype)
    pipeline.scheduler.set_timesteps(steps)
    return pipeline(
        prompt=prompt,
        negative_prompt=negative,
        image=torch.zeros(1, 3, size, size),
        latents=noise * pipeline.scheduler.init_noise_sigma,
        strength=1.0,
        guidance_scale=guidance,
        num_inference_steps=steps,
        output_type="latent",
    ).images


def unused(parts: Any) -> dict[str, Any]:
    """What published single files have and nobody runs."""
    import torch

    return {"conditioner.embedders.0.model.logit_scale": torch.ones(())}
