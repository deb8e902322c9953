"""Stable Diffusion 2: linear projections, heads by level, OpenCLIP's activation and padding; v under DDIM, or epsilon under PNDM."""

from __future__ import annotations

from typing import Any

from tests.tiny import BETAS, STANDARD_UNET, UNET, clip_text, clip_tokenizer, kl_vae, lively

SIZE = 32
VARIANTS = ("v", "epsilon")  # `v-standard` and `epsilon-standard` have the published constants: their single files need no base_config


def pipeline(variant: str) -> Any:
    import diffusers

    v, standard = variant.startswith("v"), variant.endswith("standard")
    width = 64 if standard else 32
    unet = diffusers.UNet2DConditionModel(
        **(STANDARD_UNET if standard else UNET),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=(1, 1) if standard else (2, 4),  # their number; the published model has heads of 64 channels
        use_linear_projection=True,
    )
    tokenizer = clip_tokenizer("!", standard=standard)
    ddim = {"clip_sample": False, "set_alpha_to_one": False, "prediction_type": "v_prediction"}
    return diffusers.StableDiffusionPipeline(
        vae=kl_vae(latent_channels=4, scaling_factor=0.18215, standard=standard),
        text_encoder=clip_text(tokenizer, width=width, heads=1 if standard else 4, act="gelu"),
        tokenizer=tokenizer,
        unet=lively(unet),
        scheduler=diffusers.DDIMScheduler(**BETAS, **ddim) if v else diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int) -> Any:
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
    ).images


def unused(parts: Any) -> dict[str, Any]:
    """What published single files have and nobody runs: OpenCLIP's last layer and its projection."""
    import torch

    width = parts.text_encoders["text_encoder"].config.hidden_size
    last = f"cond_stage_model.model.transformer.resblocks.{parts.text_encoders['text_encoder'].config.num_hidden_layers}"
    return {
        "cond_stage_model.model.text_projection": torch.ones(width, width),
        "cond_stage_model.model.logit_scale": torch.ones(()),
        f"{last}.mlp.c_fc.weight": torch.ones(2 * width, width),
        f"{last}.mlp.c_fc.bias": torch.ones(2 * width),
        f"{last}.attn.in_proj_weight": torch.ones(3 * width, width),
    }
