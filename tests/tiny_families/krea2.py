"""A two-layer Krea 2 that reads three layers of a tiny Qwen3-VL: the base, whose shift follows the size, and the distilled build."""

from __future__ import annotations

from typing import Any

SIZE = 64
VARIANTS = ("base",)  # the distilled build is the base with another time shift: drawn in its family's own test


def pipeline(variant: str) -> Any:
    """The tiny pipeline of a build."""
    import diffusers
    import torch

    from tests.tiny import lively
    from tests.tiny_llm import qwen3_vl, qwen_tokenizer, video_vae

    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=64,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=32,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),  # sums to attention_head_dim
    )
    with torch.no_grad():  # zeros at first: modulation and norms that are left out would not show
        for name, weight in transformer.named_parameters():
            if "norm" in name or "scale_shift_table" in name:
                weight.normal_(0.0, 0.3)
    return diffusers.Krea2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=6400),
        vae=video_vae(),
        text_encoder=qwen3_vl(),
        tokenizer=qwen_tokenizer(),
        transformer=lively(transformer),
        text_encoder_select_layers=(1, 2, 3),
        is_distilled=variant == "distilled",
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
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
    ).images
    return pipeline._unpack_latents(packed, size, size).squeeze(2)
