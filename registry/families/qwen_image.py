"""Qwen-Image: a transformer with flow matching, packed latents of sixteen channels from a video VAE, Qwen2.5-VL's states.

`guidance` is the classifier-free scale (the pipeline's true_cfg_scale; no published build embeds one). As in the pipeline there is an
unconditional pass only where a negative prompt is given: " " is enough.
"""

# B batch, C channels, H W latent size, N packed tokens (H/2 * W/2), T text tokens, D width

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import count_text_tokens, hidden_states, own_tokens, token_ids
from registry.architectures.transformer.flow_schedule import even_sigmas, mu_of_size
from registry.architectures.transformer.model import transformer_loader
from registry.architectures.transformer.packing import pack, unpack
from registry.architectures.vae.video import decode, encode_frame, encode_images
from registry.detect.few_step import FewStep
from registry.errors import BadFile, Refused
from registry.family import FAMILIES, Control, Family
from registry.family_defaults import classifier_free_guidance, encoding_of_empty
from registry.formats.controlnet_file import load_controlnet, refuse_other_build
from registry.formats.layers import AdapterNames, every, same_names
from registry.formats.model_header import ModelHeader
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.signature import BLOCK, JOINT, REFINER, SINGLE, Shape, Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from registry.formats.safetensors_header import TensorInfo

FACTOR = 8  # pixels a latent cell
TEMPLATE = (  # of the pipeline; its beginning up to the prompt is dropped from the states
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
DROPPED = 34  # tokens of the template's beginning, in Qwen's own vocabulary
ENCODED = 1024  # tokens behind them that the text encoder reads
KEPT = 512  # tokens that the transformer is given: the stock pipeline's max_sequence_length

SIGNATURE = Signature(
    family="qwen_image",
    keys=("txt_norm.weight", "img_in.weight", "transformer_blocks.0.attn.add_q_proj.weight"),
    other_keys=(("txt_norm.weight", "img_in.weight", "transformer_blocks.0.attn.add_k_proj.weight"),),
    absent=("transformer_blocks.0.encoder_proj.weight",),
    marks={"__index_timestep_zero__": "edit-2511"},
    variants=(Shape(key="txt_norm.weight", axis=0, means={2560: "mage-flow"}),),
    prediction="flow",
    pipelines="QwenImage.*",
    adapter=((rf"{BLOCK}(img|txt)_(mlp|mod)[._]",), (r"^transformer_blocks[._]59[._]",)),
    adapter_shared=((JOINT,),),
    adapter_absent=(SINGLE, rf"{BLOCK}ff(_context)?[._]", REFINER, rf"{BLOCK}attn2[._]"),
    adapter_widths=(Width(module=JOINT, means={3072: None}),),
    adapter_blocks={"transformer_blocks": 60},
)
VARIANTS = {"QwenImageEditPipeline": "edit", "QwenImageEditPlusPipeline": "edit-plus", "QwenImageLayeredPipeline": "layered"}

OUTER = ("img_in", "txt_in", "proj_out", "norm_out.linear", *every("time_text_embed.timestep_embedder.", ("linear_1", "linear_2")))
IMAGE_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
MLP = every(("img_mlp.", "txt_mlp."), ("net.0.proj", "net.2"))
MODULATION = ("img_mod.1", "txt_mod.1")
LAYERS = same_names(  # kohya-style files (musubi-tuner) and ComfyUI call every layer as diffusers does
    *OUTER,
    *every("transformer_blocks.*.attn.", (*IMAGE_ATTENTION, *TEXT_ATTENTION)),
    *every("transformer_blocks.*.", (*MLP, *MODULATION)),
)
CONTROLS = ("QwenImageControlNetModel",)
SAME = ("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim")  # of a ControlNet and its base
FILE_NAMES = FileNames(
    title="Qwen-Image",
    class_name="QwenImageTransformer2DModel",
    diffusers_key="transformer_blocks.0.attn.add_k_proj.weight",
    original_key="transformer_blocks.0.attn.add_k_proj.weight",
    layers=LAYERS,
)


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by its class, on a single file by its names, which are diffusers' own."""
    claim = claim_checkpoint(SIGNATURE, header)
    if claim is None or not header.is_folder:
        return claim
    variant = (
        "edit-2511" if header.configs.get("transformer", {}).get("zero_cond_t") else VARIANTS.get(str(header.index.get("_class_name")))
    )
    return replace(claim, variant=variant or claim.variant)


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts, unless the transformer needs inputs that a prompt alone does not give."""
    config: Any = parts.denoiser.config
    asked = [
        name for name in ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds") if getattr(config, name, False)
    ]
    if asked:
        raise BadFile(
            parts.source,
            "variant",
            f"is an edit, layered or distilled build ({', '.join(asked)} in its config); only plain text-to-image ones are loaded.",
        )
    channels = parts.vae.config.z_dim  # type: ignore[union-attr]  # diffusers is untyped
    if config.in_channels != 4 * channels:  # type: ignore[operator]
        raise BadFile(parts.source, "variant", f"takes {config.in_channels} channels; only text-to-image ones ({4 * channels}) are loaded.")  # type: ignore[operator]
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="Qwen-Image's text encoder, its tokenizer and the VAE",
    folder="Qwen-Image",
    check=lambda _path, _folder, _config, _tensors: None,
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D), "mask": (B, T) bool}: the last states of each prompt in the template, without its beginning."""
    refuse_clip_skip(clip_skip, "Qwen-Image's text encoder is no CLIP")
    texts = [TEMPLATE.format(prompt) for prompt in prompts]
    ids, mask = token_ids(parts.tokenizers["tokenizer"], texts, limit=ENCODED + DROPPED, fill=False)
    states = hidden_states(parts.text_encoders["text_encoder"], ids, mask)[-1]
    embeds, kept = own_tokens(states, mask, skip=DROPPED, keep=KEPT)
    return {"embeds": embeds, "mask": kept}


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt in its template without the dropped beginning, tokens that the transformer is given)."""
    return count_text_tokens(parts.tokenizers["tokenizer"], TEMPLATE.format(prompt)) - DROPPED, KEPT


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000. `control` has a residual for each block."""
    velocity = parts.denoiser(
        **_inputs(noisy, timesteps, conditioning), controlnet_block_samples=control["blocks"] if control else None, return_dict=False
    )[0]
    return unpack(velocity, like=noisy)


def _inputs(noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> dict[str, Any]:
    """The inputs that the transformer and its ControlNets share."""
    return {
        "hidden_states": pack(noisy),
        "timestep": timesteps.to(noisy.dtype) / 1000,  # cast first, then divided, as the pipeline does it
        "encoder_hidden_states": conditioning["embeds"],
        "encoder_hidden_states_mask": _needed(conditioning["mask"]),
        "img_shapes": [[(1, noisy.shape[-2] // 2, noisy.shape[-1] // 2)]] * len(noisy),  # frames, rows, columns of tokens
    }


def _needed(mask: Tensor) -> Tensor | None:
    """The mask where it hides anything: without one attention has its fast kernels, whose last bits in bf16 are the pipeline's."""
    return None if mask.device.type == "meta" or bool(mask.all()) else mask


def guided(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """An unconditional pass above a scale of 1, and only where a negative prompt is given."""
    return guidance > 1.0 and negative


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, each token (64 channels) scaled back to the length of the conditional prediction's."""
    combined = pack(classifier_free_guidance(conditional, unconditional, guidance))
    length = pack(conditional).norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    return unpack(combined * length, like=conditional)


# --- ControlNets


def load_control(path: Path | str, parts: Parts, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The net of a diffusers folder or of a single file in diffusers' names, when it fits the base."""
    net = load_controlnet(
        path, family="Qwen-Image", classes=CONTROLS, build=lambda tensors: _of_base(parts.denoiser, tensors), dtype=dtype, device=device
    )
    refuse_other_build(Path(path).name, net.config, parts.denoiser.config, SAME)
    if net.config.extra_condition_channels:
        raise Refused(f"The ControlNet {Path(path).name} takes a mask and a masked image too (inpainting), which a hint has not.")
    return net  # type: ignore[no-any-return]  # diffusers is untyped


def _of_base(transformer: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
    """An empty net that is a copy of the transformer's first blocks, as many as the file has."""
    import diffusers

    if "controlnet_x_embedder.weight" not in tensors:
        raise Refused("A Qwen-Image ControlNet in a single file is read in diffusers' names only. Give its diffusers folder.")
    accepted = inspect.signature(diffusers.QwenImageControlNetModel.__init__).parameters
    config = {name: value for name, value in transformer.config.items() if name in accepted}
    blocks = {name.split(".")[1] for name in tensors if name.startswith("controlnet_blocks.")}
    extra = tensors["controlnet_x_embedder.weight"].shape[1] - transformer.config.in_channels
    config |= {"num_layers": len(blocks), "extra_condition_channels": extra}
    return diffusers.QwenImageControlNetModel.from_config(config)  # type: ignore[no-any-return]  # diffusers is untyped


def encode_hint(parts: Parts, net: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Packed latents (1, N, 64) of pixels (1, 3, h, w) in [0, 1], a sample of the VAE's posterior as the pipeline takes it."""
    import torch

    posterior = encode_frame(parts.vae, 2 * pixels - 1)
    noise = torch.randn(posterior.mean.shape, generator=generator, dtype=posterior.mean.dtype).to(parts.device)
    return pack(posterior.sample(noise).to(parts.dtype))


def residuals(
    parts: Parts, net: Any, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, hint: Tensor, *, mode: int | None = None
) -> Residuals:
    """{"blocks": (B, N, D) for each block}: the net's few, each for a run of neighbouring blocks, as the transformer shares them out."""
    few = net(**_inputs(noisy, timesteps, conditioning), controlnet_cond=hint, return_dict=False)
    count = parts.denoiser.config.num_layers  # type: ignore[union-attr]  # diffusers is untyped
    return {"blocks": [few[index // math.ceil(count / len(few))] for index in range(count)]}  # type: ignore[operator, arg-type]


FAMILIES.add("qwen_image")(
    Family(
        name="qwen_image",
        title="Qwen-Image",
        pipeline="QwenImagePipeline",
        aliases=Aliases(modelspec=("qwen-image", "qwen_image"), base_version=("qwen_image",), civitai=("qwen",)),
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=50,
        guidance=4.0,
        few_steps=(FewStep(title="Qwen-Image-Lightning", word="lightning|turbo", steps=8, guidance=1.0, instead="Qwen-Image"),),
        lora_presets={
            "attention": IMAGE_ATTENTION,
            "attention_mlp": (*IMAGE_ATTENTION, *TEXT_ATTENTION, *MLP),
            "modulation": (*IMAGE_ATTENTION, *TEXT_ATTENTION, *MLP, *MODULATION),
        },
        architecture="qwen-image",
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
        lora_state=partial(transformer_lora, layers=()),
        guided=guided,
        guide=guide,
        control=Control(classes=CONTROLS, load=load_control, encode_hint=encode_hint, residuals=residuals, conditional_only=True),
    )
)
