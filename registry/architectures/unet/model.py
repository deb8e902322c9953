"""What the families with a UNet share: claims on folders and files, loading with its checks, one denoiser call."""

# B batch, C channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.unet.control import added, unet_residuals
from registry.architectures.unet.header import UNetFile, declared_prediction
from registry.errors import BadFile
from registry.family_protocols import Load
from registry.formats.diffusers_folder import load_folder, prediction_of, refuse_base_config
from registry.formats.model_header import ModelHeader
from registry.formats.single_file import Layout, load_single_file
from registry.parts import Conditioning, Match, Parts, Residuals
from registry.quantised.layers import Quantisation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What gradient checkpointing computes again, each whole; diffusers computes the first ResNet block of the middle once, outside of it.
CHECKPOINTED = (
    r"(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(attentions\.\d+\.transformer_blocks\.\d+|resnets\.\d+)(?<!mid_block\.resnets\.0)"
)
VARIANTS = {4: None, 5: "depth", 7: "upscale", 8: "pix2pix", 9: "inpaint"}  # input channels of the UNet


def folder_match(header: ModelHeader, *, score: float, evidence: Sequence[str]) -> Match:
    """A claim on a diffusers folder, with the variant of its UNet and the prediction type of its scheduler."""
    scheduler = header.configs.get("scheduler")
    return Match(
        score=score,
        evidence=tuple(evidence),
        variant=VARIANTS.get(header.configs.get("unet", {}).get("in_channels", 4)),
        prediction=prediction_of(header.class_of("scheduler") or "", scheduler) if scheduler is not None else None,
        prediction_source="scheduler/scheduler_config.json" if scheduler is not None else None,
    )


def file_match(header: ModelHeader, file: UNetFile, *, score: float, evidence: Sequence[str]) -> Match:
    """A claim on a single file, with the variant of its UNet and the prediction type that its header declares, if it does."""
    prediction, source = declared_prediction(header)
    return Match(
        score=score,
        evidence=tuple(evidence),
        variant=VARIANTS.get(file.in_channels),
        prediction=prediction,
        prediction_source=source,
    )


def unet_loader(layout: Layout, *, settle: Callable[[Parts], Parts] | None = None) -> Load:
    """A family's `load`: a diffusers folder or a single file in LDM names; `settle` checks and completes the Parts.

    The loader raises BadFile for a UNet that needs inputs not given here (inpainting, depth, a distilled scale).
    """

    def load(
        path: Path | str,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        base_config: Path | str | None = None,
        prediction: str | None = None,
        quantised: Quantisation | None = None,
    ) -> Parts:
        path = Path(path)
        if path.is_file():
            parts = load_single_file(
                path,
                layout,
                denoiser="unet",
                dtype=dtype,
                device=device,
                base_config=base_config,
                prediction=prediction,
                quantised=quantised,
            )
        else:
            refuse_base_config(path, base_config)
            parts = load_folder(
                path,
                denoiser="unet",
                text_encoders=tuple(encoder for encoder, _pad in layout.tokenizers.values()),
                tokenizers=tuple(layout.tokenizers),
                predictions=("epsilon", "v_prediction"),
                dtype=dtype,
                device=device,
                quantised=quantised,
            )
            _override_prediction(parts, prediction)
        _refuse_other_inputs(parts)
        return settle(parts) if settle is not None else parts

    return load


def _override_prediction(parts: Parts, prediction: str | None) -> None:
    """Apply the prediction override over the folder's scheduler config, with a warning."""
    if prediction is None or prediction == parts.prediction:
        return
    parts.warnings = (
        *parts.warnings,
        f"{parts.source.name} predicts {prediction} by override; its scheduler's config has {parts.prediction}.",
    )
    parts.scheduler_config = {**parts.scheduler_config, "prediction_type": prediction}
    parts.prediction = prediction


def _refuse_other_inputs(parts: Parts) -> None:
    config: Any = parts.denoiser.config
    if config.in_channels != config.out_channels:
        kind = VARIANTS.get(config.in_channels) or "special inputs"
        raise BadFile(
            parts.source,
            "variant",
            f"has a UNet for {kind} ({config.in_channels} input channels); only text-to-image ones ({config.out_channels}) are loaded.",
        )
    if config.time_cond_proj_dim is not None:
        raise BadFile(
            parts.source, "variant", "is a guidance-distilled UNet (time_cond_proj_dim is set), which this family does not support."
        )
    if config.class_embed_type is not None:
        raise BadFile(
            parts.source,
            "variant",
            f"has a UNet that takes a class or image embedding ({config.class_embed_type}), which is not supported here.",
        )


def with_full_vae(parts: Parts) -> Parts:
    """The parts, their VAE made float32 where it overflows in float16, by `force_upcast` in its config (SDXL's)."""
    import torch

    vae: Any = parts.vae
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.to(torch.float32)
    return parts


def predict(parts: Parts, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, control: Residuals | None = None) -> Tensor:
    """epsilon or v like `noisy` (B, C, H, W); `timesteps` (B,). `control` is of registry/architectures/unet/control.py."""
    return parts.denoiser(  # type: ignore[no-any-return]  # diffusers is untyped
        noisy,
        timesteps,
        encoder_hidden_states=conditioning["embeds"],
        added_cond_kwargs=added(conditioning),
        **unet_residuals(control),
        return_dict=False,
    )[0]
