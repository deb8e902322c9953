"""Chroma: FLUX.1's transformer without CLIP and without embedded guidance, made for classifier-free guidance; T5 with a mask.

All modulation comes from one small network (distilled_guidance_layer) that reads the time. The text mask keeps one padding token
behind the prompt. diffusers hands the mask to attention as numbers 0 and 1, which are added to the scores: the stock pipeline so
weakens padding and does not shut it out. We draw what the stock pipeline draws.
"""

# B batch, C channels, H W latent size, N packed tokens (H/2 * W/2), T text tokens, D width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.transformer.flow_schedule import even_sigmas, mu_of_size
from registry.architectures.transformer.flux_names import FLUX_LAYERS, NORMS
from registry.architectures.transformer.model import JOINT_ATTENTION, refuse_control, refuse_other_factor, transformer_loader
from registry.architectures.transformer.packing import pack, position_ids, unpack
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.errors import BadFile
from registry.family import FAMILIES, Family
from registry.family_defaults import encoding_of_empty
from registry.formats.layers import AdapterNames, Layer, same_names
from registry.formats.model_header import ModelHeader
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.quantised.layers import QuantisedLayers
from registry.signature import Signature, claim_adapter, claim_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 8  # pixels a latent cell
TEXT_TOKENS = 512  # T5's length in the stock pipeline; the tokenizer's own limit where that is less

NO_CONTROL = "FLUX.1's read CLIP's pooled state, which Chroma has not, and diffusers has no pipeline that feeds them to it"

SIGNATURE = Signature(
    family="chroma",
    keys=("distilled_guidance_layer.in_proj.bias",),
    marks={"nerf_image_embedder.embedder.0.weight": "radiance", "nerf_blocks.0.norm.scale": "radiance"},
    prediction="flow",
    pipelines="Chroma.*",
    adapter=((r"distilled_guidance_layer",),),
)
TIME = "distilled_guidance_layer"
LAYERS: tuple[Layer, ...] = (
    *(layer for layer in FLUX_LAYERS if not any(word in layer.original for word in ("_in.", "mod", "adaLN"))),  # none of these is here
    Layer(f"{TIME}.layers.*.in_layer", (f"{TIME}.layers.*.linear_1",)),
    Layer(f"{TIME}.layers.*.out_layer", (f"{TIME}.layers.*.linear_2",)),
    *same_names(f"{TIME}.in_proj", f"{TIME}.out_proj"),
)
FILE_NAMES = FileNames(
    title="Chroma",
    class_name="ChromaTransformer2DModel",
    diffusers_key="transformer_blocks.0.attn.to_q.weight",
    original_key="double_blocks.0.img_attn.qkv.weight",
    layers=LAYERS,
    others={**NORMS, f"{TIME}.norms.*.weight": f"{TIME}.norms.*.scale"},
)
# peft takes a list entry for an ending, and `proj_out` is also the name of the last layer: the wider presets are expressions
_BLOCKS = (
    r"(single_)?transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)


# --- what it is


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim by what the metadata declare, else by layers that only Chroma has: its blocks are named and sized as FLUX.1's."""
    match = claim_adapter(SIGNATURE, header)
    for key in ("modelspec.architecture", "ss_base_model_version"):
        declared = header.metadata.get(key, "").strip().lower()
        if declared.startswith("chroma") and header.adapter_keys is not None:
            return Match(score=0.99, evidence=(f"{key} {declared!r}",))
    return match


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts, unless the transformer is of another build or the VAE not the one the packing counts on."""
    config: Any = parts.denoiser.config
    name = type(parts.denoiser).__name__
    if name != "ChromaTransformer2DModel" or config.in_channels != 4 * parts.vae.config.latent_channels:  # type: ignore[union-attr, operator]
        raise BadFile(parts.source, "variant", f"is a {name} of {config.in_channels} channels; only Chroma's text-to-image one is loaded.")
    refuse_other_factor(parts, FACTOR, "Chroma")
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="Chroma's T5 encoder and its tokenizer",
    folder="Chroma",
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D) of T5, "mask": (B, T) bool: the prompt's tokens and one of padding}."""
    import torch

    refuse_clip_skip(clip_skip, "Chroma has no CLIP")
    encoder: Any = parts.text_encoders["text_encoder"]
    tokens = parts.tokenizers["tokenizer"](
        list(prompts), padding="max_length", max_length=_text_tokens(parts), truncation=True, return_tensors="pt"
    )
    own = tokens.attention_mask.to(encoder.device)
    seen = None if own.is_meta else own  # transformers asks whether all of a mask is true, which a skeleton cannot answer
    embeds = encoder(tokens.input_ids.to(encoder.device), attention_mask=seen)[0]
    mask = torch.arange(own.shape[1], device=own.device)[None] <= own.sum(1, keepdim=True)
    return {"embeds": embeds, "mask": mask}


def _text_tokens(parts: Parts) -> int:
    return min(TEXT_TOKENS, int(parts.tokenizers["tokenizer"].model_max_length))


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(T5 tokens the prompt needs with its mark, tokens that fit)."""
    return len(parts.tokenizers["tokenizer"](prompt, truncation=False, verbose=False).input_ids), _text_tokens(parts)


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000. Takes no `control`."""
    import torch

    refuse_control(control, NO_CONTROL)
    embeds, text = conditioning["embeds"], conditioning["mask"]
    tokens = pack(noisy)
    mask = torch.cat([text, text.new_ones(text.shape[0], tokens.shape[1])], dim=1).to(noisy.dtype)  # (B, T + N)
    with _masked_checkpoints(parts.denoiser, mask):
        velocity = parts.denoiser(
            hidden_states=tokens,
            timestep=timesteps.to(noisy.dtype) / 1000,  # cast first, then divided, as the pipeline does it: bf16 rounds 826.06 to 828
            encoder_hidden_states=embeds,
            txt_ids=embeds.new_zeros(embeds.shape[1], 3),
            img_ids=position_ids(noisy.shape[-2] // 2, noisy.shape[-1] // 2, like=noisy),
            attention_mask=mask,
            return_dict=False,
        )[0]
    return unpack(velocity, like=noisy)


@contextmanager
def _masked_checkpoints(denoiser: Any, mask: Tensor) -> Iterator[None]:
    """diffusers 0.42 forgets the mask of the single blocks where it checkpoints gradients: there it is handed to them."""
    if not denoiser.gradient_checkpointing:
        yield
        return
    checkpoint = denoiser._gradient_checkpointing_func

    def masked(block: Any, *inputs: Any) -> Any:
        return checkpoint(block if len(inputs) > 3 else partial(block, attention_mask=mask), *inputs)  # a double block has its own

    denoiser._gradient_checkpointing_func = masked
    try:
        yield
    finally:
        denoiser._gradient_checkpointing_func = checkpoint


FAMILIES.add("chroma")(
    Family(
        name="chroma",
        title="Chroma",
        pipeline="ChromaPipeline",
        aliases=Aliases(modelspec=("chroma",), base_version=("chroma",), civitai=("chroma",)),
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=35,
        guidance=5.0,
        few_steps=(FewStep(title="Chroma1-Flash", word=r"(?<![a-z])flash(?![a-z])", steps=8, guidance=1.0, instead="Chroma1-HD"),),
        lora_presets={
            "attention": JOINT_ATTENTION,
            "attention_mlp": _BLOCKS,
            "wide": rf"{_BLOCKS}|x_embedder|context_embedder|proj_out",
        },
        architecture="chroma",
        strength=0.9,
        file_names=FILE_NAMES,
        adapter_names=AdapterNames(layers=LAYERS, encoders={"text_encoder": "lora_te3_"}, base_version="chroma"),
        recognise_checkpoint=partial(claim_checkpoint, SIGNATURE),
        recognise_adapter=recognise_adapter,
        quantised=QuantisedLayers(kept=(r"distilled_guidance_layer\..*",)),  # makes the modulation of all blocks
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
        control=NO_CONTROL,
    )
)
