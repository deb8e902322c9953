"""A two-layer Lumina-Image 2 with one refining layer on each side: 64 pixels, latents 16 x 8 x 8."""

from __future__ import annotations

from typing import Any

from tests.tiny import kl_vae, lively
from tests.tiny_llm import gemma2, qwen_tokenizer

SIZE = 64
VARIANTS = ("base",)


def pipeline(variant: str) -> Any:
    import diffusers

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=16,
        hidden_size=48,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,  # shared by three, as published
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),  # sums to the width of a head
        axes_lens=(300, 64, 64),
        cap_feat_dim=32,
    )
    return diffusers.Lumina2Pipeline(
        transformer=lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=kl_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, quant=False, levels=4),
        text_encoder=gemma2(),
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
