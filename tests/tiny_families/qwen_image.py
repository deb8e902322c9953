"""A two-layer Qwen-Image: 64 pixels, latents 16 x 8 x 8."""

from __future__ import annotations

from typing import Any

from tests.tiny import lively
from tests.tiny_llm import qwen25_vl, qwen_tokenizer, video_vae

SIZE = 64
VARIANTS = ("base",)
CONTROL = "QwenImageControlNetPipeline"
CONTROLS = ("plain",)
STARTS = ("QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")


def pipeline(variant: str) -> Any:
    import diffusers

    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),  # sums to attention_head_dim
    )
    return diffusers.QwenImagePipeline(
        transformer=lively(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02, use_dynamic_shifting=True
        ),
        vae=video_vae(),
        text_encoder=qwen25_vl(),
        tokenizer=qwen_tokenizer(),
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int, **extra: Any) -> Any:
    import torch

    drawn = pipeline(
        prompt=prompt,
        negative_prompt=negative,
        true_cfg_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        **extra,
    ).images
    return pipeline._unpack_latents(drawn, size, size, pipeline.vae_scale_factor)[:, :, 0]


def control_net(transformer: Any, variant: str) -> Any:
    from diffusers import QwenImageControlNetModel

    config = {name: value for name, value in transformer.config.items() if name not in ("guidance_embeds",) and not name.startswith("_")}
    return QwenImageControlNetModel.from_config({**config, "num_layers": 1})
