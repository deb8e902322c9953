"""Sana: a transformer with linear attention and flow matching, 32 latent channels of 32 pixels, Gemma 2's states of a rewriting request.

A prompt is read in lower case behind a long request to enhance it; a negative prompt is encoded alone. The stock pipeline draws at the
nearest size of its own list and scales the image; here an image is drawn at the size asked for.
"""

# B batch, C channels, H W latent size, T text tokens, D width

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import count_text_tokens, hidden_states, token_ids
from registry.architectures.transformer.model import transformer_loader
from registry.errors import BadFile, Refused
from registry.family import FAMILIES, Control, Family
from registry.family_defaults import encoding_of_empty
from registry.formats.controlnet_file import load_controlnet, refuse_other_build
from registry.formats.layers import AdapterNames, Layer, every
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Parts, Posterior, Residuals
from registry.signature import BLOCK, READS_TEXT, SINGLE, TWO, Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from registry.formats.safetensors_header import TensorInfo

TEXT_TOKENS = 300  # that the transformer is given: the stock pipeline's max_sequence_length
REQUEST = "\n".join(  # the pipeline's complex_human_instruction
    (
        "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image generation. "
        "Evaluate the level of detail in the user prompt:",
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to create "
        "vivid and concrete scenes.",
        "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
        "Here are examples of how to transform or refine prompts:",
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a warm "
        "sunny windowsill, surrounded by pots of blooming red flowers.",
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a diverse "
        "crowd of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.",
        "Please generate only the enhanced description for the prompt below and avoid including any additional commentary or evaluations:",
        "User Prompt: ",
    )
)

SIGNATURE = Signature(
    family="sana",
    keys=("attention_y_norm.weight",),
    other_keys=(
        ("blocks.0.cross_attn.q_linear.weight", "blocks.0.mlp.inverted_conv.conv.weight"),
        ("caption_norm.weight", "transformer_blocks.0.ff.conv_inverted.weight"),
    ),
    absent=("transformer_blocks.0.ff.conv_temp.weight",),
    prediction="flow",
    pipelines="Sana(Sprint|PAG|ControlNet|Img2Img|Inpaint)?Pipeline|SanaSprint.*",
    adapter=((rf"{BLOCK}ff[._]conv_(inverted|point)",),),
    adapter_shared=((TWO,), (READS_TEXT,), (rf"{BLOCK}attn2[._]to_[qv]$",)),
    adapter_absent=(SINGLE, rf"{BLOCK}attn[._]", rf"{BLOCK}audio", rf"{BLOCK}ff[._]net"),
    adapter_widths=(
        Width(module=rf"{BLOCK}attn[12][._]to_q$", means={2240: "1.6b", 1152: "0.6b"}),
        Width(module=READS_TEXT, means={2240: "1.6b", 1152: "0.6b"}),
    ),
    adapter_blocks={"transformer_blocks": 28},
)

ATTENTION = ("to_q", "to_k", "to_v")
MLP = ("to_out.0", "ff.conv_inverted", "ff.conv_point")
BLOCKS = "transformer_blocks.*."
LAYERS = (
    Layer("x_embedder.proj", ("patch_embed.proj",)),
    Layer("t_embedder.mlp.0", ("time_embed.emb.timestep_embedder.linear_1",)),
    Layer("t_embedder.mlp.2", ("time_embed.emb.timestep_embedder.linear_2",)),
    Layer("t_block.1", ("time_embed.linear",)),
    *(Layer(f"y_embedder.y_proj.fc{n}", (f"caption_projection.linear_{n}",)) for n in (1, 2)),
    Layer("final_layer.linear", ("proj_out",)),
    Layer("blocks.*.attn.qkv", every(f"{BLOCKS}attn1.", ("to_q", "to_k", "to_v"))),
    Layer("blocks.*.attn.proj", (f"{BLOCKS}attn1.to_out.0",)),
    Layer("blocks.*.cross_attn.q_linear", (f"{BLOCKS}attn2.to_q",)),
    Layer("blocks.*.cross_attn.kv_linear", every(f"{BLOCKS}attn2.", ("to_k", "to_v"))),
    Layer("blocks.*.cross_attn.proj", (f"{BLOCKS}attn2.to_out.0",)),
    *(Layer(f"blocks.*.mlp.{kind}_conv.conv", (f"{BLOCKS}ff.conv_{kind}",)) for kind in ("inverted", "depth", "point")),
)
CONTROLS = ("SanaControlNetModel",)
SAME = ("in_channels", "num_attention_heads", "attention_head_dim", "caption_channels")  # of a ControlNet and its base
FILE_NAMES = FileNames(
    title="Sana",
    class_name="SanaTransformer2DModel",
    diffusers_key="transformer_blocks.0.ff.conv_inverted.weight",
    original_key="blocks.0.mlp.inverted_conv.conv.weight",
    layers=LAYERS,
    others={
        "caption_norm.weight": "attention_y_norm.weight",
        "scale_shift_table": "final_layer.scale_shift_table",
        f"{BLOCKS}scale_shift_table": "blocks.*.scale_shift_table",
        **{f"{BLOCKS}attn1.norm_{x}.weight": f"blocks.*.attn.{x}_norm.weight" for x in "qk"},  # Sana 1.5
        **{f"{BLOCKS}attn2.norm_{x}.weight": f"blocks.*.cross_attn.{x}_norm.weight" for x in "qk"},
    },
)


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts with their own number of latent channels, unless the transformer needs inputs that a prompt alone does not give."""
    config: Any = parts.denoiser.config
    channels = int(parts.vae.config.latent_channels)  # type: ignore[union-attr, arg-type]  # diffusers is untyped
    if getattr(config, "guidance_embeds", False):
        raise BadFile(parts.source, "variant", "is a Sprint build, which walks its own few steps; only plain Sana ones are loaded.")
    if config.in_channels != channels:
        raise BadFile(parts.source, "variant", f"takes {config.in_channels} channels where its VAE has {channels}: no text-to-image build.")
    parts.latent_channels = channels
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="Sana's text encoder, its tokenizer and the VAE",
    folder="the same build",
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, 300, D), "mask": (B, 300) bool}: the last states of the first token and of the last 299, prompt and padding."""
    refuse_clip_skip(clip_skip, "Sana's text encoder is no CLIP")
    kept = [0, *range(-TEXT_TOKENS + 1, 0)]
    limit = _request_tokens(parts) + TEXT_TOKENS - 2
    return {key: value[:, kept] for key, value in _encoded(parts, [REQUEST + _plain(prompt) for prompt in prompts], limit).items()}


def encode_negatives(parts: Parts, negatives: Sequence[str]) -> Conditioning:
    """The states of negative prompts, without the request."""
    return _encoded(parts, [_plain(negative) for negative in negatives], TEXT_TOKENS)


def _plain(text: str) -> str:
    """As the pipeline reads every text."""
    return text.lower().strip()


def _request_tokens(parts: Parts) -> int:
    return count_text_tokens(parts.tokenizers["tokenizer"], REQUEST)


def _encoded(parts: Parts, texts: Sequence[str], limit: int) -> Conditioning:
    ids, mask = token_ids(parts.tokenizers["tokenizer"], texts, limit=limit, fill=True)
    states = hidden_states(parts.text_encoders["text_encoder"], ids, mask)[-1]
    return {"embeds": states, "mask": mask.to(states.device)}


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt behind the request, with two marks, tokens that fit)."""
    return count_text_tokens(parts.tokenizers["tokenizer"], REQUEST + _plain(prompt)) - _request_tokens(parts) + 2, TEXT_TOKENS


# --- images


def encode_images(parts: Parts, pixels: Tensor) -> Posterior:
    """Latents (B, 32, h/32, w/32) of pixels (B, 3, h, w) in [-1, 1]; this VAE has no posterior."""
    vae: Any = parts.vae
    return Posterior(vae.encode(pixels.to(vae.device, vae.dtype)).latent * vae.config.scaling_factor, None)


def decode(parts: Parts, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) of latents (B, 32, H, W)."""
    vae: Any = parts.vae
    return vae.decode(latents.to(vae.device, vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]  # type: ignore[no-any-return]


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 32, H, W), in float32; `timesteps` (B,) in 0..1000. `control` is keyed by block."""
    config: Any = parts.denoiser.config
    velocity: Tensor = parts.denoiser(
        noisy.to(parts.dtype),
        encoder_hidden_states=conditioning["embeds"].to(parts.dtype),
        encoder_attention_mask=conditioning["mask"],
        timestep=timesteps * config.timestep_scale,
        controlnet_block_samples=tuple(control[str(block)][0].to(parts.dtype) for block in range(len(control))) if control else None,
        return_dict=False,
    )[0]
    return velocity[:, : noisy.shape[1]].float()  # a build that also predicts a variance has it behind


def set_timesteps(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own table for so many steps, begun at its first entry."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


# --- ControlNets


def load_control(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder or of a single file in diffusers' names, when it fits the base."""
    net = load_controlnet(
        path, family="Sana", classes=CONTROLS, build=lambda tensors: _of_base(parts.denoiser, tensors), dtype=dtype, device=device
    )
    refuse_other_build(Path(path).name, net.config, parts.denoiser.config, SAME)
    return net  # type: ignore[no-any-return]  # diffusers is untyped


def _of_base(transformer: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
    """An empty net that is a copy of the transformer's first blocks, as many as the file has."""
    import diffusers

    blocks = {name.split(".")[1] for name in tensors if name.startswith("controlnet_blocks.")}
    if not blocks or "input_block.weight" not in tensors:
        raise Refused("A Sana ControlNet in a single file is read in diffusers' names only. Give its diffusers folder.")
    accepted = inspect.signature(diffusers.SanaControlNetModel.__init__).parameters
    config = {name: value for name, value in transformer.config.items() if name in accepted}
    return diffusers.SanaControlNetModel.from_config({**config, "num_layers": len(blocks)})  # type: ignore[no-any-return]


def encode_hint(parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (1, 32, H, W) of pixels (1, 3, h, w) in [0, 1]; nothing is drawn for them."""
    return encode_images(parts, 2 * pixels - 1).mean


def residuals(
    parts: Parts, net: Any, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, hint: Tensor, *, mode: int | None = None
) -> Residuals:
    """{"0": [(B, N, D)], ...} by the net's own blocks; the transformer adds each behind the block after it."""
    (samples,) = net(
        noisy.to(net.dtype),
        encoder_hidden_states=conditioning["embeds"].to(net.dtype),
        encoder_attention_mask=conditioning["mask"],
        timestep=timesteps,
        controlnet_cond=hint,
        return_dict=False,
    )
    return {str(block): [sample] for block, sample in enumerate(samples)}


FAMILIES.add("sana")(
    Family(
        name="sana",
        title="Sana",
        pipeline="SanaPipeline",
        aliases=Aliases(modelspec=("sana",)),
        latent_channels=32,
        latent_factor=32,
        size_multiple=32,
        resolution=1024,
        steps=20,
        guidance=4.5,
        lora_presets={
            "attention": ATTENTION,
            "attention_mlp": (*ATTENTION, *MLP),
            "modulation": (*ATTENTION, *MLP, "time_embed.linear"),
        },
        architecture="sana",
        fp32_latents=True,
        file_names=FILE_NAMES,
        adapter_names=AdapterNames(layers=LAYERS),
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
        set_timesteps=set_timesteps,
        lora_state=partial(transformer_lora, layers=LAYERS),
        control=Control(classes=CONTROLS, load=load_control, encode_hint=encode_hint, residuals=residuals),
    )
)
