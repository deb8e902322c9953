"""FLUX.2: 128-channel latents (2 x 2 cells of its VAE in one, normalised by a batch norm's statistics), and a language model for text.

Two kinds of builds: dev has its guidance embedded and Mistral's states, klein has classifier-free guidance and Qwen3's, unless it is
distilled: then it has neither. The states of three layers of the language model are concatenated; its padding is attended.
"""

# B batch, C channels, H W latent size (pixels / 16), T text tokens, D width

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import refuse_clip_skip
from registry.architectures.text.llm import chat_texts, count_text_tokens, hidden_states
from registry.architectures.transformer.flow_schedule import even_sigmas
from registry.architectures.transformer.model import refuse_control, same_guidance, transformer_loader
from registry.architectures.transformer.packing import position_ids
from registry.detect.few_step import FewStep
from registry.detect.name_kinds import NameKinds
from registry.errors import BadFile
from registry.family import FAMILIES, Family
from registry.family_defaults import complete_with_guidance, encoding_of_empty, guided_above_one
from registry.formats.layers import AdapterNames, Layer, every
from registry.formats.model_header import ModelHeader, TensorNames
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Posterior, Residuals
from registry.signature import Shape, Signature, Width, bare, claim_adapter, claim_checkpoint, has_names_of

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 16  # pixels a latent cell: 8 of the VAE, and 2 x 2 cells in one
TEXT_TOKENS = 512  # of the template with the prompt in it; padding included, which is attended
LAYERS_READ = {"Mistral3ForConditionalGeneration": (10, 20, 30), "Qwen3ForCausalLM": (9, 18, 27)}  # 0 is the embeddings
LAYERS_SETTING = "text_encoder_out_layers"  # the pipelines' argument, here a key of model_index.json for other encoders
NO_CONTROL = "diffusers has no ControlNet for FLUX.2, whose transformer takes no residuals"

# --- its names

SIZES = {6144: "dev", 3072: "klein-4b", 4096: "klein-9b"}  # width of the transformer -> build
BLOCK, SINGLE = r"^transformer_blocks[._]\d+[._]", r"^single_transformer_blocks[._]\d+[._]"
JOINT = rf"{BLOCK}attn[._](to_[qkv]|add_[qkv]_proj)$"
SIGNATURE = Signature(
    family="flux2",
    keys=("(single_stream_modulation.lin|single_stream_modulation.linear).weight",),
    variants=(
        Shape(key="double_stream_modulation_img.(lin|linear).weight", axis=0, means={6 * width: build for width, build in SIZES.items()}),
    ),
    prediction="flow",
    pipelines="Flux2.*",
    adapter=(
        (rf"{SINGLE}attn[._]to_qkv_mlp_proj",),
        (rf"{BLOCK}ff(_context)?[._]linear_(in|out)",),
        (r"_stream_modulation(_img|_txt)?[._]lin",),
    ),
    adapter_shared=((JOINT,), (r"^double_blocks[._]\d+[._](img|txt)_attn[._]qkv$",), (r"^single_blocks[._]\d+[._]linear1$",)),
    adapter_absent=(
        rf"{BLOCK}(ff|img_mlp|txt_mlp|ff_context)[._](net|gate)",
        rf"{BLOCK}attn[._]to_gate",
        r"^single_transformer_blocks.*(proj_mlp|to_k$)",
        r"token_refiner",
    ),
    adapter_widths=(
        Width(module=rf"{SINGLE}attn[._]to_qkv_mlp_proj", means=SIZES),
        Width(module=rf"{BLOCK}ff(_context)?[._]linear_in$", means=SIZES),
        Width(module=JOINT, means=SIZES),
        Width(
            module=r"^(double_blocks[._]\d+[._](img|txt)_attn[._]qkv|single_blocks[._]\d+[._]linear1)$",
            means=SIZES,
        ),
        # separates klein-4b from FLUX.1, which is as wide: its outputs are 3 + 4 and 4 times the width
        Width(module=r"^single_blocks[._]\d+[._]linear1$", means={9 * width: build for width, build in SIZES.items()}, output=True),
        Width(
            module=r"^double_blocks[._]\d+[._](img|txt)_mlp[._]0$", means={6 * width: build for width, build in SIZES.items()}, output=True
        ),
    ),
    adapter_blocks={"transformer_blocks": 8, "single_transformer_blocks": 48, "double_blocks": 8, "single_blocks": 48},
)
HEIGHTS = tuple(  # of layers that FLUX.1 names alike: rows to columns; FLUX.1 has 4:1, 1:4, 7:1 and 1:5
    (re.compile(pattern), high, wide)
    for pattern, high, wide in (
        (r"double_blocks[._]\d+[._](img|txt)_mlp[._]0$", 6, 1),
        (r"double_blocks[._]\d+[._](img|txt)_mlp[._]2$", 1, 3),
        (r"single_blocks[._]\d+[._]linear1$", 9, 1),
        (r"single_blocks[._]\d+[._]linear2$", 1, 4),
    )
)
OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
}
INNER: Mapping[str, tuple[str, ...]] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
LAYERS: tuple[Layer, ...] = (
    *(Layer(original_key, (diffusers_key,)) for original_key, diffusers_key in OUTER.items()),
    Layer("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
    *(
        Layer(f"double_blocks.*.{original_key}", every("transformer_blocks.*.", diffusers_key))
        for original_key, diffusers_key in INNER.items()
    ),
    Layer("single_blocks.*.linear1", ("single_transformer_blocks.*.attn.to_qkv_mlp_proj",)),
    Layer("single_blocks.*.linear2", ("single_transformer_blocks.*.attn.to_out",)),
)
_NAMES = AdapterNames(layers=LAYERS, base_version="flux2")
FILE_NAMES = FileNames(
    title="FLUX.2",
    class_name="Flux2Transformer2DModel",
    diffusers_key="single_stream_modulation.linear.weight",
    original_key="single_stream_modulation.lin.weight",
    layers=LAYERS,
    implementation="https://github.com/black-forest-labs/flux2",
    others={
        **{
            f"transformer_blocks.*.attn.{diffusers_key}.weight": f"double_blocks.*.{original_key}.scale"
            for diffusers_key, original_key in {
                "norm_q": "img_attn.norm.query_norm",
                "norm_k": "img_attn.norm.key_norm",
                "norm_added_q": "txt_attn.norm.query_norm",
                "norm_added_k": "txt_attn.norm.key_norm",
            }.items()
        },
        "single_transformer_blocks.*.attn.norm_q.weight": "single_blocks.*.norm.query_norm.scale",
        "single_transformer_blocks.*.attn.norm_k.weight": "single_blocks.*.norm.key_norm.scale",
    },
)
_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
_MLP = rf"{_SINGLE}|{_DOUBLE}(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.linear_(in|out))"
PRESETS = {
    "attention": rf"{_SINGLE}|{_DOUBLE}attn\.(to_[qkv]|to_out\.0)",  # the single blocks fuse their first MLP layer with q, k and v
    "attention_mlp": _MLP,
    "modulation": rf"{_MLP}|(double_stream_modulation_(img|txt)|single_stream_modulation)\.linear|x_embedder|context_embedder",
}


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by its class, on a single file by the modulation that all blocks share."""
    match = claim_checkpoint(SIGNATURE, header)
    if match is None:
        return None
    if header.is_folder:
        dev = bool(header.configs.get("transformer", {}).get("guidance_embeds"))
    else:
        names = header.cached(bare)
        dev = any(name in names for name in ("guidance_in.in_layer.weight", "time_guidance_embed.guidance_embedder.linear_1.weight"))
    if match.variant == "dev" or (match.variant is None and dev):  # by its width, else by the guidance that only dev has
        return replace(match, variant="dev")
    base = "-base" if header.is_folder and not header.index.get("is_distilled") else ""
    return replace(match, variant=f"klein{base}{(match.variant or '').removeprefix('klein')}")


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim by names, widths and heights of its layers, and by what the file declares, which can name a build that no width shows."""
    claims = [claim for claim in (_claim_by_heights(header), claim_adapter(SIGNATURE, header)) if claim is not None]
    match = max(claims, key=lambda claim: claim.score, default=None)
    declared = _declared(header)
    if declared is None or (match is None and not header.names.cached(_all_known)):
        return match
    entry, build = declared
    variant = (match.variant if match else None) or build
    evidence = (*(match.evidence if match else ()), entry)
    return Match(score=0.99, evidence=evidence, variant=variant, prediction="flow", prediction_source="the family")


def has_its_names(names: TensorNames) -> bool:
    """Whether the names of an adapter's modules are FLUX.2's, and those of others with the same names."""
    return bool(names.cached(_fused)) or has_names_of(SIGNATURE, names) or names.cached(_all_known)


def _all_known(names: TensorNames) -> bool:
    """Whether every layer of an adapter has a name of FLUX.2's."""
    return bool(names.modules) and all(map(_is_known, names.modules))


@lru_cache(maxsize=16384)  # files of one family share their names
def _is_known(module: str) -> bool:
    return _NAMES.denoiser.find(module) is not None


DECLARED = re.compile(r"flux[-._ ]?2[-._ ]*(?P<build>dev|klein(?:[-_]base)?(?P<size>[-_]\d+b)?)?")


def _declared(header: ModelHeader) -> tuple[str, str | None] | None:
    """(the entry that declares FLUX.2, its build or None); None where none does; adapters of klein's base are klein's."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        value = header.metadata.get(key, "").strip().lower()
        if found := DECLARED.match(value):
            build = found["build"]
            return f"{key} {value!r}", f"klein{(found['size'] or '').replace('_', '-')}" if build and build != "dev" else build
    return None


def _claim_by_heights(header: ModelHeader) -> Match | None:
    """Matches an adapter in the original implementation's names (FLUX.1 shares them) by layer sizes that only FLUX.2 has."""
    for module, high, wide in header.names.cached(_fused):
        size = header.layer_size(module)
        if size.out and size.into and size.out * wide == size.into * high:
            evidence = (f"module {module}", f"{module} takes {size.into} and gives {size.out}")
            variant = SIZES.get(min(size.out, size.into))
            return Match(score=0.92, evidence=evidence, variant=variant, prediction="flow", prediction_source="the family")
    return None


def _fused(names: TensorNames) -> list[tuple[str, int, int]]:
    """(module, height, width in FLUX.2) of the modules whose name has one of HEIGHTS, in the file's order."""
    if not any(HIGH.distinct(names.modules)):
        return []
    return [(module, high, wide) for module in names.modules for high, wide in _heights(module)]


def _heights(module: str) -> tuple[tuple[int, int], ...]:
    return tuple((high, wide) for pattern, high, wide in HEIGHTS if pattern.search(module))


HIGH = NameKinds(_heights)


def architecture_of(parts: Parts) -> str:
    """flux-2-dev, flux-2-klein-4b, ...: adapters of klein are for its base and its distilled build alike."""
    config: Any = parts.denoiser.config
    if config.guidance_embeds:
        return "flux-2-dev"
    size = SIZES.get(config.num_attention_heads * config.attention_head_dim, "")
    return f"flux-2-klein{size.removeprefix('klein') if size.startswith('klein') else ''}"


def same_build(adapter: str, base: str) -> bool:
    """Whether two builds differ at most in distillation, or in a size that one of them does not state."""
    mine, its = adapter.replace("klein-base", "klein"), base.replace("klein-base", "klein")
    return mine.startswith(its) or its.startswith(mine)


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts with the layers that are read of the encoder settled; refused where transformer, VAE and encoder do not go together."""
    transformer: Any = parts.denoiser.config
    vae: Any = parts.vae.config
    if type(parts.denoiser).__name__ != "Flux2Transformer2DModel" or transformer.in_channels != 4 * vae.latent_channels:
        raise BadFile(
            parts.source,
            "variant",
            f"has a {type(parts.denoiser).__name__} of {transformer.in_channels} channels over a VAE of {vae.latent_channels}; "
            "only FLUX.2's text-to-image one (4 x the VAE's) is loaded.",
        )
    if 2 * parts.latent_factor != FACTOR:
        raise BadFile(parts.source, "variant", f"has a VAE of {parts.latent_factor} pixels a cell; FLUX.2 has {FACTOR // 2}.")
    if getattr(parts.tokenizers["tokenizer"], "chat_template", None) is None:
        raise BadFile(parts.source, "tokenizer", "has a tokenizer without a chat template. Copy the tokenizer's whole folder again.")
    parts.latent_factor = FACTOR
    parts.latent_channels = transformer.in_channels
    layers = _settled_layers(parts, int(transformer.joint_attention_dim))
    parts.config = {**parts.config, LAYERS_SETTING: layers}
    if not transformer.guidance_embeds and parts.config.get("is_distilled"):
        parts.warnings = (*parts.warnings, "This build (distilled klein) has no guidance: `guidance` has no effect on it.")
    return parts


def _settled_layers(parts: Parts, width: int) -> tuple[int, ...]:
    """The layers to read: those of model_index.json, else the published model's, else (in an encoder of few layers) the last ones.

    Raises BadFile where they are not there, or together not as wide as the transformer reads.
    """
    encoder: Any = parts.text_encoders["text_encoder"]
    config = getattr(encoder.config, "text_config", encoder.config)
    setting = parts.config.get(LAYERS_SETTING)
    layers = tuple(setting) if setting is not None else LAYERS_READ.get(type(encoder).__name__, ())
    if setting is None and (not layers or max(layers) > config.num_hidden_layers):
        count = width // config.hidden_size
        layers = tuple(range(config.num_hidden_layers - count + 1, config.num_hidden_layers + 1))
        parts.warnings = (
            *parts.warnings,
            f"The text encoder has {config.num_hidden_layers} layers, unlike any published build's: layers {list(layers)} are read "
            f"(assumed). A list {LAYERS_SETTING!r} in model_index.json settles it.",
        )
    if not all(0 <= layer <= config.num_hidden_layers for layer in layers) or len(layers) * config.hidden_size != width:
        raise BadFile(
            parts.source,
            "wrong-config",
            f"reads layers {list(layers)} of a text encoder with {config.num_hidden_layers} layers {config.hidden_size} wide; "
            f"its transformer takes {width}. Set {LAYERS_SETTING!r} in model_index.json.",
        )
    return layers


load = transformer_loader(
    FILE_NAMES,
    lacks="FLUX.2's language model and its tokenizer",
    folder="the same build (dev, or klein of the same size)",
    check=same_guidance(embedded="dev", without="klein"),
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, 512, D)}: three layers of the language model side by side, padding with them."""
    import torch

    refuse_clip_skip(clip_skip, "FLUX.2 has no CLIP")
    tokens = parts.tokenizers["tokenizer"](
        _texts(parts, prompts),
        padding="max_length",
        max_length=TEXT_TOKENS,
        truncation=True,
        add_special_tokens=_adds_marks(parts),
        return_tensors="pt",
    )
    states = hidden_states(parts.text_encoders["text_encoder"], tokens.input_ids, tokens.attention_mask, logits_to_keep=1)
    return {"embeds": torch.cat([states[layer] for layer in parts.config[LAYERS_SETTING]], dim=-1)}


def _texts(parts: Parts, prompts: Sequence[str]) -> list[str]:
    """Each prompt in the chat template, as the build's pipeline fills it; the prompts stay as they are."""
    tokenizer = parts.tokenizers["tokenizer"]
    if not _is_mistral(parts):
        return chat_texts(tokenizer, prompts, enable_thinking=False)
    from diffusers.pipelines.flux2.pipeline_flux2 import SYSTEM_MESSAGE, format_input

    return [
        tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=False)
        for one in format_input(list(prompts), SYSTEM_MESSAGE)
    ]


def _is_mistral(parts: Parts) -> bool:
    return type(parts.text_encoders["text_encoder"]).__name__.startswith("Mistral")


def _adds_marks(parts: Parts) -> bool:
    """Whether the tokenizer adds its own marks: Mistral's template has them."""
    return not _is_mistral(parts)


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(tokens of the template with the prompt in it, 512)."""
    (text,) = _texts(parts, [prompt])
    return count_text_tokens(parts.tokenizers["tokenizer"], text, marks=_adds_marks(parts)), TEXT_TOKENS


# --- images


def encode_images(parts: Parts, pixels: Tensor) -> Posterior:
    """The mode of pixels (B, 3, h, w) in [-1, 1], which is what FLUX.2 was trained on: latents (B, 128, h/16, w/16), no deviation."""
    vae: Any = parts.vae
    mean = _in_one(vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode())
    middle, spread = _statistics(vae, mean)
    return Posterior((mean - middle) / spread, None)


def decode(parts: Parts, latents: Tensor) -> Tensor:
    """Pixels (B, 3, h, w), nominally in [-1, 1], of latents (B, 128, H, W)."""
    vae: Any = parts.vae
    latents = latents.to(vae.device, vae.dtype)
    middle, spread = _statistics(vae, latents)
    return vae.decode(_apart(latents * spread + middle), return_dict=False)[0]  # type: ignore[no-any-return]  # diffusers is untyped


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel (1, 128, 1, 1): the running ones of the VAE's batch norm."""
    middle, variance = (value.view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    return middle.to(like), (variance + vae.config.batch_norm_eps).sqrt().to(like)


def _in_one(latents: Tensor) -> Tensor:
    """(B, C, 2H, 2W) -> (B, 4C, H, W): 2 x 2 cells become one of four times the channels."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def _apart(latents: Tensor) -> Tensor:
    """(B, 4C, H, W) -> (B, C, 2H, 2W)."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 128, H, W); `timesteps` (B,) in 0..1000. Takes no `control`."""
    import torch

    refuse_control(control, NO_CONTROL)
    config: Any = parts.denoiser.config
    embeds = conditioning["embeds"]
    text = torch.zeros(embeds.shape[1], 4, device=noisy.device)  # in float32: 512 places are too many for bf16
    text[:, 3] = torch.arange(embeds.shape[1], device=noisy.device)
    velocity = parts.denoiser(
        hidden_states=noisy.flatten(2).transpose(1, 2),  # (B, HW, 128)
        timestep=timesteps.to(noisy.dtype) / 1000,  # cast first, then divided, as the pipeline does it: bf16 rounds 826.06 to 828
        guidance=conditioning["guidance"] if config.guidance_embeds else None,  # left out, a dev build would answer all the same
        encoder_hidden_states=embeds,
        txt_ids=text,
        img_ids=position_ids(noisy.shape[-2], noisy.shape[-1], like=text, axes=4),
        return_dict=False,
    )[0]
    return velocity.transpose(1, 2).reshape(noisy.shape)  # type: ignore[no-any-return]  # diffusers is untyped


def mu_of_size(config: Mapping[str, Any], *, height: int, width: int, steps: int) -> float:
    """mu by the image's token count and the number of steps; the scheduler's config plays no part."""
    return empirical_mu((height // FACTOR) * (width // FACTOR), steps=steps)


def empirical_mu(tokens: int, *, steps: int) -> float:
    """mu of the time shift, as Black Forest Labs fitted it at 10 and at 200 steps; above 4300 tokens the steps play no part."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190
    return slope * steps + at_200 - 200 * slope


def classifier_free(parts: Parts) -> bool:
    """Whether this is a klein that is not distilled."""
    config: Any = parts.denoiser.config
    return not config.guidance_embeds and not parts.config.get("is_distilled", False)


def guided(parts: Parts, guidance: float, *, negative: bool) -> bool:
    """diffusers' usual rule where the build has an unconditional pass."""
    return classifier_free(parts) and guided_above_one(parts, guidance, negative=negative)


FAMILIES.add("flux2")(
    Family(
        name="flux2",
        title="FLUX.2",
        pipeline="Flux2Pipeline",
        aliases=Aliases(modelspec=("flux-2", "flux.2"), base_version=("flux2",), civitai=("flux.2",)),
        latent_channels=128,
        latent_factor=FACTOR,
        size_multiple=FACTOR,
        resolution=1024,
        steps=50,
        guidance=4.0,
        few_steps=(
            FewStep(
                title="FLUX.2 klein, distilled",
                variants=("klein", "klein-4b", "klein-9b"),
                unless="base",  # a single file of the base build has the same tensors
                steps=4,
                guidance=1.0,
                instead="the FLUX.2 klein base build of the same size",
            ),
        ),
        lora_presets=PRESETS,
        architecture=architecture_of,
        inpaint_strength=0.8,
        same_build=same_build,
        file_names=FILE_NAMES,
        adapter_names=_NAMES,
        training_guidance=1.0,
        vae_channels=32,
        recognise_checkpoint=recognise_checkpoint,
        recognise_adapter=recognise_adapter,
        may_be_adapter=has_its_names,
        load=load,
        encode_prompts=encode_prompts,
        encode_unconditional=encoding_of_empty(encode_prompts),
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        complete=complete_with_guidance,
        predict=predict,
        mu=mu_of_size,
        set_timesteps=even_sigmas(mu_of_size),
        lora_state=partial(transformer_lora, layers=LAYERS),
        classifier_free=classifier_free,
        guided=guided,
        control=NO_CONTROL,
    )
)
