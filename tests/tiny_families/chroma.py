"""A two-layer Chroma: T5 with a mask, classifier-free guidance, modulation from the time alone."""

from __future__ import annotations

from typing import Any

SIZE = 64
VARIANTS = ("hd",)


def pipeline(variant: str) -> Any:
    """The tiny pipeline."""
    import diffusers

    from tests.tiny import kl_vae, lively, t5_encoder, t5_tokenizer

    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),  # sums to attention_head_dim
        approximator_num_channels=8,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return diffusers.ChromaPipeline(
        transformer=lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=kl_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, quant=False, levels=4),
        text_encoder=t5_encoder(width=32),
        tokenizer=t5_tokenizer(),
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int) -> Any:
    """What the stock pipeline ends with, unpacked."""
    import torch

    packed = pipeline(
        prompt=prompt,
        negative_prompt=negative,
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        max_sequence_length=pipeline.tokenizer.model_max_length,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
    ).images
    return pipeline._unpack_latents(packed, size, size, pipeline.vae_scale_factor)
