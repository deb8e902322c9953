"""Z-Image: a single stream transformer with flow matching, sixteen latent channels, Qwen3's states of each prompt's own length.

Its guidance counts from 0: conditional + guidance (conditional - unconditional), with an unconditional pass at any scale above 0. The
base wants 5, Turbo wants 0. No shape differs between them, so the default is the pipeline's, and a warning names Turbo's guidance.
"""

# B batch, C channels, H W latent size, T text tokens, D width

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import chat_texts, count_text_tokens, hidden_states, own_tokens, token_ids
from registry.architectures.transformer.flow_schedule import even_sigmas, mu_of_size
from registry.architectures.transformer.model import transformer_loader
from registry.architectures.vae.kl import decode, encode_images, encode_kl
from registry.detect.few_step import FewStep
from registry.errors import BadFile, Refused
from registry.family import FAMILIES, Control, Family
from registry.family_defaults import encoding_of_empty, guidance_from_zero, guided_above_zero
from registry.formats.controlnet_file import load_controlnet, refuse_other_build
from registry.formats.layers import AdapterNames, Layer, every, same_names
from registry.formats.model_header import ModelHeader
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.signature import Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FACTOR = 8  # pixels a latent cell
ALIKE = (
    "Z-Image and Z-Image-Turbo have the same keys and shapes: the defaults (50 steps, guidance 5) are the base's. "
    "Turbo takes steps=9 guidance=0."
)
TEXT_TOKENS = 512  # the stock pipeline's max_sequence_length

SIGNATURE = Signature(
    family="z_image",
    keys=("context_refiner.0.attention.(k_norm|norm_k).weight", "layers.0.adaLN_modulation.0.weight"),
    prediction="flow",
    pipelines="ZImage.*",
    adapter=((r"^context_refiner[._]\d+[._]attention[._]to_",),),
    adapter_shared=((r"^layers[._]\d+[._]attention[._](to_[qkv]|qkv)$",), (r"^layers[._]\d+[._]feed_forward[._]w[13]$",)),
    adapter_widths=(
        Width(module=r"^layers[._]\d+[._]attention[._](to_[qkv]|qkv)$", means={3840: None}),
        Width(module=r"^layers[._]\d+[._]feed_forward[._]w[13]$", means={3840: None}),
    ),
    adapter_blocks={"layers": 30},
)

STACKS = ("layers.*.", "noise_refiner.*.", "context_refiner.*.")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MLP = every("feed_forward.", ("w1", "w2", "w3"))
MODULATION = "adaLN_modulation.0"
_BLOCK = r"(layers|noise_refiner|context_refiner)\.\d+\."  # in the last layer adaLN_modulation.0 is an activation
LAYERS = (
    Layer("x_embedder", ("all_x_embedder.2-1",)),  # for patches of 2 x 2 cells in 1 frame
    Layer("final_layer.linear", ("all_final_layer.2-1.linear",)),
    Layer("final_layer.adaLN_modulation.1", ("all_final_layer.2-1.adaLN_modulation.1",)),
    *same_names("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.1"),
    *(Layer(f"{stack}attention.qkv", every(f"{stack}attention.", ("to_q", "to_k", "to_v"))) for stack in STACKS),
    *(Layer(f"{stack}attention.out", (f"{stack}attention.to_out.0",)) for stack in STACKS),
    *same_names(*every(STACKS, MLP)),
    *same_names(*every(STACKS[:2], (MODULATION,))),  # the context refiner has no time modulation
)
CONTROLS = ("ZImageControlNetModel",)
FILLED = 32  # tokens that captions and images are filled up to a multiple of
FILE_NAMES = FileNames(
    title="Z-Image",
    class_name="ZImageTransformer2DModel",
    diffusers_key="layers.0.attention.to_q.weight",
    original_key="layers.0.attention.qkv.weight",
    layers=LAYERS,
    others={f"{stack}attention.norm_{x}.weight": f"{stack}attention.{x}_norm.weight" for stack in STACKS for x in "qk"},
)


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by its class, on a single file by either spelling's names; base and Turbo look alike."""
    claim = claim_checkpoint(SIGNATURE, header)
    return replace(claim, evidence=(*claim.evidence, "base or turbo: they have the same keys and shapes")) if claim else None


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts, unless the transformer needs inputs that a prompt alone does not give."""
    config: Any = parts.denoiser.config
    if config.siglip_feat_dim is not None:
        raise BadFile(parts.source, "variant", "is an Omni build, which looks at images too; only text-to-image ones are loaded.")
    if tuple(config.all_patch_size) != (2,) or tuple(config.all_f_patch_size) != (1,):
        raise BadFile(parts.source, "variant", f"has patches of {config.all_patch_size} cells; only those of 2 x 2 are loaded.")
    parts.warnings = (*parts.warnings, ALIKE)
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="Z-Image's text encoder and its tokenizer",
    folder="the same build (base or Turbo)",
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D), "mask": (B, T) bool}: the last but one states of each prompt in the chat template."""
    refuse_clip_skip(clip_skip, "Z-Image's text encoder is no CLIP")
    ids, mask = token_ids(parts.tokenizers["tokenizer"], _texts(parts, prompts), limit=TEXT_TOKENS, fill=True)
    embeds, kept = own_tokens(hidden_states(parts.text_encoders["text_encoder"], ids, mask)[-2], mask)
    return {"embeds": embeds, "mask": kept}


def _texts(parts: Parts, prompts: Sequence[str]) -> list[str]:
    return chat_texts(parts.tokenizers["tokenizer"], prompts, enable_thinking=True)


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt in the chat template, tokens that fit)."""
    return count_text_tokens(parts.tokenizers["tokenizer"], _texts(parts, [prompt])[0]), TEXT_TOKENS


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W), in float32; `timesteps` (B,) in 0..1000.

    The transformer counts time from noise (0) to image (1) and its velocity the other way; it takes lists, one entry an image,
    and captions of each one's own length. `control` is keyed by layer.
    """
    import torch

    images, times, captions = _inputs(parts, noisy, timesteps, conditioning)
    length = _sequence(noisy, max(len(caption) for caption in captions))
    added = {int(layer): tensors[0][:, :length].to(parts.dtype) for layer, tensors in control.items()} if control else None
    velocities = parts.denoiser(images, times, captions, controlnet_block_samples=added, return_dict=False)[0]
    return -torch.stack(velocities).squeeze(2).float()


def _inputs(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """(images (C, 1, H, W) of one frame each, times from noise to image, captions), for the transformer and its ControlNets."""
    return list(noisy.to(parts.dtype).unsqueeze(2)), (1000 - timesteps) / 1000, _captions(conditioning["embeds"], conditioning["mask"])


def _sequence(noisy: Tensor, caption: int) -> int:
    """Tokens of the transformer's sequence: the image's and the longest caption's, each filled up to 32s."""
    tokens = noisy.shape[-2] * noisy.shape[-1] // 4
    return tokens + -tokens % FILLED + caption + -caption % FILLED


def _captions(embeds: Tensor, mask: Tensor) -> list[Tensor]:
    """(T_i, D) each: a caption's own tokens. On the meta device the mask has no values, and all tokens count."""
    return list(embeds) if embeds.device.type == "meta" else [states[own] for states, own in zip(embeds, mask, strict=True)]


# --- ControlNets


def load_control(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder, or of a file with its config.json beside it, when it fits the base, whose embedders it shares."""
    net = load_controlnet(path, family="Z-Image", classes=CONTROLS, build=_refuse_file, dtype=dtype, device=device)
    base: Any = parts.denoiser
    refuse_other_build(Path(path).name, net.config, base.config, ("dim", "n_heads"))
    beyond = [place for place in net.config.control_layers_places if place >= base.config.n_layers]
    if beyond:
        raise Refused(f"The ControlNet {Path(path).name} steers layer {beyond[0]}, but this base has {base.config.n_layers} layers.")
    return net.from_transformer(net, base).requires_grad_(False)  # type: ignore[no-any-return]  # diffusers is untyped


def _refuse_file(_tensors: Any) -> nn.Module:
    raise Refused("Which layers a Z-Image ControlNet steers is in none of its tensors. Put its config.json beside the file.")


def encode_hint(parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (1, C, 1, H, W) of pixels (1, 3, h, w) in [0, 1]: the posterior's mean, zeros in the channels that inpainting would fill."""
    import torch

    latents = encode_kl(parts.vae, 2 * pixels - 1).mean.unsqueeze(2)
    return torch.nn.functional.pad(latents, (0, 0) * 3 + (0, net.config.control_in_dim - latents.shape[1]))


def residuals(
    parts: Parts,
    net: Any,
    noisy: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    hint: Tensor,
    *,
    mode: int | None = None,
    scale: float = 1.0,
) -> Residuals:
    """{layer: [(B, N, D)]} by the transformer's layers that the net steers, N as long as a batch of these captions makes it."""
    import torch

    images, times, captions = _inputs(parts, noisy, timesteps, conditioning)
    added = net(images, times, captions, list(hint.to(net.dtype)), conditioning_scale=scale)
    length = _sequence(noisy, conditioning["mask"].shape[1])  # rows that this net does not steer may have longer captions
    return {str(layer): [torch.nn.functional.pad(tensor, (0, 0, 0, length - tensor.shape[1]))] for layer, tensor in added.items()}


def scales_itself(net: Any) -> bool:
    """Whether it refines the noise too (2.x): what comes of that is no longer in proportion to the scale."""
    return net.config.add_control_noise_refiner is not None


FAMILIES.add("z_image")(
    Family(
        name="z_image",
        title="Z-Image",
        pipeline="ZImagePipeline",
        aliases=Aliases(modelspec=("z-image", "z_image"), base_version=("zimage", "z_image"), civitai=("zimage",)),
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=50,
        guidance=5.0,
        few_steps=(
            FewStep(
                title="Z-Image-Turbo",
                word="turbo",
                steps=9,
                guidance=0.0,
                instead="Z-Image",
                training_adapter="ostris/zimage_turbo_training_adapter",
            ),
        ),
        checkpointed=r"(noise_refiner|context_refiner|layers)\.\d+",
        lora_presets={
            "attention": ATTENTION,
            "attention_mlp": (*ATTENTION, *MLP),
            "modulation": rf"{_BLOCK}(attention\.(to_[qkv]|to_out\.0)|feed_forward\.w[123]|{re.escape(MODULATION)})",
        },
        architecture="z-image",
        inpaint_strength=1.0,
        fp32_latents=True,
        trains_on_mean=True,
        file_names=FILE_NAMES,
        adapter_names=AdapterNames(layers=LAYERS),
        vae_channels=16,
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
        control=Control(
            classes=CONTROLS,
            load=load_control,
            encode_hint=encode_hint,
            residuals=residuals,
            scales_itself=scales_itself,
            scaled_residuals=residuals,
        ),
    )
)
