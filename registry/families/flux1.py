"""FLUX.1: a transformer with flow matching, packed latents of sixteen channels, CLIP's pooled state and T5's states.

Two builds: dev has its guidance embedded and a shift by resolution, schnell has neither; both are read from the record.
T5's padding is attended without a mask, so the text length is part of the result: 512 tokens in dev, 256 in schnell.
"""

# B batch, C channels, H W latent size, N packed tokens (H/2 * W/2), T text tokens, D width

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.adapters.peft_state import transformer_lora
from registry.aliases import Aliases
from registry.architectures.text.clip import clip_outputs, refuse_clip_skip
from registry.architectures.transformer.flow_schedule import even_sigmas, mu_of_size
from registry.architectures.transformer.flux_control import block_residuals, flux_control
from registry.architectures.transformer.flux_names import FLUX_LAYERS, NORMS
from registry.architectures.transformer.model import JOINT_ATTENTION, refuse_other_factor, same_guidance, transformer_loader
from registry.architectures.transformer.packing import pack, position_ids, unpack
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.detect.name_kinds import NameKinds
from registry.errors import BadFile
from registry.family import FAMILIES, Family
from registry.family_defaults import complete_with_guidance, encoding_of_empty, never_classifier_free, never_guided
from registry.formats.diffusers_folder import prediction_of
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader, TensorNames
from registry.formats.transformer_file import FileNames
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.signature import bare

if TYPE_CHECKING:
    from torch import Tensor

PIPELINES = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
SPECIAL = ("FluxFillPipeline", "FluxControlPipeline", "FluxKontextPipeline")
WIDTH = 3072  # of the published transformer
FACTOR = 8  # pixels a latent cell
TEXT_TOKENS = {True: 512, False: 256}  # T5's length with (dev) and without (schnell) embedded guidance
KEY_NORM = "double_blocks.0.img_attn.norm.key_norm.scale"

FILE_NAMES = FileNames(
    title="FLUX.1",
    class_name="FluxTransformer2DModel",
    diffusers_key="transformer_blocks.0.attn.to_q.weight",
    original_key="double_blocks.0.img_attn.qkv.weight",
    layers=FLUX_LAYERS,
    others=NORMS,
    implementation="https://github.com/black-forest-labs/flux",
)

# peft takes a list entry for an ending, and `proj_out` is also the name of the last layer: the wider presets are expressions
_BLOCK = r"(single_)?transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
_MLP = r"ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out"
_MODULATION = r"norm(1|1_context)?\.linear"


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by class and config, on a single file by Black Forest Labs' or diffusers' names."""
    if header.is_folder:
        return _recognise_folder(header)
    names = header.cached(bare)
    guided = next((mark for mark in GUIDED if mark in names), None)
    if any(name in names for name in NOT_FLUX1):
        return None
    if KEY_NORM in names:
        evidence, entry = [KEY_NORM], names.get("img_in.weight")
    elif all(name in names for name in DIFFUSERS_MARKS) and names["context_embedder.weight"].shape[1:] == (4096,):
        evidence, entry = [DIFFUSERS_MARKS[0], "context_embedder takes 4096"], names["x_embedder.weight"]
    else:
        return None
    channels = entry.shape[1] if entry is not None and len(entry.shape) == 2 else 64
    return Match(
        score=0.95,
        evidence=(*evidence, f"{guided} present" if guided else "no embedded guidance"),
        variant={384: "fill", 128: "control"}.get(channels) or ("dev" if guided else "schnell"),
        prediction="flow",
        prediction_source="the family",
    )


GUIDED = ("guidance_in.in_layer.bias", "guidance_in.in_layer.weight", "time_text_embed.guidance_embedder.linear_1.weight")
NOT_FLUX1 = (
    "distilled_guidance_layer.in_proj.bias",
    "single_stream_modulation.lin.weight",
    "txt_in.individual_token_refiner.blocks.0.norm1.weight",
)
DIFFUSERS_MARKS = (
    "single_transformer_blocks.0.proj_mlp.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "context_embedder.weight",
    "x_embedder.weight",
)


def _recognise_folder(header: ModelHeader) -> Match | None:
    class_name = header.index.get("_class_name")
    entry = header.index.get("transformer")
    if class_name not in (*PIPELINES, *SPECIAL) or not isinstance(entry, (list, tuple)) or entry[1] != "FluxTransformer2DModel":
        return None
    transformer, scheduler = header.configs.get("transformer", {}), header.configs.get("scheduler")
    channels = transformer.get("in_channels", 64)
    variant = {384: "fill", 128: "control"}.get(channels) or ("dev" if transformer.get("guidance_embeds") else "schnell")
    scheduler_class = header.index["scheduler"][1] if isinstance(header.index.get("scheduler"), (list, tuple)) else ""
    return Match(
        score=0.95,
        evidence=(f"model_index.json: {class_name}", f"transformer.guidance_embeds {bool(transformer.get('guidance_embeds'))}"),
        variant=variant,
        prediction=prediction_of(scheduler_class or "", scheduler) if scheduler is not None else "flow",
        prediction_source="scheduler/scheduler_config.json" if scheduler is not None else "the family",
    )


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim on an adapter by the names of FLUX.1's double and single blocks and their width."""
    marks = header.names.cached(_marks)
    if not marks:
        return None
    sizes = {module: header.layer_size(module) for module, mark in marks.items() if mark.reads or mark.fused}
    widths = {width for module, size in sizes.items() if marks[module].reads and (width := size.into or size.flat)}
    width = next(iter(widths)) if len(widths) == 1 else WIDTH  # a small build is as wide as what reads its states
    outs = {size.out // width for module, size in sizes.items() if marks[module].fused and size.out}
    if outs - {4, 7}:  # img_mlp.0 gives 4 widths and linear1 3 + 4; FLUX.2 of the same width gives 6 and 9
        return None
    names = "double_blocks and single_blocks" if any(mark.place == "double" for mark in marks.values()) else "single_transformer_blocks"
    if widths == {WIDTH}:
        return Match(score=0.95, evidence=(names, f"{WIDTH} wide"), alike=header.names.cached(_alike))
    declared = header.metadata.get("modelspec.architecture", "").lower()
    if declared.startswith("flux-1"):
        return Match(score=0.9, evidence=(names, f"modelspec.architecture {declared!r}"))
    return Match(score=0.6, evidence=(names, f"widths {sorted(widths)}"))


def has_its_names(names: TensorNames) -> bool:
    """Whether the names of an adapter's modules are FLUX.1's, and those of others with the same names."""
    return bool(names.cached(_marks))


def _marks(names: TensorNames) -> dict[str, _Mark]:
    """What the name of each module shows; {} where the names are not FLUX.1's, or there are more blocks than it has."""
    kinds = MARKS.of(names.modules)
    marks = [kind.value for kind in dict.fromkeys(kinds)]
    places = {mark.place for mark in marks}
    if "foreign" in places or not places & {"double", "diffusers"}:
        return {}
    whole = all(mark.number < BLOCKS.get(mark.stack, mark.number + 1) for mark in marks)
    return {module: kind.value for module, kind in zip(names.modules, kinds, strict=True)} if whole else {}


def _alike(names: TensorNames) -> tuple[str, ...]:
    """Other families whose layers of these names have the same sizes: no tensor shows which of them the adapter is for."""
    keys, marks = (names.keys or {}).values(), names.cached(_marks)
    if any(key.component == "text_encoder" or key.spelling == "xlabs" for key in keys):  # CLIP; XLabs trained for FLUX.1 alone
        return ()
    found = []
    if not any(OWN.search(module) for module in marks):
        found.append("chroma")
    highest = {mark.stack: mark.number for mark in sorted(marks.values(), key=lambda mark: mark.number)}
    whole = any(highest.get(stack) == blocks - 1 for stack, blocks in BLOCKS.items())  # HunyuanVideo has 20 and 40 of them
    if not whole and all(map(HUNYUAN.search, marks)):
        found.append("hunyuan_video")
    if all(map(DOUBLE_ATTENTION.search, marks)) and max(highest.values()) < KLEIN_DOUBLE_BLOCKS:
        found.append("flux2")
    return tuple(sorted(found))


KLEIN_DOUBLE_BLOCKS = 5  # of FLUX.2 klein 4B, which is as wide as FLUX.1
DOUBLE_ATTENTION = re.compile(r"^double_blocks[._]\d+[._](img|txt)_attn[._](qkv|proj)$")
HUNYUAN = re.compile(r"_attn[._](qkv|proj)$|^single_blocks[._]\d+[._]linear[12]$|transformer_blocks[._]\d+[._]")
OWN = re.compile(  # of what Chroma has no layers for: embeddings of the time, guidance and pooled text, a modulation in each block
    r"(img|txt)_mod[._]|modulation|_in[._](in|out)_layer|^(img|txt)_in$|embed|norm1?(_context)?[._]linear|norm_out"
)


class _Mark(NamedTuple):
    """What the name of one module shows."""

    place: str | None  # foreign (of a family with like names), double (Black Forest Labs' names), diffusers
    reads: bool  # of a layer whose input is as wide as the transformer
    fused: bool  # of a layer whose output width differs between FLUX.1 and FLUX.2
    stack: str
    number: int  # of its block


BLOCKS = {"transformer_blocks": 19, "single_transformer_blocks": 38, "double_blocks": 19, "single_blocks": 38}
FOREIGN = re.compile(
    r"to_qkv_mlp_proj|double_stream_modulation|distilled_guidance|img_mlp\.net|transformer_blocks[._]\d+[._]ff[._]linear_in"
    r"|joint_transformer_blocks|token_refiner|double_blocks\.\d+\.(img|txt)_attn_|_mlp[._]fc[12]|text_fusion"
)
DOUBLE = re.compile(r"double_blocks[._]\d+[._](img|txt)_attn|single_blocks[._]\d+[._]linear")
READS = re.compile(r"img_attn[._]qkv|linear1$|attn[._]to_[qkv]$|add_[qkv]_proj")
FUSED = re.compile(r"(img|txt)_mlp[._]0$|single_blocks[._]\d+[._]linear1$")
STACK = re.compile(r"((?:[a-z]+_)*blocks)[._](\d+)[._]")


def _mark(module: str) -> _Mark:
    place = "foreign" if FOREIGN.search(module) else "double" if DOUBLE.search(module) else None
    if place is None and "single_transformer_blocks" in module:
        place = "diffusers"
    block = STACK.match(module)
    stack, number = (block[1], int(block[2])) if block else ("", -1)
    return _Mark(place, bool(READS.search(module)), bool(FUSED.search(module)), stack, number)


MARKS = NameKinds(_mark)


# --- loading


def _checked(parts: Parts) -> Parts:
    """The parts, unless the transformer needs inputs this family does not give; the VAE must be the one the packing counts on."""
    config: Any = parts.denoiser.config
    if config.in_channels != 4 * parts.vae.config.latent_channels:  # type: ignore[union-attr, operator]  # diffusers is untyped
        raise BadFile(
            parts.source, "variant", f"takes {config.in_channels} channels (fill or control); only text-to-image ones (64) are loaded."
        )
    refuse_other_factor(parts, FACTOR, "FLUX.1")
    if not config.guidance_embeds:
        parts.warnings = (*parts.warnings, "This build (schnell) has no guidance: `guidance` has no effect on it.")
    return parts


load = transformer_loader(
    FILE_NAMES,
    lacks="FLUX.1's T5 encoder and its tokenizer",
    folder="the same build (dev or schnell)",
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    check=same_guidance(embedded="dev", without="schnell"),
    settle=_checked,
)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D) of T5, "pooled": (B, P) of CLIP}."""
    refuse_clip_skip(clip_skip, "FLUX.1 uses CLIP's pooled state only")
    pooled = clip_outputs(parts.tokenizers["tokenizer"], parts.text_encoders["text_encoder"], prompts).pooler_output
    encoder: Any = parts.text_encoders["text_encoder_2"]
    ids = parts.tokenizers["tokenizer_2"](
        list(prompts), padding="max_length", max_length=_text_tokens(parts), truncation=True, return_tensors="pt"
    ).input_ids
    return {"embeds": encoder(ids.to(encoder.device))[0], "pooled": pooled}


def _text_tokens(parts: Parts) -> int:
    """T5's length: 512 or 256 by build, or what the tokenizer holds where that is less."""
    config: Any = parts.denoiser.config
    return min(TEXT_TOKENS[bool(config.guidance_embeds)], int(parts.tokenizers["tokenizer_2"].model_max_length))


def count_prompt_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
    """(T5 tokens the prompt needs with its mark, tokens that fit); CLIP's own limit cuts only what its pooled state sees."""
    return len(parts.tokenizers["tokenizer_2"](prompt, truncation=False, verbose=False).input_ids), _text_tokens(parts)


# --- denoising


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """The velocity noise - x0 like `noisy` (B, 16, H, W); `timesteps` (B,) in 0..1000.

    `control` is of registry/architectures/transformer/flux_control.py: a residual for each double and each single block.
    """
    embeds = conditioning["embeds"]
    velocity = parts.denoiser(
        hidden_states=pack(noisy),
        timestep=timesteps.to(noisy.dtype) / 1000,  # cast first, then divided, as the pipeline does it: bf16 rounds 826.06 to 828
        guidance=conditioning.get("guidance"),
        pooled_projections=conditioning["pooled"],
        encoder_hidden_states=embeds,
        txt_ids=embeds.new_zeros(embeds.shape[1], 3),
        img_ids=position_ids(noisy.shape[-2] // 2, noisy.shape[-1] // 2, like=noisy),
        **block_residuals(control),
        return_dict=False,
    )[0]
    return unpack(velocity, like=noisy)


FAMILIES.add("flux1")(
    Family(
        name="flux1",
        title="FLUX.1",
        pipeline="FluxPipeline",
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        aliases=Aliases(modelspec=("flux-1", "flux.1"), base_version=("flux1",), civitai=("flux.1",)),
        one_chunk="CLIP gives it a pooled state alone, of the first 77 tokens, and T5 reads the whole prompt",
        latent_channels=16,
        latent_factor=FACTOR,
        size_multiple=16,
        resolution=1024,
        steps=28,
        guidance=3.5,
        few_steps=(
            FewStep(
                title="FLUX.1 schnell",
                variants=("schnell",),
                word="schnell",
                steps=4,
                guidance=0.0,
                instead="FLUX.1-dev",
                training_adapter="ostris/FLUX.1-schnell-training-adapter",
            ),
            FewStep(
                title="a few-step FLUX.1",
                word=r"turbo|lightning|(?<![a-z])(hyper|lcm)(?![a-z])",
                steps=8,
                guidance=3.5,
                instead="FLUX.1-dev",
            ),
        ),
        lora_presets={
            "attention": JOINT_ATTENTION,
            "attention_mlp": rf"{_BLOCK}({_ATTENTION}|{_MLP})",
            "modulation": rf"{_BLOCK}({_ATTENTION}|{_MLP}|{_MODULATION})",
        },
        architecture="flux-1-dev",
        file_names=FILE_NAMES,
        learning_encoders={"text_encoder": None},  # its pooled state; T5 is a language model that no tool loads a LoRA for
        adapter_names=AdapterNames(
            layers=FLUX_LAYERS,
            encoders={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te3_"},
            base_version="flux1",
        ),
        training_guidance=1.0,
        vae_channels=16,
        controlnet_keys=("single_transformer_blocks.",),
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
        lora_state=partial(transformer_lora, layers=FLUX_LAYERS),
        classifier_free=never_classifier_free,
        guided=never_guided,
        control=flux_control(),
    )
)
