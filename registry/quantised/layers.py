"""Which linear layers of a model are quantised, and in what: named here for all architectures, with what a family has beside.

Quantised are the layers of the repeated blocks. What is outside of them, once a model and not once a block, is kept: projections of
latents, text and time into the model, its output. Norms, embeddings and convolutions are no linear layers and are kept too: a UNet's
convolutions are a quarter of SDXL's weights, and have no LoRA that they would make room for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Choose = Callable[[str], str | None]  # name of a linear layer -> the dtype that it is kept in; None: as it is

IN_A_BLOCK = re.compile(r"\.\d+\.")
TIME = r"(.*\.)?time_emb_proj"  # of a UNet's residual blocks: the timestep into each
# Shift, scale and gate of a transformer's blocks: one vector an image that reaches every token. A third of Qwen-Image's weights and a
# quarter of FLUX.1's: kept whole they would be most of what is left, so they have 8 bits where the rest has 4.
MODULATION = r".*\.(norm|norm1|norm1_context)\.linear|.*\.(img|txt)_mod\.\d+|.*\.adaLN_modulation\.\d+"
EIGHT_BITS = "int8"
NARROW = ("nf4", "nf4-dq")  # those with fewer than 8 bits


@dataclass(frozen=True, kw_only=True)
class QuantisedLayers:
    """Names of a denoiser's linear layers, regular expressions that match them in full."""

    kept: tuple[str, ...] = (TIME,)  # inside blocks
    eight_bits: str = MODULATION  # at least

    def choose(self, dtype: str) -> Choose:
        """What each layer is kept in."""

        def chosen(name: str) -> str | None:
            if not IN_A_BLOCK.search(f".{name}") or any(re.fullmatch(pattern, name) for pattern in self.kept):
                return None
            return EIGHT_BITS if dtype in NARROW and re.fullmatch(self.eight_bits, name) else dtype

        return chosen


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """What the linear layers of a model's components are kept in; None: as they are."""

    denoiser: str | None = None
    text_encoders: str | None = None
    layers: QuantisedLayers = QuantisedLayers()

    def of(self, component: str) -> Choose | None:
        """Of one component; None: nothing of it is quantised. A VAE never is."""
        if component in ("unet", "transformer"):
            return self.layers.choose(self.denoiser) if self.denoiser else None
        if component.startswith("text_encoder"):
            return QuantisedLayers(kept=()).choose(self.text_encoders) if self.text_encoders else None
        return None
