"""Stable Diffusion XL base: two CLIP text encoders, a pooled state and the image's size as conditioning, a UNet, four channels."""

# B batch, C channels, H W latent size, T tokens, D width

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.aliases import Aliases
from registry.architectures.text.clip_prompts import count_prompt_tokens, encode_beside, encode_zeros, weighted_beside
from registry.architectures.unet.components import BETAS, clip_piece, heads_of_64, open_clip_piece, unet_piece, vae_piece
from registry.architectures.unet.control import unet_control
from registry.architectures.unet.header import declared_unet_family, has_unet_names, unet_adapter, unet_file
from registry.architectures.unet.lora import PRESETS, UNET_LAYERS, ldm_layers, unet_lora_state
from registry.architectures.unet.model import CHECKPOINTED, file_match, folder_match, predict, unet_loader, with_full_vae
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.family import FAMILIES, Family
from registry.family_defaults import scheduler_timesteps_from_start, start_by_whole_steps
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader
from registry.formats.single_file import Layout
from registry.parts import Conditioning, Match, Parts

if TYPE_CHECKING:
    from torch import Tensor

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
WIDTH = 2048  # of both encoders' states side by side
ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
BLOCKS: Mapping[str, Any] = {  # of the published UNet: what its numbering in the original implementation follows from
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
}
ATTENDED = {"down_blocks.1": 640, "down_blocks.2": 1280, "mid_block": 1280, "up_blocks.0": 1280, "up_blocks.1": 640}  # channels


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by class and config, on a single file by the LDM names of SDXL's base model."""
    return _recognise_folder(header) if header.is_folder else _recognise_single_file(header)


def _recognise_folder(header: ModelHeader) -> Match | None:
    unet = header.configs.get("unet", {})
    if header.index.get("_class_name") not in PIPELINES or unet.get("addition_embed_type") != "text_time":
        return None
    if header.class_of("text_encoder") is None or header.class_of("text_encoder_2") is None:
        return None  # the refiner has the second encoder only
    evidence = (f"model_index.json: {header.index['_class_name']}", "unet.addition_embed_type text_time", "two text encoders")
    return folder_match(header, score=0.95, evidence=evidence)


def _recognise_single_file(header: ModelHeader) -> Match | None:
    file = unet_file(header)
    if file is None or file.added_width is None or file.text not in (None, "embedders"):
        return None
    if file.text is None and file.cross_width != WIDTH:
        return None
    evidence = ["UNet in LDM names with label_emb"]
    if file.text == "embedders":
        evidence.append("two text models at conditioner.embedders")
    if file.cross_width == WIDTH:
        evidence.append(f"attn2.to_k takes {WIDTH}")
    return file_match(header, file, score=0.95 if file.cross_width == WIDTH else 0.85, evidence=evidence)


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim on an adapter by the width it attends to, by its second text encoder, by its depth, else by its metadata."""
    adapter = unet_adapter(header)
    if adapter is None:
        return None
    declared = declared_unet_family(header)
    if adapter.cross_width == WIDTH:
        return Match(score=0.95, evidence=(f"attn2.to_k takes {WIDTH}",))
    if adapter.cross_width in (768, 1024, 1280):  # SD 1, SD 2, the refiner
        return None
    if declared is not None:
        return Match(score=0.9, evidence=(declared[1],)) if declared[0] == "sdxl" else None
    if "text_encoder_2" in adapter.text_widths:
        return Match(score=0.9, evidence=("it has tensors of a second text encoder",))
    if adapter.depth > 0:
        return Match(score=0.8, evidence=(f"transformer block {adapter.depth}: SD 1 and 2 have one a layer",))
    if adapter.unet and not adapter.text_widths:
        what = f"attn2.to_k takes {adapter.cross_width}" if adapter.cross_width else "no attn2.to_k or to_v in it"
        return Match(score=0.3, evidence=(f"UNet layers of one transformer block each; {what}",))
    return None


# --- loading


def _unet_constants(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention_head_dim": heads_of_64(sizes), "norm_num_groups": 32, "sample_size": 128}


def _settle(configs: dict[str, dict[str, Any]], _prediction: str) -> None:
    """The width of one size number's embedding: the added vector holds six of them and the pooled state."""
    added = configs["unet"]["projection_class_embeddings_input_dim"] - configs["text_encoder_2"]["projection_dim"]
    configs["unet"]["addition_time_embed_dim"] = added // 6


def _scheduler(prediction: str, zero_snr: bool) -> tuple[str, dict[str, Any]]:
    """The published scheduler; begun at its last step where the terminal SNR is zero."""
    settings = {**BETAS, "prediction_type": prediction, "interpolation_type": "linear"}
    if zero_snr:
        return "EulerDiscreteScheduler", {**settings, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return "EulerDiscreteScheduler", {**settings, "timestep_spacing": "leading"}


LAYOUT = Layout(
    pieces=(
        unet_piece(
            sizes=_unet_constants,
            published={"block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": WIDTH},
        ),
        vae_piece(scaling_factor=0.13025, sample_size=1024),
        clip_piece(prefix="conditioner.embedders.0.transformer."),
        open_clip_piece(component="text_encoder_2", prefix="conditioner.embedders.1.model."),
    ),
    tokenizers={"tokenizer": ("text_encoder", "<|endoftext|>"), "tokenizer_2": ("text_encoder_2", "!")},
    scheduler=_scheduler,
    pipeline={"force_zeros_for_empty_prompt": True},
    settle=_settle,
)


load = unet_loader(LAYOUT, settle=with_full_vae)


# --- denoising


def complete(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning with "time_ids" (B, 6): original height and width, crop top and left, target height and width."""
    import torch

    embeds = conditioning["embeds"]
    ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=embeds.dtype, device=embeds.device)
    return {**conditioning, "time_ids": ids.repeat(len(embeds), 1)}


def condition_on_crop(conditioning: Conditioning, crops: Tensor) -> Conditioning:
    """The conditioning with each image's own size and crop in its "time_ids", as the training scripts of diffusers and kohya pass them.

    SDXL was trained so (Podell et al. 2023, section 2.2): an enlarged image does not teach blur to images that are drawn large.
    """
    import torch

    ids = conditioning["time_ids"]
    return {**conditioning, "time_ids": torch.cat([crops.to(ids), ids[:, 4:]], dim=1)}


# --- adapters


def is_published_unet(widths: Mapping[str, int]) -> bool:
    """Whether modules of these in-widths are those of the published UNet, by the channels its attention has at each level."""
    seen = {
        (found[1], width)
        for module, width in widths.items()
        if (found := re.match(r"((?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+\..*(?:attn1\.to_[qkv]|attn2\.to_q|proj_in)$", module))
    }
    return bool(seen) and all(ATTENDED.get(place) == width for place, width in seen)


FAMILIES.add("sdxl")(
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        text_encoders=ENCODERS,
        tokenizers=TOKENIZERS,
        aliases=Aliases(modelspec=("stable-diffusion-xl",), base_version=("sdxl",), civitai=("sdxl", "pony", "illustrious", "noobai")),
        one_chunk=None,
        latent_channels=4,
        latent_factor=8,
        size_multiple=8,
        resolution=1024,
        steps=50,
        guidance=5.0,
        few_steps=(
            FewStep(
                title="SDXL Turbo",
                variants=("turbo",),
                word="turbo",
                steps=4,
                guidance=0.0,
                instead="the SDXL model that it was distilled from, or SDXL base 1.0",
            ),
            FewStep(
                title="SDXL-Lightning",
                word=r"lightning|dmd2|(?<![a-z])(dmd|hyper|lcm)(?![a-z])",
                steps=8,
                guidance=1.0,
                instead="the SDXL model that it was distilled from, or SDXL base 1.0",
            ),
        ),
        strength=0.3,
        inpaint_strength=0.9999,
        predictions=("epsilon", "v_prediction"),
        checkpointed=CHECKPOINTED,
        lora_presets=PRESETS,
        architecture="stable-diffusion-xl-v1-base",
        file_names=LAYOUT,
        learning_encoders={"text_encoder": 1, "text_encoder_2": None},
        clip_layer=2,
        adapter_names=AdapterNames(
            layers=(*ldm_layers(BLOCKS), *UNET_LAYERS),  # the second for builds of other blocks, which keep diffusers' names
            encoders={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
            base_version="sdxl_base_v1-0",
            original=is_published_unet,
        ),
        vae_channels=4,
        cross_attention_dim=WIDTH,
        embedding_dim=1280,  # of its second encoder alone
        embedding_keys=("clip_l", "clip_g"),
        controlnet_keys=("lllite_",),
        recognise_checkpoint=recognise_checkpoint,
        recognise_adapter=recognise_adapter,
        may_be_adapter=has_unet_names,
        load=load,
        encode_prompts=encode_beside,
        encode_weighted=weighted_beside,
        encode_unconditional=encode_zeros,
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        complete=complete,
        condition_on_crop=condition_on_crop,
        predict=predict,
        set_timesteps=scheduler_timesteps_from_start,
        lora_state=unet_lora_state,
        start_step=start_by_whole_steps,
        control=unet_control(),
    )
)
