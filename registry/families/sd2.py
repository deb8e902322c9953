"""Stable Diffusion 2.x: SD 1's pipeline with OpenCLIP's H text model (23 of its 24 layers) and a UNet of linear projections.

Published for two predictions: v at 768 pixels, epsilon at 512. The scheduler's config says which; a single file of it mostly
does not, and then it is asked for, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.aliases import Aliases
from registry.architectures.text.clip_prompts import count_prompt_tokens, encode_one, weighted_one
from registry.architectures.unet.components import BETAS, heads_of_64, penultimate_open_clip_piece, unet_piece, vae_piece
from registry.architectures.unet.control import unet_control
from registry.architectures.unet.header import declared_unet_family, has_unet_names, unet_adapter, unet_file
from registry.architectures.unet.lora import PRESETS, UNET_LAYERS, unet_lora_state
from registry.architectures.unet.model import CHECKPOINTED, file_match, folder_match, predict, unet_loader
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.errors import Refused
from registry.family import FAMILIES, Family
from registry.family_defaults import encoding_of_empty, scheduler_timesteps, start_by_whole_steps
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader
from registry.formats.single_file import Layout
from registry.parts import Match, Parts

if TYPE_CHECKING:
    pass

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionDepth2ImgPipeline",
)
UNCLIP = ("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline")
WIDTH = 1024  # of OpenCLIP H's text states


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by class and config, on a single file by the LDM names of SD 2.x."""
    return _recognise_folder(header) if header.is_folder else _recognise_single_file(header)


def _recognise_folder(header: ModelHeader) -> Match | None:
    unet, pipeline = header.configs.get("unet", {}), header.index.get("_class_name")
    if pipeline not in (*PIPELINES, *UNCLIP) or not unet.get("use_linear_projection") or unet.get("addition_embed_type") is not None:
        return None  # convolutional projections are SD 1's
    width = unet.get("cross_attention_dim")
    evidence = [f"model_index.json: {pipeline}", "unet: linear projections, no added conditioning"]
    if width == WIDTH:
        evidence.append(f"unet.cross_attention_dim {WIDTH}")
    match = folder_match(header, score=0.95 if width == WIDTH else 0.9, evidence=evidence)
    return replace(match, variant="unclip") if pipeline in UNCLIP else match


def _recognise_single_file(header: ModelHeader) -> Match | None:
    file = unet_file(header)
    if file is None or file.conv_projection or file.text not in (None, "open_clip"):
        return None
    if file.added_width is not None and file.text is None and file.cross_width != WIDTH:
        return None  # SDXL's added vector; unCLIP has one too
    if file.text is None and file.cross_width is None:
        return None
    evidence = ["UNet in LDM names with linear projections"]
    if file.text == "open_clip":
        evidence.append("OpenCLIP text model at cond_stage_model.model")
    if file.cross_width == WIDTH:
        evidence.append(f"attn2.to_k takes {WIDTH}")
    score = 0.95 if file.cross_width == WIDTH else 0.85 if file.text == "open_clip" else 0.6
    match = file_match(header, file, score=score, evidence=evidence)
    return replace(match, variant="unclip") if file.added_width is not None else match


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim on an adapter by the width of the text states it attends to, by its text encoder's, else by what its metadata declare."""
    adapter = unet_adapter(header)
    if adapter is None or "text_encoder_2" in adapter.text_widths or adapter.depth > 0:
        return None
    declared = declared_unet_family(header)
    if adapter.cross_width == WIDTH:
        return Match(score=0.95, evidence=(f"attn2.to_k takes {WIDTH}",))
    if declared is not None:
        return Match(score=0.9, evidence=(declared[1],)) if declared[0] == "sd2" else None
    if adapter.cross_width is not None:
        return None
    if adapter.text_widths.get("text_encoder") == WIDTH:
        return Match(score=0.8, evidence=(f"text encoder {WIDTH} wide",))
    if adapter.unet and not adapter.text_widths:
        return Match(score=0.3, evidence=("UNet layers of one transformer block each; no attn2.to_k or to_v in it",))
    return None


# --- loading


def _unet_constants(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention_head_dim": heads_of_64(sizes), "norm_num_groups": 32}


def _settle(configs: dict[str, dict[str, Any]], prediction: str) -> None:
    """What was published with a prediction: v at 96 cells a side, its attention in float32 (2.1's overflows in half); epsilon at 64."""
    if "addition_embed_type" in configs["unet"]:
        raise Refused(
            "This is an unCLIP build of Stable Diffusion 2, whose UNet takes an image's embedding; only text-to-image ones are loaded."
        )
    v = prediction == "v_prediction"
    configs["unet"] |= {"sample_size": 96 if v else 64, "upcast_attention": v}


def _scheduler(prediction: str, zero_snr: bool) -> tuple[str, dict[str, Any]]:
    """The published schedulers: DDIM of the v models, PNDM of the epsilon ones."""
    settings = {**BETAS, "prediction_type": prediction, "set_alpha_to_one": False}
    if zero_snr:
        return "DDIMScheduler", {**settings, "clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if prediction == "v_prediction":
        return "DDIMScheduler", {**settings, "clip_sample": False}
    return "PNDMScheduler", {**settings, "skip_prk_steps": True}


LAYOUT = Layout(
    pieces=(
        unet_piece(
            sizes=_unet_constants,
            published={"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": WIDTH},
        ),
        vae_piece(scaling_factor=0.18215, sample_size=512),
        penultimate_open_clip_piece(prefix="cond_stage_model.model."),
    ),
    tokenizers={"tokenizer": ("text_encoder", "!")},
    scheduler=_scheduler,
    pipeline={"requires_safety_checker": False},
    settle=_settle,
    assumed_prediction=None,
)


load = unet_loader(LAYOUT)


def architecture(parts: Parts) -> str:
    """ModelSpec's id of the build: by its prediction."""
    return "stable-diffusion-v2-768-v" if parts.prediction == "v_prediction" else "stable-diffusion-v2-512"


FAMILIES.add("sd2")(
    Family(
        name="sd2",
        title="Stable Diffusion 2.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        aliases=Aliases(modelspec=("stable-diffusion-v2",), base_version=("sd_v2",), civitai=("sd 2", "sd2"), entries={"ss_v2": "True"}),
        one_chunk=None,
        latent_channels=4,
        latent_factor=8,
        size_multiple=8,
        resolution=768,
        steps=50,
        guidance=7.5,
        few_steps=(FewStep(title="SD-Turbo", word="turbo", steps=4, guidance=0.0, instead="Stable Diffusion 2.1"),),
        strength=0.8,
        inpaint_strength=1.0,
        predictions=("epsilon", "v_prediction"),
        checkpointed=CHECKPOINTED,
        lora_presets=PRESETS,
        architecture=architecture,
        file_names=LAYOUT,
        learning_encoders={"text_encoder": 0},
        adapter_names=AdapterNames(
            layers=UNET_LAYERS, encoders={"text_encoder": "lora_te_"}, base_version="sd_v2", metadata={"ss_v2": "True"}
        ),
        vae_channels=4,
        cross_attention_dim=WIDTH,
        embedding_dim=WIDTH,
        recognise_checkpoint=recognise_checkpoint,
        recognise_adapter=recognise_adapter,
        may_be_adapter=has_unet_names,
        load=load,
        encode_prompts=encode_one,
        encode_weighted=weighted_one,
        encode_unconditional=encoding_of_empty(encode_one),
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        predict=predict,
        set_timesteps=scheduler_timesteps,
        lora_state=unet_lora_state,
        start_step=start_by_whole_steps,
        control=unet_control(),
    )
)
