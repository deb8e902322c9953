"""FLUX.2 with one double and two single blocks: dev over Mistral 3, klein over Qwen3, with and without distillation.

Three layers of the language model are read; the published indices are beyond it, so the last ones are assumed, with a note.
"""

from __future__ import annotations

from typing import Any

SIZE = 64
VARIANTS = ("dev", "klein-base")  # distilled klein is the latter without its unconditional pass: drawn in its family's own test
LAYERS = (1, 2, 3)  # of the tiny encoders


def pipeline(variant: str) -> Any:
    """The tiny pipeline of a build."""
    import diffusers

    from tests.tiny import lively
    from tests.tiny_llm import mistral3, mistral_tokenizer, qwen3, qwen_tokenizer

    dev = variant == "dev"
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 32,
        axes_dims_rope=(4, 4, 4, 4),  # sums to attention_head_dim
        guidance_embeds=dev,
    )
    shared = {
        "transformer": lively(transformer),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": vae(),
    }
    if dev:
        return diffusers.Flux2Pipeline(**shared, text_encoder=mistral3(), tokenizer=mistral_tokenizer())
    return diffusers.Flux2KleinPipeline(
        **shared, text_encoder=qwen3(head=True), tokenizer=qwen_tokenizer(), is_distilled=variant == "klein"
    )


def vae() -> Any:
    """FLUX.2's VAE with statistics of its own: the batch norm's first ones would hide a normalisation that is left out."""
    import torch
    from diffusers import AutoencoderKLFlux2

    made = AutoencoderKLFlux2(
        latent_channels=32,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        sample_size=SIZE,
    ).eval()
    with torch.no_grad():
        made.bn.running_mean.normal_(0.0, 0.3)
        made.bn.running_var.uniform_(0.5, 2.0)
    return made


def latents(pipeline: Any, *, prompt: str, negative: str | None, guidance: float, steps: int, size: int, seed: int) -> Any:
    """What the stock pipeline's last step leaves, before klein's takes the normalisation off."""
    import torch

    last: list[Any] = []

    def keep(_pipeline: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        last[:] = [state["latents"]]  # (1, HW, 128)
        return state

    options: dict[str, Any] = {}
    if negative is not None:  # klein's call has no negative prompt, only its states
        options["negative_prompt_embeds"] = pipeline.encode_prompt(prompt=negative, text_encoder_out_layers=LAYERS)[0]
    pipeline(
        prompt=prompt,
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=size,
        width=size,
        text_encoder_out_layers=LAYERS,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        callback_on_step_end=keep,
        **options,
    )
    return last[0].transpose(1, 2).reshape(1, -1, size // 16, size // 16)
