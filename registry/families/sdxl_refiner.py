"""SDXL's refiner: SDXL's second text encoder alone, an aesthetic score among the size numbers, a UNet for the last fifth of the noise.

It finishes an image that SDXL began, so it draws by its image-to-image pipeline. It is not trained.
"""

# B batch, T tokens, D width, P pooled width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.aliases import Aliases
from registry.architectures.text.clip_prompts import count_prompt_tokens, encode_beside, encode_zeros
from registry.architectures.unet.components import BETAS, heads_of_64, open_clip_piece, unet_piece, vae_piece
from registry.architectures.unet.header import declared_unet_family, has_unet_names, unet_adapter, unet_file
from registry.architectures.unet.lora import PRESETS, UNET_LAYERS, unet_lora_state
from registry.architectures.unet.model import CHECKPOINTED, file_match, folder_match, predict, unet_loader, with_full_vae
from registry.architectures.vae.kl import decode, encode_images
from registry.errors import BadFile
from registry.family import FAMILIES, Family
from registry.family_defaults import scheduler_timesteps_from_start, start_by_whole_steps
from registry.formats.layers import AdapterNames
from registry.formats.model_header import ModelHeader
from registry.formats.single_file import Layout
from registry.parts import Conditioning, Match, Parts

if TYPE_CHECKING:
    pass

PIPELINES = ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline")
WIDTH = 1280  # of OpenCLIP bigG's states
ADDED = 2560  # the published added vector: five size numbers of 256 and the pooled state
SCORE, NEGATIVE_SCORE = 6.0, 2.5  # of the pipeline's call: the scores of a wanted and of an unwanted image
SCORED_NUMBERS = 5  # height, width, crop top, crop left, score; six are SDXL's, with the target size in the score's place

FINISHES = (
    "The refiner knows the last fifth of the noise only: it is made to finish an image, at a strength of about 0.3, not to begin one."
)


# --- what it is


def recognise_checkpoint(header: ModelHeader) -> Match | None:
    """A claim on a diffusers folder by class and config, on a single file by the LDM names of SDXL's refiner."""
    return _recognise_folder(header) if header.is_folder else _recognise_single_file(header)


def _recognise_folder(header: ModelHeader) -> Match | None:
    unet = header.configs.get("unet", {})
    if header.index.get("_class_name") not in PIPELINES or unet.get("addition_embed_type") != "text_time":
        return None
    if header.class_of("text_encoder") is not None or header.class_of("text_encoder_2") is None:
        return None  # SDXL's base has both encoders
    evidence = (f"model_index.json: {header.index['_class_name']}", "unet.addition_embed_type text_time", "the second text encoder only")
    return folder_match(header, score=0.95, evidence=evidence)


def _recognise_single_file(header: ModelHeader) -> Match | None:
    file = unet_file(header)
    if file is None or file.added_width is None or file.text not in (None, "refiner"):
        return None
    if file.text is None and (file.cross_width, file.added_width) != (WIDTH, ADDED):
        return None
    evidence = ["UNet in LDM names with label_emb"]
    if file.text == "refiner":
        evidence.append("one text model at conditioner.embedders")
    if file.cross_width == WIDTH:
        evidence.append(f"attn2.to_k takes {WIDTH}")
    return file_match(header, file, score=0.95 if file.cross_width == WIDTH else 0.85, evidence=evidence)


def recognise_adapter(header: ModelHeader) -> Match | None:
    """A claim on an adapter by the width it attends to, else by what its metadata declare."""
    adapter = unet_adapter(header)
    if adapter is None or "text_encoder" in adapter.text_widths:
        return None
    if adapter.cross_width == WIDTH:
        return Match(score=0.95, evidence=(f"attn2.to_k takes {WIDTH}",))
    declared = declared_unet_family(header)
    return Match(score=0.9, evidence=(declared[1],)) if declared is not None and declared[0] == "sdxl_refiner" else None


# --- loading


def _unet_constants(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention_head_dim": heads_of_64(sizes), "norm_num_groups": 32, "sample_size": 128}


def _settle(configs: dict[str, dict[str, Any]], _prediction: str) -> None:
    """The width of one number's embedding: the added vector holds five of them and the pooled state."""
    added = configs["unet"]["projection_class_embeddings_input_dim"] - configs["text_encoder_2"]["projection_dim"]
    configs["unet"]["addition_time_embed_dim"] = added // SCORED_NUMBERS


def _scheduler(prediction: str, _zero_snr: bool) -> tuple[str, dict[str, Any]]:
    return "EulerDiscreteScheduler", {
        **BETAS,
        "prediction_type": prediction,
        "interpolation_type": "linear",
        "timestep_spacing": "leading",
    }


LAYOUT = Layout(
    pieces=(
        unet_piece(
            sizes=_unet_constants,
            published={"block_out_channels": (384, 768, 1536, 1536), "layers_per_block": 2, "cross_attention_dim": WIDTH},
        ),
        vae_piece(scaling_factor=0.13025, sample_size=1024),
        open_clip_piece(component="text_encoder_2", prefix="conditioner.embedders.0.model."),
    ),
    tokenizers={"tokenizer_2": ("text_encoder_2", "!")},
    scheduler=_scheduler,
    pipeline={"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
    settle=_settle,
)


def _checked(parts: Parts) -> Parts:
    """The parts with the VAE in float32 where float16 overflows in it, unless the UNet takes another number of size numbers."""
    parts = with_full_vae(parts)
    encoder: Any = parts.text_encoders["text_encoder_2"]
    numbers = _size_numbers(parts, pooled=encoder.config.projection_dim)
    if numbers not in (SCORED_NUMBERS, SCORED_NUMBERS + 1):
        raise BadFile(parts.source, "variant", f"has a UNet that takes {numbers} size numbers; the refiner's takes {SCORED_NUMBERS}.")
    parts.warnings = (*parts.warnings, FINISHES)
    return parts


load = unet_loader(LAYOUT, settle=_checked)


def _size_numbers(parts: Parts, *, pooled: int) -> int:
    """Size numbers in the UNet's added vector, beside a pooled state of this width."""
    config: Any = parts.denoiser.config
    return int((config.projection_class_embeddings_input_dim - pooled) // config.addition_time_embed_dim)


# --- text


def encode_prompts(parts: Parts, prompts: Sequence[str], *, clip_skip: int | None = None) -> Conditioning:
    """{"embeds": (B, T, D), "pooled": (B, P), "score": (B,)}: the encoder's last but one state, its projection, the score of a prompt."""
    return _scored(encode_beside(parts, prompts, clip_skip=clip_skip), SCORE)


def encode_negatives(parts: Parts, negatives: Sequence[str]) -> Conditioning:
    """As prompts, with the negative score."""
    return _scored(encode_beside(parts, negatives), NEGATIVE_SCORE)


def encode_unconditional(parts: Parts, count: int) -> Conditioning:
    """The encoding of "" (zeros where the pipeline's config says so), with the negative score."""
    return _scored(encode_zeros(parts, count), NEGATIVE_SCORE)


def _scored(conditioning: Conditioning, score: float) -> Conditioning:
    embeds = conditioning["embeds"]
    return {**conditioning, "score": embeds.new_full((len(embeds),), score)}


# --- denoising


def complete(parts: Parts, conditioning: Conditioning, *, height: int, width: int, guidance: float) -> Conditioning:
    """The conditioning with "time_ids" (B, 5): original height and width, crop top and left, score.

    A UNet that takes six numbers has the target height and width in the score's place, as its pipeline does it.
    """
    import torch

    rest = {key: value for key, value in conditioning.items() if key != "score"}
    score, pooled = conditioning["score"], conditioning["pooled"]
    scored = _size_numbers(parts, pooled=pooled.shape[-1]) == SCORED_NUMBERS
    sizes = [height, width, 0, 0] if scored else [height, width, 0, 0, height, width]
    ids = torch.tensor([sizes], dtype=score.dtype, device=score.device).repeat(len(score), 1)
    return {**rest, "time_ids": torch.cat([ids, score[:, None]], dim=1) if scored else ids}


FAMILIES.add("sdxl_refiner")(
    Family(
        name="sdxl_refiner",
        title="Stable Diffusion XL refiner",
        pipeline="StableDiffusionXLImg2ImgPipeline",
        denoiser="unet",
        text_encoders=("text_encoder_2",),
        tokenizers=("tokenizer_2",),
        aliases=Aliases(modelspec=("stable-diffusion-xl-v1-refiner",)),
        one_chunk=None,
        latent_channels=4,
        latent_factor=8,
        size_multiple=8,
        resolution=1024,
        steps=50,
        guidance=5.0,
        strength=0.3,
        inpaint_strength=0.9999,
        predictions=("epsilon", "v_prediction"),
        checkpointed=CHECKPOINTED,
        lora_presets=PRESETS,
        architecture="stable-diffusion-xl-v1-refiner",
        untrained=(
            "it was made for the last fifth of the noise and for images with aesthetic scores, which no set here has. "
            "Train on SDXL's base, whose adapter the refined image keeps"
        ),
        file_names=LAYOUT,
        adapter_names=AdapterNames(layers=UNET_LAYERS, encoders={"text_encoder_2": "lora_te2_"}),
        cross_attention_dim=WIDTH,
        recognise_checkpoint=recognise_checkpoint,
        recognise_adapter=recognise_adapter,
        may_be_adapter=has_unet_names,
        load=load,
        encode_prompts=encode_prompts,
        encode_unconditional=encode_unconditional,
        encode_negatives=encode_negatives,
        count_tokens=count_prompt_tokens,
        encode_images=encode_images,
        decode=decode,
        complete=complete,
        predict=predict,
        set_timesteps=scheduler_timesteps_from_start,
        lora_state=unet_lora_state,
        start_step=start_by_whole_steps,
        control="no ControlNet was made for SDXL's refiner; steer the image that it refines",
    )
)
