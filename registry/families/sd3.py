"""Stable Diffusion 3 and 3.5: a transformer of joint blocks with flow matching, unpacked latents of sixteen channels, three text encoders.

CLIP-L's and OpenCLIP bigG's states are concatenated, padded to T5's width, and T5's appended; nothing is masked, so the text
length is part of the result. T5 may be missing: zeros take its place, as in the stock pipeline. The shift is static in the
published models and is in the scheduler's own table, whose low end is therefore shifted twice.
"""

# B batch, C channels, H W latent size, T text tokens, D width, P pooled width

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import originals_in, read_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import clip_outputs, count_tokens, penultimate_state
from registry.architectures.transformer.flow_schedule import linear_mu
from registry.architectures.transformer.model import JOINT_ATTENTION, refuse_other_factor
from registry.architectures.transformer.packing import packed_tokens
from registry.architectures.transformer.sd3_control import block_residuals, sd3_control
from registry.architectures.transformer.sd3_names import FILE_NAMES, LAYERS, PIECES, WholeFile
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.errors import BadFile, Refused
from registry.family import FAMILIES, Family
from registry.family_defaults import encoding_of_empty
from registry.formats.diffusers_folder import load_folder, refuse_base_config
from registry.formats.layers import AdapterNames
from registry.formats.model_folder import read_json
from registry.formats.safetensors_header import TensorInfo
from registry.formats.single_file import load_pieces
from registry.formats.transformer_file import load_transformer
from registry.parts import Conditioning, Parts, Residuals
from registry.quantised.layers import Quantisation
from registry.signature import BLOCK, JOINT, REFINER, SINGLE, Shape, Signature, Width, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FACTOR = 8  # pixels a latent cell
T5_TOKENS = 256  # T5's length in the stock pipeline; the tokenizer's own limit where that is less
MAX_SHIFT = 1.16  # of the shift by resolution where the scheduler has one without saying its end
CLIPS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}

SIGNATURE = Signature(
    family="sd3",
    keys=("joint_blocks.0.context_block.attn.qkv.weight",),
    other_keys=(("pos_embed.proj.weight", "transformer_blocks.0.attn.add_q_proj.weight", "context_embedder.weight"),),
    absent=(r"single_transformer_blocks..*", r"joint_transformer_blocks..*"),
    marks={
        "(joint_blocks.37.x_block.attn.qkv|transformer_blocks.37.attn.to_q).weight": "3.5-large",
        r"joint_blocks.0.x_block.attn2.qkv.weight|transformer_blocks.0.attn2.to_q.weight": "3.5-medium",
    },
    variants=(
        Shape(key="pos_embed.pos_embed", axis=1, means={147456: "3.5-medium"}),
        Shape(key="pos_embed", axis=1, means={36864: "3-medium", 147456: "3.5-medium"}),
        Shape(key="transformer_blocks.0.attn.to_q.weight", axis=0, means={1536: "3-medium", 2432: "3.5-large"}),
    ),
    prediction="flow",
    pipelines="StableDiffusion3.*",
    adapter=((r"^joint_blocks[._]\d+[._](x|context)_block",),),
    adapter_shared=((JOINT,), (rf"{BLOCK}ff(_context)?[._]net",)),
    adapter_absent=(SINGLE, r"(img|txt)_mlp", REFINER, rf"{BLOCK}attn1[._]"),
    adapter_widths=(
        Width(module=rf"{BLOCK}attn[._]to_q$", means={1536: None, 2432: "3.5-large"}),
        Width(module=rf"{BLOCK}attn[._]to_k$", means={1536: None, 2432: "3.5-large"}),
        Width(module=rf"{BLOCK}attn[._](to_v|add_[qkv]_proj)$", means={1536: None, 2432: "3.5-large"}),
        Width(module=rf"{BLOCK}ff(_context)?[._]net[._]0[._]proj$", means={1536: None, 2432: "3.5-large"}),
        Width(module=r"^joint_blocks[._]\d+[._](x|context)_block[._]attn[._]qkv$", means={1536: None, 2432: "3.5-large"}),
    ),
    adapter_blocks={"transformer_blocks": 38, "joint_blocks": 38},
    adapter_marks={rf"{BLOCK}attn2[._]|^joint_blocks[._]\d+[._]x_block[._]attn2": "3.5-medium"},
)

_ALL_ATTENTION = r"attn2?\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
_MLP = r"ff(_context)?\.net\.(0\.proj|2)"
_MODULATION = r"norm1(_context)?\.linear"


# --- loading


def load(
    path: Path | str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    base_config: Path | str | None = None,
    prediction: str | None = None,
    quantised: Quantisation | None = None,
) -> Parts:
    """Parts of a diffusers folder, every weight in `dtype`; what a single file does not hold is taken from `base_config`."""
    path = Path(path)
    loaded: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    if path.is_file():
        if base_config is None:
            raise Refused(
                f"{path.name} is a single file: the T5 tokenizer and the scheduler's shift of Stable Diffusion 3 are not in it and are not "
                "bundled. Give base_config=FOLDER, a diffusers folder of the same build (3 medium, 3.5 medium or 3.5 large)."
            )
        loaded, warnings = _file_parts(path, Path(base_config), dtype=dtype, empty=str(device) == "meta", quantised=quantised)
    else:
        refuse_base_config(path, base_config)
    folder = path if base_config is None else Path(base_config)
    with_t5 = _has_t5(folder)
    parts = load_folder(
        folder,
        denoiser="transformer",
        text_encoders=(*CLIPS.values(), *(["text_encoder_3"] if with_t5 else [])),
        tokenizers=(*CLIPS, *(["tokenizer_3"] if with_t5 else [])),
        predictions=("flow",),
        dtype=dtype,
        device=device,
        loaded=loaded,
        quantised=quantised,
    )
    parts.source = path
    parts.warnings = warnings
    if not with_t5:
        parts.warnings = (
            *warnings,
            f"{folder.name} has no T5 (text_encoder_3): zeros replace its text states, as in the stock pipeline.",
        )
    return _checked(parts)


def _has_t5(folder: Path) -> bool:
    """Whether the folder's index names T5. Raises Refused where it does and the folder is missing: nulls in the index leave T5 out."""
    entry = read_json(folder / "model_index.json").get("text_encoder_3")
    named = isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    if named and not (folder / "text_encoder_3").is_dir():
        raise Refused(
            f"{folder} names a T5 (text_encoder_3) that is not there. Put its folder there, or write "
            '"text_encoder_3": [null, null], "tokenizer_3": [null, null] into model_index.json to draw without it.'
        )
    return named


def _file_parts(
    path: Path, folder: Path, *, dtype: torch.dtype, empty: bool, quantised: Quantisation | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the file holds (a transformer always; a VAE and text encoders often), by component, and warnings for the user."""
    pieces = [piece for piece in PIECES if piece.component != "text_encoder_3" or _has_t5(folder)]
    others, keys = load_pieces(path, pieces, folder, dtype=dtype, empty=empty, quantised=quantised)
    check = partial(_same_build, path, folder)
    transformer, warnings = load_transformer(
        path,
        folder,
        FILE_NAMES,
        check=check,
        beside=keys,
        dtype=dtype,
        empty=empty,
        choose=quantised.of("transformer") if quantised else None,
    )
    return {"transformer": transformer, **others}, warnings


def _same_build(path: Path, folder: Path, config: Mapping[str, Any], names: Mapping[str, TensorInfo]) -> None:
    """Refuse a file and a folder of different builds before their shapes differ in hundreds of places."""
    blocks = {name.split(".")[1] for name in names if name.startswith(("joint_blocks.", "transformer_blocks."))}
    doubled = sum(1 for name in names if name.endswith(("x_block.attn2.qkv.weight", "attn2.to_q.weight")))
    found, expected = (len(blocks), doubled), (config["num_layers"], len(config["dual_attention_layers"]))
    if found != expected:
        raise Refused(
            f"{path.name} has {found[0]} blocks, {found[1]} of them with a second attention; base_config={folder} has {expected[0]} and "
            f"{expected[1]}. Give the folder of the same build (3 medium: 24 and 0, 3.5 medium: 24 and 13, 3.5 large: 38 and 0)."
        )


def _checked(parts: Parts) -> Parts:
    """The parts, unless the transformer takes other latents than the VAE gives, or is of another pipeline."""
    config: Any = parts.denoiser.config
    name = type(parts.denoiser).__name__
    if name != "SD3Transformer2DModel" or config.in_channels != parts.vae.config.latent_channels:  # type: ignore[union-attr]
        raise BadFile(parts.source, "variant", f"is a {name} of {config.in_channels} channels; only text-to-image ones (16) are loaded.")
    refuse_other_factor(parts, FACTOR, "Stable Diffusion 3")
    return parts


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D): CLIP's states filled up to T5's width, then T5's; "pooled": (B, P): both CLIPs' projections}.

    `clip_skip` counts from CLIP's last but one state, as in diffusers.
    """
    import torch

    outputs = [clip_outputs(parts.tokenizers[tokenizer], parts.text_encoders[encoder], prompts) for tokenizer, encoder in CLIPS.items()]
    states = [
        penultimate_state(out, parts.text_encoders[encoder], clip_skip=clip_skip)
        for out, encoder in zip(outputs, CLIPS.values(), strict=True)
    ]
    clip, t5 = torch.cat(states, dim=-1), _t5_states(parts, prompts, like=states[0])
    clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    return {"embeds": torch.cat([clip, t5], dim=-2), "pooled": torch.cat([out.text_embeds for out in outputs], dim=-1)}


def _t5_states(parts: Parts, prompts: Sequence[str], *, like: Tensor) -> Tensor:
    """(B, T, D) of T5, its padding attended; zeros where there is none."""
    if "text_encoder_3" not in parts.text_encoders:
        config: Any = parts.denoiser.config
        return like.new_zeros(len(prompts), T5_TOKENS, config.joint_attention_dim)
    encoder: Any = parts.text_encoders["text_encoder_3"]
    ids = parts.tokenizers["tokenizer_3"](
        list(prompts), padding="max_length", max_length=_t5_tokens(parts), truncation=True, return_tensors="pt"
    ).input_ids
    return encoder(ids.to(encoder.device))[0]  # type: ignore[no-any-return]  # transformers is untyped


def _t5_tokens(parts: Parts) -> int:
    return min(T5_TOKENS, int(parts.tokenizers["tokenizer_3"].model_max_length))


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(T5 tokens the prompt needs with its mark, tokens that fit), whose states reach past CLIP's 77; without T5, CLIP's own count."""
    if "tokenizer_3" in parts.tokenizers:
        return len(parts.tokenizers["tokenizer_3"](prompt, truncation=False, verbose=False).input_ids), _t5_tokens(parts)
    return count_tokens(parts.tokenizers["tokenizer"], parts.text_encoders["text_encoder"], prompt)


# --- denoising


def largest_side(parts: Parts) -> int:
    """Pixels a side of the transformer's position table."""
    config: Any = parts.denoiser.config
    return int(config.pos_embed_max_size * config.patch_size * parts.latent_factor)


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000, handed on as they are.

    `control` is of registry/architectures/transformer/sd3_control.py: a residual for each block.
    """
    return parts.denoiser(  # type: ignore[no-any-return]  # diffusers is untyped
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=conditioning["embeds"],
        pooled_projections=conditioning["pooled"],
        **block_residuals(control),
        return_dict=False,
    )[0]


def mu_of_size(config: Mapping[str, Any], *, height: int, width: int, steps: int) -> float:
    """The linear mu of the image's tokens, with this family's end of it."""
    return linear_mu({"max_shift": MAX_SHIFT, **config}, tokens=packed_tokens(height, width, factor=FACTOR))


def set_timesteps(scheduler: Any, steps: int, *, height: int, width: int) -> None:
    """The scheduler's own timesteps, which begin at its shifted ends; shifted by the number of tokens where the scheduler does that."""
    options: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting", False) and "mu" in inspect.signature(scheduler.set_timesteps).parameters:
        options["mu"] = mu_of_size(scheduler.config, height=height, width=width, steps=steps)
    scheduler.set_timesteps(steps, **options)
    scheduler.set_begin_index(0)


def architecture(parts: Parts) -> str:
    """ModelSpec's id of the build, by its blocks."""
    config: Any = parts.denoiser.config
    if config.dual_attention_layers:
        return "stable-diffusion-v3.5-medium"
    return "stable-diffusion-v3.5-large" if config.num_layers == 38 else "stable-diffusion-v3-medium"


# --- adapters


def lora_state(path: Path | str, parts: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The file's LoRA in peft keys, and the alphas it carries; fused layers of the original implementation are split.

    diffusers ignores files in kohya's names without a warning; here every tensor is mapped or the file is refused.
    """
    return read_lora(path, parts, denoiser="transformer", originals=originals_in(parts.denoiser, LAYERS))


FAMILIES.add("sd3")(
    Family(
        name="sd3",
        title="Stable Diffusion 3",
        pipeline="StableDiffusion3Pipeline",
        text_encoders=(*CLIPS.values(), "text_encoder_3"),
        tokenizers=(*CLIPS, "tokenizer_3"),
        aliases=Aliases(modelspec=("stable-diffusion-v3", "stable-diffusion-3"), base_version=("sd3",), civitai=("sd 3",)),
        one_chunk="CLIP's states lie before T5's, which reads the whole prompt",
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=28,
        guidance=7.0,
        few_steps=(FewStep(title="Stable Diffusion 3.5 Turbo", word="turbo", steps=4, guidance=0.0, instead="Stable Diffusion 3.5 Large"),),
        lora_presets={
            "attention": JOINT_ATTENTION,
            "attention_mlp": rf"transformer_blocks\.\d+\.({_ALL_ATTENTION}|{_MLP})",
            "modulation": rf"transformer_blocks\.\d+\.({_ALL_ATTENTION}|{_MLP}|{_MODULATION})",
        },
        architecture=architecture,
        timestep_sampling="logit_normal",
        file_names=WholeFile(),
        learning_encoders={"text_encoder": None, "text_encoder_2": None},  # T5 is a language model
        clip_layer=2,
        adapter_names=AdapterNames(
            layers=LAYERS,
            encoders={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"},
            base_version="sd3",
        ),
        vae_channels=16,
        recognise_checkpoint=partial(claim_checkpoint, SIGNATURE),
        recognise_adapter=partial(claim_adapter, SIGNATURE),
        may_be_adapter=partial(has_names_of, SIGNATURE),
        load=load,
        encode_prompts=encode_prompts,
        encode_unconditional=encoding_of_empty(encode_prompts),
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        largest_side=largest_side,
        predict=predict,
        mu=mu_of_size,
        set_timesteps=set_timesteps,
        lora_state=lora_state,
        control=sd3_control(),
    )
)
