"""Settings of a quantised base: what the linear layers of its denoiser and of its text encoders are kept in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry.quantised.codings import CODINGS, COMPUTE
from train.settings.rules import Rule

NAMES = ("base_dtype", "text_encoder_dtype")
BASE_HELP = (
    f"what the frozen linear layers of the denoiser's blocks are kept in: {', '.join(CODINGS)} (quantised base; default: as precision)."
    " Products and the adapter are as they were"
)
TEXT_HELP = "the same for the text encoders, which encode the prompts once: a setting of its own, since it costs another error"


COMPUTE_HELP = (
    "arithmetic of the quantised layers of the denoiser (W8A8): int8 or fp8, the same as base_dtype, with activations quantised token by"
    " token (default: products with the dequantised weights)"
)


def quantised_rules(config: Any) -> Iterator[Rule]:
    """Ranges, and what quantised weights exclude whatever the base is."""
    for name in NAMES:
        value = getattr(config, name)
        must = f"must be {', '.join(CODINGS)}, or null for the base's own numbers"
        yield name, value, value is None or value in CODINGS, must
    yield "compute", config.compute, config.compute in (None, *COMPUTE), f"must be {' or '.join(COMPUTE)}, or null"
    good = config.compute not in COMPUTE or config.compute == config.base_dtype
    yield "compute", config.compute, good, f"needs base_dtype={config.compute}: products are of the weights as they are kept"
    fused = config.adapter.training
    good = fused is None or config.base_dtype is None
    must = (
        "must be null beside base_dtype: a training adapter is fused into the weights, and most of it would be rounded away there."
        " Fuse it before (loraloom lora fuse) and train on that base, or leave base_dtype out"
    )
    yield "adapter.training", fused, good, must
