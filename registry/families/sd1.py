"""Stable Diffusion 1.x and everything of its build, whatever the size: one CLIP text encoder, a UNet, four latent channels.

Known by class and config, not by width: `pocket` is one of these. The prediction type is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.aliases import Aliases
from registry.architectures.text.clip_prompts import count_prompt_tokens, encode_one, weighted_one
from registry.architectures.unet.components import BETAS, clip_piece, unet_piece, vae_piece
from registry.architectures.unet.control import unet_control
from registry.architectures.unet.header import declared_unet_family, has_unet_names, unet_adapter, unet_file
from registry.architectures.unet.lora import PRESETS, UNET_LAYERS, unet_lora_state
from registry.architectures.unet.model import CHECKPOINTED, file_match, folder_match, predict, unet_loader
from registry.architectures.vae.kl import decode, encode_images
from registry.detect.few_step import FewStep
from registry.family import FAMILIES, Family
from registry.family_defaults import encoding_of_empty, scheduler_timesteps, start_by_whole_steps
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader
from registry.formats.single_file import Layout
from registry.parts import Match

if TYPE_CHECKING:
    pass

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
WIDTH = 768  # of SD 1.x's text states; other widths are small builds such as pocket
OTHER_WIDTHS = (1024, 1280, 2048)  # SD 2, the SDXL refiner, SDXL
ARCHITECTURE = "stable-diffusion-v1"


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by class and config, on a single file by the LDM names of SD 1.x."""
    return _recognise_folder(header) if header.is_folder else _recognise_single_file(header)


def _recognise_folder(header: ModelHeader) -> Match | None:
    unet = header.configs.get("unet", {})
    if header.index.get("_class_name") not in PIPELINES or unet.get("addition_embed_type") is not None:
        return None
    if unet.get("use_linear_projection") or header.class_of("text_encoder") != "CLIPTextModel":
        return None  # a linear projection is SD 2.x
    evidence = [f"model_index.json: {header.index['_class_name']}", "unet: convolutional projections, no added conditioning"]
    width = unet.get("cross_attention_dim")
    if width == WIDTH:
        evidence.append(f"unet.cross_attention_dim {WIDTH}")
    return folder_match(header, score=0.95 if width == WIDTH else 0.9, evidence=evidence)


def _recognise_single_file(header: ModelHeader) -> Match | None:
    file = unet_file(header)
    if file is None or file.added_width is not None or not file.conv_projection or file.text not in (None, "clip"):
        return None
    evidence = ["UNet in LDM names with convolutional projections and no label_emb"]
    if file.text == "clip":
        evidence.append("CLIP text model at cond_stage_model.transformer")
    if file.cross_width == WIDTH:
        evidence.append(f"attn2.to_k takes {WIDTH}")
    score = 0.95 if file.cross_width == WIDTH else 0.85 if file.text == "clip" else 0.6
    return file_match(header, file, score=score, evidence=evidence)


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim on an adapter by the width of the text states it attends to, else by what its metadata declare."""
    adapter = unet_adapter(header)
    if adapter is None or "text_encoder_2" in adapter.text_widths or adapter.depth > 0:
        return None
    declared = declared_unet_family(header)
    if adapter.cross_width == WIDTH:
        return Match(score=0.95, evidence=(f"attn2.to_k takes {WIDTH}",))
    if declared is not None:
        return Match(score=0.9, evidence=(declared[1],)) if declared[0] == "sd1" else None
    if adapter.cross_width in OTHER_WIDTHS:
        return None
    width = adapter.text_widths.get("text_encoder")
    if adapter.unet and width is not None and width == adapter.cross_width:
        return Match(score=0.7, evidence=(f"text encoder and attn2.to_k are both {width} wide",))
    if not adapter.unet:
        return Match(score=0.6 if width == WIDTH else 0.3, evidence=(f"only a text encoder, {width} wide",))
    what = f"attn2.to_k takes {adapter.cross_width}" if adapter.cross_width else "no attn2.to_k or to_v in it"
    return Match(score=0.3, evidence=(f"UNet layers of one transformer block each; {what}",))


# --- loading


def _unet_constants(_sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Eight heads at every level (`attention_head_dim` is their number here, by an old mistake of the name)."""
    return {"attention_head_dim": 8, "norm_num_groups": 32, "sample_size": 64}


def _scheduler(prediction: str, zero_snr: bool) -> tuple[str, dict[str, Any]]:
    """The published scheduler; DDIM where the terminal SNR is zero, which PNDM cannot start from."""
    settings = {**BETAS, "prediction_type": prediction, "set_alpha_to_one": False}
    if zero_snr:
        return "DDIMScheduler", {**settings, "clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return "PNDMScheduler", {**settings, "skip_prk_steps": True}


LAYOUT = Layout(
    pieces=(
        unet_piece(
            sizes=_unet_constants,
            published={"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": WIDTH},
        ),
        vae_piece(scaling_factor=0.18215, sample_size=512),
        clip_piece(prefix="cond_stage_model.transformer."),
    ),
    tokenizers={"tokenizer": ("text_encoder", "<|endoftext|>")},
    scheduler=_scheduler,
    pipeline={"requires_safety_checker": False},
)


load = unet_loader(LAYOUT)


FAMILIES.add("sd1")(
    Family(
        name="sd1",
        title="Stable Diffusion 1.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        aliases=Aliases(modelspec=("stable-diffusion-v1",), base_version=("sd_v1", "sd_1.5"), civitai=("sd 1", "sd1")),
        one_chunk=None,
        latent_channels=4,
        latent_factor=8,
        size_multiple=8,
        resolution=512,
        steps=50,
        guidance=7.5,
        few_steps=(
            FewStep(
                title="a few-step Stable Diffusion 1.x",
                word=r"turbo|lightning|(?<![a-z])(lcm|hyper)(?![a-z])",
                steps=8,
                guidance=1.0,
                instead="the model that it was distilled from",
            ),
        ),
        strength=0.8,
        inpaint_strength=1.0,
        predictions=("epsilon", "v_prediction"),
        checkpointed=CHECKPOINTED,
        lora_presets=PRESETS,
        architecture=ARCHITECTURE,
        file_names=LAYOUT,
        learning_encoders={"text_encoder": 0},
        adapter_names=AdapterNames(layers=UNET_LAYERS, encoders={"text_encoder": "lora_te_"}, base_version="sd_v1"),
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
