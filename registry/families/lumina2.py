"""Lumina-Image 2: a single stream transformer with flow matching, sixteen latent channels, Gemma 2's states of a prompt in an instruction.

A negative prompt is encoded without the instruction, as in the pipeline.
"""

# B batch, C channels, H W latent size, T text tokens, D width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import count_text_tokens, hidden_states, token_ids
from registry.architectures.transformer.flow_schedule import even_sigmas, linear_mu
from registry.architectures.transformer.model import refuse_control, refuse_other_factor, transformer_loader
from registry.architectures.vae.kl import decode, encode_images
from registry.family import FAMILIES, Family
from registry.family_defaults import classifier_free_guidance, encoding_of_empty
from registry.formats.layers import AdapterNames, Layer, every, same_names
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Parts, Residuals
from registry.signature import Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 8  # pixels a latent cell: the pipeline's own constant
WIDTH = 2304  # of the published transformer
TEXT_TOKENS = 256  # the stock pipeline's max_sequence_length, instruction included
INSTRUCTION = (  # the pipeline's
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based on textual prompts "
    "or user prompts. <Prompt Start> "
)
NO_CONTROL = "diffusers has no ControlNet of it, and its transformer takes no residuals"

SIGNATURE = Signature(
    family="lumina2",
    keys=("cap_embedder.1.weight", "layers.0.adaLN_modulation.1.weight"),
    other_keys=(("time_caption_embed.caption_embedder.1.weight", "layers.0.attn.to_q.weight"),),
    prediction="flow",
    pipelines="Lumina2.*",
    adapter=((r"^layers[._]\d+[._]attn[._]to_[qkv]$",), (r"^layers[._]\d+[._]feed_forward[._]linear_\d$",)),
    adapter_shared=((r"^layers[._]\d+[._]attention[._]qkv$",), (r"^layers[._]\d+[._]feed_forward[._]w[13]$",)),
    adapter_widths=(
        Width(module=r"^layers[._]\d+[._]attn[._]to_[qkv]$", means={2304: None}),
        Width(module=r"^layers[._]\d+[._]attention[._]qkv$", means={2304: None}),
        Width(module=r"^layers[._]\d+[._]feed_forward[._](w|linear_)[13]$", means={2304: None}),
    ),
    adapter_blocks={"layers": 26},
)

STACKS = ("layers.*.", "noise_refiner.*.", "context_refiner.*.")
TIMED = STACKS[:2]  # the context refiner has no time modulation
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MLP = every("feed_forward.", ("linear_1", "linear_2", "linear_3"))
MODULATION = "norm1.linear"
SHARED = Fraction(1, 3)  # keys and values are shared by three heads each
LAYERS = (
    *same_names("x_embedder"),
    Layer("cap_embedder.1", ("time_caption_embed.caption_embedder.1",)),
    Layer("t_embedder.mlp.0", ("time_caption_embed.timestep_embedder.linear_1",)),
    Layer("t_embedder.mlp.2", ("time_caption_embed.timestep_embedder.linear_2",)),
    Layer("final_layer.adaLN_modulation.1", ("norm_out.linear_1",)),
    Layer("final_layer.linear", ("norm_out.linear_2",)),
    *(Layer(f"{stack}attention.qkv", every(f"{stack}attn.", ("to_q", "to_k", "to_v")), widths=(1, SHARED, SHARED)) for stack in STACKS),
    *(Layer(f"{stack}attention.out", (f"{stack}attn.to_out.0",)) for stack in STACKS),
    *(Layer(f"{stack}feed_forward.w{n}", (f"{stack}feed_forward.linear_{n}",)) for stack in STACKS for n in (1, 2, 3)),
    *(Layer(f"{stack}adaLN_modulation.1", (f"{stack}{MODULATION}",)) for stack in TIMED),
)
FILE_NAMES = FileNames(
    title="Lumina-Image 2",
    class_name="Lumina2Transformer2DModel",
    diffusers_key="layers.0.attn.to_q.weight",
    original_key="layers.0.attention.qkv.weight",
    layers=LAYERS,
    others={
        "time_caption_embed.caption_embedder.0.weight": "cap_embedder.0.weight",
        **{f"{stack}attn.norm_{x}.weight": f"{stack}attention.{x}_norm.weight" for stack in STACKS for x in "qk"},
        **{f"{stack}norm1.norm.weight": f"{stack}attention_norm1.weight" for stack in TIMED},
        f"{STACKS[2]}norm1.weight": f"{STACKS[2]}attention_norm1.weight",
        **{f"{stack}norm2.weight": f"{stack}attention_norm2.weight" for stack in STACKS},
    },
)


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts, unless their VAE is not the one that the sizes count on."""
    refuse_other_factor(parts, FACTOR, "Lumina-Image 2")
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="the configs of Lumina-Image 2 and Gemma's tokenizer",
    folder="Lumina-Image 2",
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, 256, D), "mask": (B, 256) bool}: the last but one states of each prompt behind the instruction."""
    refuse_clip_skip(clip_skip, "Lumina's text encoder is no CLIP")
    return _encoded(parts, [INSTRUCTION + prompt for prompt in prompts])


def encode_negatives(parts: Parts, negatives: Sequence[str]) -> Conditioning:
    """The states of negative prompts, without the instruction."""
    return _encoded(parts, negatives)


def _encoded(parts: Parts, texts: Sequence[str]) -> Conditioning:
    ids, mask = token_ids(parts.tokenizers["tokenizer"], texts, limit=TEXT_TOKENS, fill=True)
    states = hidden_states(parts.text_encoders["text_encoder"], ids, mask)[-2]
    return {"embeds": states, "mask": mask.to(states.device)}


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt behind the instruction, tokens that fit)."""
    return count_text_tokens(parts.tokenizers["tokenizer"], INSTRUCTION + prompt), TEXT_TOKENS


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000.

    The transformer counts time from noise (0) to image (1) and its velocity the other way.
    """
    refuse_control(control, NO_CONTROL)
    velocity: Tensor = parts.denoiser(
        hidden_states=noisy,
        timestep=1 - timesteps / 1000,
        encoder_hidden_states=conditioning["embeds"],
        encoder_attention_mask=_mask(conditioning["mask"]),
        return_dict=False,
    )[0]
    return -velocity


def _mask(mask: Tensor) -> Tensor:
    """The mask. Without values (meta) one whose every token counts: the transformer asks for their number and would stop the estimate."""
    import torch

    if mask.device.type != "meta":
        return mask
    count, tokens = mask.shape

    class Full(torch.Tensor):
        __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # what is made of it is a plain tensor

        def sum(self, *_args: Any, **_options: Any) -> Tensor:
            return torch.full((count,), tokens, device="cpu")

    return mask.as_subclass(Full)


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, each row of cells scaled back to the length of the conditional prediction's (cfg_normalization)."""
    combined = classifier_free_guidance(conditional, unconditional, guidance)
    length: Tensor = conditional.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    return combined * length


def mu_of_channels(config: Mapping[str, Any], *, height: int, width: int, steps: int) -> float:
    """mu at any size: the pipeline takes the 16 latent channels for the number of tokens."""
    return linear_mu(config, tokens=16)


# --- adapters


def is_published(widths: Mapping[str, int]) -> bool:
    """Whether modules of these in-widths are those of the published transformer, whose heads are shared by three."""
    seen = {width for module, width in widths.items() if module.endswith(("attn.to_q", "feed_forward.linear_1"))}
    return seen == {WIDTH}


FAMILIES.add("lumina2")(
    Family(
        name="lumina2",
        title="Lumina-Image 2",
        pipeline="Lumina2Pipeline",
        aliases=Aliases(modelspec=("lumina-2",), base_version=("lumina2",), civitai=("lumina",)),
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=30,
        guidance=4.0,
        checkpointed=r"layers\.\d+",
        lora_presets={
            "attention": ATTENTION,
            "attention_mlp": (*ATTENTION, *MLP),
            "modulation": (*ATTENTION, *MLP, MODULATION),
        },
        architecture="lumina-2",
        file_names=FILE_NAMES,
        adapter_names=AdapterNames(layers=LAYERS, original=is_published),
        vae_channels=16,
        recognise_checkpoint=partial(claim_checkpoint, SIGNATURE),
        recognise_adapter=partial(claim_adapter, SIGNATURE),
        may_be_adapter=partial(has_names_of, SIGNATURE),
        load=load,
        encode_prompts=encode_prompts,
        encode_negatives=encode_negatives,
        encode_unconditional=encoding_of_empty(encode_negatives),
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        predict=predict,
        mu=mu_of_channels,
        set_timesteps=even_sigmas(mu_of_channels),
        lora_state=partial(transformer_lora, layers=LAYERS),
        guide=guide,
        control=NO_CONTROL,
    )
)
