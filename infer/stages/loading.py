"""A base as its images need it: whole, or where all of their latents are kept, the VAE alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infer.draw.render import Render
from registry.architectures.vae.override import own_vae
from registry.detect.loading import load_base
from registry.family import Family
from registry.parts import Parts
from registry.record import Record

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)


def load_whole(base: Record, first: Render) -> tuple[Family, Parts]:
    """The family and the loaded Parts of the base, by the settings of a Render."""
    return load_base(
        base,
        dtype=_dtype(first),
        device="cpu" if first.swap_blocks else first.device,
        base_config=first.base_config,
        prediction=first.prediction,
        base_dtype=first.base_dtype,
        text_encoder_dtype=first.text_encoder_dtype,
    )


def load_decoder(base: Record, renders: Sequence[Render]) -> tuple[Family, Parts] | None:
    """The same with no weights but those of the VAE, and not with these where each Render has another; None where that fails."""
    first = renders[0]
    try:
        family, parts = load_base(base, dtype=_dtype(first), device="meta", base_config=first.base_config, prediction=first.prediction)
        parts.vae.to(_dtype(first))  # which an override takes over; that of a single file has no dtype yet
        if any(render.vae is None for render in renders):
            parts.vae = own_vae(parts, device=first.device)
    except Exception as error:  # whatever is wrong with the base, loading all of it says so
        LOG.debug("the whole base is loaded to decode", exc_info=error)
        return None
    return family, parts


def _dtype(render: Render) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[render.precision]
