"""Stable Diffusion 3: two joint blocks, two CLIPs with projections and T5; 3.5 medium's second attention and norms; a build without T5."""

from __future__ import annotations

from typing import Any

SIZE = 64
VARIANTS = ("3", "3.5", "3-no_t5")
LEFT_OUT = {"3-no_t5": ("text_encoder_3", "tokenizer_3")}  # components that the stock pipeline must be given as None


def pipeline(variant: str) -> Any:
    """The tiny pipeline."""
    import diffusers

    from tests.tiny import clip_text, clip_tokenizer, kl_vae, lively, t5_encoder, t5_tokenizer

    newer, with_t5 = variant.startswith("3.5"), not variant.endswith("no_t5")
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=96,  # T5's width, no less than both CLIPs' together
        caption_projection_dim=32,
        pooled_projection_dim=32 + 40,
        out_channels=16,
        pos_embed_max_size=24,
        qk_norm="rms_norm" if newer else None,
        dual_attention_layers=(0,) if newer else (),
    )
    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer("!")
    return diffusers.StableDiffusion3Pipeline(
        transformer=lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, quant=False, levels=4),
        text_encoder=clip_text(tokenizer, projected=True),
        tokenizer=tokenizer,
        text_encoder_2=clip_text(tokenizer_2, width=48, layers=3, projection=40, act="gelu", projected=True),
        tokenizer_2=tokenizer_2,
        text_encoder_3=t5_encoder(width=96) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int) -> Any:
    """What the stock pipeline ends with; T5's length is what the tiny tokenizer holds."""
    import torch

    return pipeline(
        prompt=prompt,
        negative_prompt=negative,
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        max_sequence_length=256 if pipeline.tokenizer_3 is None else pipeline.tokenizer_3.model_max_length,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
    ).images
