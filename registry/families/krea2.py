"""Krea 2: one stream of text and image tokens, latents of sixteen channels from Qwen's video VAE, many layers of Qwen3-VL's states.

A prompt is padded before the template's end, not after it: padding is in the middle, takes no position and is masked. Guidance is
counted from 0: conditional + g (conditional - unconditional). A distilled build has a time shift that no size changes.
"""

# B batch, C channels, H W latent size, N packed tokens (H/2 * W/2), T text tokens, L layers read, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import count_text_tokens, hidden_states
from registry.architectures.transformer.flow_schedule import even_sigmas, mu_of_size
from registry.architectures.transformer.model import refuse_control, transformer_loader
from registry.architectures.transformer.packing import pack, position_ids, unpack
from registry.architectures.vae.video import decode, encode_images
from registry.detect.few_step import FewStep
from registry.errors import BadFile
from registry.family import FAMILIES, Family
from registry.family_defaults import encoding_of_empty, guidance_from_zero, guided_above_zero
from registry.formats.layers import AdapterNames, Layer
from registry.formats.model_header import ModelHeader
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.signature import BLOCK, JOINT, Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 8  # pixels a latent cell
BEGINNING = (  # of the template, dropped from the states; then the prompt, padding, and the end
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n<|im_start|>user\n"
)
END = "<|im_end|>\n<|im_start|>assistant\n"
DROPPED = 34  # tokens of the beginning, in Qwen's own vocabulary
END_TOKENS = 5  # of the end, in the same
TEXT_TOKENS = 512  # that the transformer is given, in the stock pipeline
LAYERS_SETTING = "text_encoder_select_layers"  # of model_index.json; 0 is the embeddings
LAYERS_READ = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)  # of Qwen3-VL 4B, where the setting is absent
DISTILLED_SHIFT = 1.15  # mu of the distilled build
NO_CONTROL = "diffusers has no ControlNet for Krea 2, whose transformer takes no residuals"

# --- its names

FIRST_BLOCK = r"^(blocks|txtfusion[._](layerwise|refiner)_blocks)[._]\d+[._]"
SIGNATURE = Signature(
    family="krea2",
    keys=("(txtfusion|text_fusion).projector.weight",),
    prediction="flow",
    pipelines="Krea2.*",
    adapter=(
        (r"^(text_fusion|txtfusion)[._]",),
        (rf"{BLOCK}attn[._]to_gate$", JOINT),
        (rf"{BLOCK}ff[._](gate|up|down)$",),
        (rf"{FIRST_BLOCK}attn[._]w[qkvo]$",),
    ),
    adapter_widths=(Width(module=JOINT, means={6144: None}), Width(module=r"^blocks[._]\d+[._]attn[._]w[qkvo]$", means={6144: None})),
    adapter_blocks={"transformer_blocks": 28, "blocks": 28},
)
OUTER = {
    "first": "img_in",
    "tmlp.0": "time_embed.linear_1",
    "tmlp.2": "time_embed.linear_2",
    "tproj.1": "time_mod_proj",
    "txtmlp.1": "txt_in.linear_1",
    "txtmlp.3": "txt_in.linear_2",
    "txtfusion.projector": "text_fusion.projector",
    "last.linear": "final_layer.linear",
}
BLOCKS = {
    "blocks.*": "transformer_blocks.*",
    "txtfusion.layerwise_blocks.*": "text_fusion.layerwise_blocks.*",
    "txtfusion.refiner_blocks.*": "text_fusion.refiner_blocks.*",
}
INNER = {
    "attn.wq": "attn.to_q",
    "attn.wk": "attn.to_k",
    "attn.wv": "attn.to_v",
    "attn.wo": "attn.to_out.0",
    "attn.gate": "attn.to_gate",
    "mlp.gate": "ff.gate",
    "mlp.up": "ff.up",
    "mlp.down": "ff.down",
}
NORMS = {
    "attn.qknorm.qnorm.scale": "attn.norm_q.weight",
    "attn.qknorm.knorm.scale": "attn.norm_k.weight",
    "prenorm.scale": "norm1.weight",
    "postnorm.scale": "norm2.weight",
}
LAYERS: tuple[Layer, ...] = (
    *(Layer(original_key, (diffusers_key,)) for original_key, diffusers_key in OUTER.items()),
    *(
        Layer(f"{block}.{original_key}", (f"{stack}.{diffusers_key}",))
        for block, stack in BLOCKS.items()
        for original_key, diffusers_key in INNER.items()
    ),
)
FILE_NAMES = FileNames(
    title="Krea 2",
    class_name="Krea2Transformer2DModel",
    diffusers_key="text_fusion.projector.weight",
    original_key="txtfusion.projector.weight",
    layers=LAYERS,
    others={
        **{
            f"{stack}.{diffusers_key}": f"{block}.{original_key}"
            for block, stack in BLOCKS.items()
            for original_key, diffusers_key in NORMS.items()
        },
        "transformer_blocks.*.scale_shift_table": "blocks.*.mod.lin",
        "txt_in.norm.weight": "txtmlp.0.scale",
        "final_layer.norm.weight": "last.norm.scale",
        "final_layer.scale_shift_table": "last.modulation.lin",
    },
    vectors=(".mod.lin",),
    implementation="https://github.com/krea-ai/krea-2",
)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "to_gate")
MLP = ("ff.gate", "ff.up", "ff.down")


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by its class, on a single file by the projector of its text fusion."""
    match = claim_checkpoint(SIGNATURE, header)
    if match is None or not header.is_folder:
        return match
    return replace(match, variant="distilled" if header.index.get("is_distilled") else "base")


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts with the layers that are read settled; refused where transformer, VAE and encoder do not go together."""
    transformer: Any = parts.denoiser.config
    encoder: Any = parts.text_encoders["text_encoder"].config.get_text_config()  # type: ignore[union-attr, operator]  # untyped
    layers = tuple(parts.config.get(LAYERS_SETTING) or LAYERS_READ)
    faults = []
    if parts.config.get("patch_size", 2) != 2 or transformer.in_channels != 4 * parts.vae.config.z_dim:  # type: ignore[union-attr, operator]
        faults.append(f"its transformer takes {transformer.in_channels} channels; 2 x 2 cells of its VAE make others")
    if len(layers) != transformer.num_text_layers or max(layers) > encoder.num_hidden_layers or min(layers) < 0:
        faults.append(
            f"{LAYERS_SETTING} {list(layers)} are read of a text encoder with {encoder.num_hidden_layers} layers; "
            f"its transformer takes {transformer.num_text_layers}"
        )
    if transformer.text_hidden_dim != encoder.hidden_size:
        faults.append(f"its text encoder is {encoder.hidden_size} wide; its transformer takes {transformer.text_hidden_dim}")
    if faults:
        raise BadFile(parts.source, "wrong-config", f"has parts that do not go together: {'; '.join(faults)}.")
    parts.config = {**parts.config, LAYERS_SETTING: layers}
    if parts.config.get("is_distilled"):
        parts.scheduler_config = {**parts.scheduler_config, "base_shift": DISTILLED_SHIFT, "max_shift": DISTILLED_SHIFT}  # at any size
        parts.warnings = (
            *parts.warnings,
            "This build is distilled: it was made for guidance=0 and 8 steps, which are not the defaults here.",
        )
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="Krea 2's text encoder, its tokenizer and the VAE",
    folder="the same build (base or distilled)",
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, L, D), "mask": (B, T) bool}: the layers' states, without the template's beginning, padding in the middle."""
    import torch

    refuse_clip_skip(clip_skip, "Krea 2's text encoder is no CLIP")
    tokenizer = parts.tokenizers["tokenizer"]
    begun = tokenizer(
        [BEGINNING + prompt for prompt in prompts], truncation=True, padding="max_length", max_length=_prompt_tokens(), return_tensors="pt"
    )
    end = tokenizer([END] * len(prompts), return_tensors="pt")
    ids = torch.cat([begun.input_ids, end.input_ids], dim=1)
    mask = torch.cat([begun.attention_mask, end.attention_mask], dim=1).bool()
    encoder: Any = parts.text_encoders["text_encoder"]
    positions = (mask.long().cumsum(dim=-1) - 1).clamp(min=0).expand(3, -1, -1).to(encoder.device)  # the same on Qwen3-VL's three axes
    states = hidden_states(encoder, ids, mask, position_ids=positions)
    embeds = torch.stack([states[layer] for layer in parts.config[LAYERS_SETTING]], dim=2)
    return {"embeds": embeds[:, DROPPED:], "mask": mask[:, DROPPED:].to(embeds.device)}


def _prompt_tokens() -> int:
    """Tokens of the template's beginning and the prompt, with padding."""
    return TEXT_TOKENS + DROPPED - END_TOKENS


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt without the dropped beginning, tokens that fit before the template's end)."""
    return count_text_tokens(parts.tokenizers["tokenizer"], BEGINNING + prompt) - DROPPED, TEXT_TOKENS - END_TOKENS


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000. Takes no `control`."""
    import torch

    refuse_control(control, NO_CONTROL)
    embeds = conditioning["embeds"]
    text = torch.zeros(embeds.shape[1], 3, device=noisy.device)  # all text is at the origin; float32, as bf16 rounds positions
    velocity = parts.denoiser(
        hidden_states=pack(noisy),
        encoder_hidden_states=embeds,
        timestep=(timesteps / 1000).to(noisy.dtype),  # divided first, then cast, unlike FLUX's
        position_ids=torch.cat([text, position_ids(noisy.shape[-2] // 2, noisy.shape[-1] // 2, like=text)]),
        encoder_attention_mask=conditioning["mask"],
        return_dict=False,
    )[0]
    return unpack(velocity, like=noisy)


FAMILIES.add("krea2")(
    Family(
        name="krea2",
        title="Krea 2",
        pipeline="Krea2Pipeline",
        aliases=Aliases(modelspec=("krea-2",)),
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=28,
        guidance=4.5,
        few_steps=(
            FewStep(
                title="Krea 2, distilled",
                variants=("distilled",),
                word="turbo|distilled",
                steps=8,
                guidance=0.0,
                instead="the Krea 2 base build",
            ),
        ),
        lora_presets={
            "attention": ATTENTION,
            "attention_mlp": (*ATTENTION, *MLP),
            "wide": (*ATTENTION, *MLP, *OUTER.values()),
        },
        architecture="krea-2",
        file_names=FILE_NAMES,
        adapter_names=AdapterNames(layers=LAYERS),
        recognise_checkpoint=recognise_checkpoint,
        recognise_adapter=partial(claim_adapter, SIGNATURE),
        may_be_adapter=partial(has_names_of, SIGNATURE),
        load=load,
        encode_prompts=encode_prompts,
        encode_unconditional=encoding_of_empty(encode_prompts),
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        predict=predict,
        mu=mu_of_size,
        set_timesteps=even_sigmas(mu_of_size),
        lora_state=partial(transformer_lora, layers=LAYERS),
        guided=guided_above_zero,
        guide=guidance_from_zero,
        control=NO_CONTROL,
    )
)
