"""A two-layer Sana with two pixels a latent cell, eight latent channels and DPM++ for flow, as published: 64 pixels."""

from __future__ import annotations

from typing import Any

from tests.tiny import lively
from tests.tiny_llm import gemma2, qwen_tokenizer

SIZE = 64
VARIANTS = ("base",)
CONTROL = "SanaControlNetPipeline"
CONTROLS = ("plain",)


def pipeline(variant: str) -> Any:
    import diffusers

    transformer = diffusers.SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        sample_size=8,
    )
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    return diffusers.SanaPipeline(
        transformer=lively(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(**flow),
        vae=deep_vae(),
        text_encoder=gemma2(layers=1),  # it reads more than a thousand tokens of request each time
        tokenizer=qwen_tokenizer(),
    )


def deep_vae() -> Any:
    """A two-level AutoencoderDC."""
    from diffusers import AutoencoderDC

    levels: dict[str, Any] = {
        "block_types": ("ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 8),
        "qkv_multiscales": ((), (5,)),
        "layers_per_block": (1, 1),
    }
    return AutoencoderDC(
        latent_channels=8,
        attention_head_dim=2,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in levels.items()},
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int, **extra: Any) -> Any:
    import torch

    return pipeline(
        prompt=prompt,
        **({} if negative is None else {"negative_prompt": negative}),
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        use_resolution_binning=False,
        **extra,
    ).images


def control_net(transformer: Any, variant: str) -> Any:
    from diffusers import SanaControlNetModel

    return SanaControlNetModel.from_config({**transformer.config, "num_layers": 1})
