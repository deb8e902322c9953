"""What drawing needs of a device: weights counted from shapes, a denoiser call and a decoding traced through the empty model.

All parts of a base lie on the device while its images are drawn, so the need is their weights and the largest of these: what encoding a
prompt makes, what the largest call of the denoiser makes, and what the VAE makes as it encodes or decodes an image. A CPU's memory holds
this process too.
"""

# B rows of one forward, C channels, H W latent size

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.architectures.vae.tiles import decode_tiled
from registry.budget.peak import Trace, trace
from registry.family import Family
from registry.parts import Parts
from registry.quantised.empty import copied, quantised_sizes, stored_bytes
from registry.quantised.layers import Choose, Quantisation
from registry.swapping.blocks import BlockSize, Swap, block_sizes, swap_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

LOG = logging.getLogger(__name__)

Tracing = Callable[[Callable[[], object], Iterable["Module"]], Trace]
Values = Mapping[str, Any]  # base_dtype, text_encoder_dtype, swap_blocks, vae_tiling


@dataclass(frozen=True)
class Largest:
    """The images of a base that need most: pixels, rows of a denoiser call, chunks of a prompt."""

    width: int
    height: int
    rows: int  # conditionings that share a call: two of an image that is guided
    at: tuple[int, int] | None = None  # width and height of that call; None: of the largest image
    chunks: int = 1
    together: tuple[int, int, int] | None = None  # images that are decoded at once, their width and height; None: one of these
    encoded: tuple[int, int] | None = None  # width and height of what the VAE encodes; None: nothing


@dataclass(frozen=True)
class Stages:
    """Bytes beside the weights."""

    prompt: int
    forward: int
    decode: int
    encode: int = 0
    code: int = 0  # of a CPU, of all of them: it stays

    @property
    def largest(self) -> tuple[str, int]:
        """The stage that needs most."""
        named = {"prompts are encoded": self.prompt, "an image is denoised": self.forward, "an image is decoded": self.decode}
        named |= {"an image is encoded": self.encode}
        return max(named.items(), key=lambda row: row[1])


@dataclass
class Drawing:
    """A base whose images are drawn; each trace is made once for what it depends on."""

    family: Family
    parts: Parts  # without weights
    dtype: torch.dtype
    largest: Largest
    beside: int = 0  # bytes of adapters, ControlNets and other VAEs
    process: int = 0  # bytes of this process, where the device is the CPU
    compute: str | None = None  # arithmetic of the quantised layers
    _stages: dict[tuple[Any, ...], Trace] = field(default_factory=dict)
    _weights: dict[str | None, tuple[int, Mapping[str, BlockSize]]] = field(default_factory=dict)

    def peak(self, values: Values) -> int:
        """Bytes of the device. Raises whatever a forward raises that needs numbers."""
        stages = self.stages(values)
        return self.process + self.weights(values) + stages.largest[1] + stages.code

    def weights(self, values: Values) -> int:
        """Bytes of all that lies on the device, slots of swapped blocks included."""
        whole, _ = self._denoiser(values["base_dtype"])
        swap, quantised = self.swap(values), self._quantisation(values)
        encoders = sum(stored_bytes(module, self._itemsize, quantised.of(name)) for name, module in self.parts.text_encoders.items())
        return whole - swap.saved_bytes + encoders + stored_bytes(self.parts.vae, self._itemsize, None) + self.beside

    def swap(self, values: Values) -> Swap:
        """The denoiser's blocks, and those that are swapped."""
        return swap_of(self._denoiser(values["base_dtype"])[1], values["swap_blocks"], title=self.family.title)

    def stages(self, values: Values) -> Stages:
        """What each stage makes."""
        base, text, tile = values["base_dtype"], values["text_encoder_dtype"], values["vae_tiling"]
        prompt = self._once(("prompt", text), Quantisation(text_encoders=text), _prompt)
        forward = self._once(("forward", base), Quantisation(denoiser=base, layers=self.family.quantised), _forward)
        decode = self._once(("decode", tile), Quantisation(), partial(_decode, tile=tile))
        encode = self._once(("encode",), Quantisation(), _encode) if self.largest.encoded is not None else Trace(0, 0.0)
        code = sum(one.code for one in (prompt, forward, decode, encode))
        return Stages(prompt.peak, forward.peak, decode.peak, encode.peak, code)

    @property
    def _itemsize(self) -> int:
        return self.dtype.itemsize

    def _quantisation(self, values: Values) -> Quantisation:
        return Quantisation(denoiser=values["base_dtype"], text_encoders=values["text_encoder_dtype"], layers=self.family.quantised)

    def _denoiser(self, dtype: str | None) -> tuple[int, Mapping[str, BlockSize]]:
        """Bytes of the whole denoiser, and of its blocks."""
        if dtype not in self._weights:
            denoiser, choose = self.parts.denoiser, Quantisation(denoiser=dtype, layers=self.family.quantised).of(self.family.denoiser)
            self._weights[dtype] = stored_bytes(denoiser, self._itemsize, choose), self._blocks(choose)
        return self._weights[dtype]

    def _blocks(self, choose: Choose | None) -> Mapping[str, BlockSize]:
        kept = quantised_sizes(self.parts.denoiser, choose)

        def bytes_of(tensor: Tensor) -> int:
            return kept.get(id(tensor), tensor.numel() * (self._itemsize if tensor.is_floating_point() else tensor.element_size()))

        return block_sizes(self.family, self.parts.denoiser, bytes_of)

    def _once(self, key: tuple[Any, ...], quantised: Quantisation, make: Any) -> Trace:
        from registry.quantised.products import set_compute

        if key not in self._stages:
            parts = copied(self.parts, self.dtype, quantised, self.family.denoiser)
            set_compute(parts.denoiser, self.compute)
            traced = partial(trace, on_cpu=self.process > 0)  # a process counts where main memory is the device's
            self._stages[key] = make(self.family, replace(parts, prompt_chunks=self.largest.chunks), self.largest, traced)
        return self._stages[key]


def _prompt(family: Family, parts: Parts, _largest: Largest, trace: Tracing) -> Trace:
    import torch

    def work() -> None:
        with torch.no_grad():
            family.encode_prompts(parts, ["a"])

    return trace(work, list(parts.text_encoders.values()))


def _forward(family: Family, parts: Parts, largest: Largest, trace: Tracing) -> Trace:
    """A call of the denoiser, as infer.draw.denoise makes it: all rows of an image at once."""
    import torch

    width, height = largest.at or (largest.width, largest.height)
    with torch.no_grad():
        states = {key: value.to("meta") for key, value in family.encode_prompts(parts, ["a"] * largest.rows).items()}
        with torch.device("meta"):
            size = (height // parts.latent_factor, width // parts.latent_factor)
            noisy = torch.zeros((largest.rows, family.channels(parts), *size), dtype=parts.dtype)
            complete = family.complete(parts, states, height=height, width=width, guidance=1.0)
            timesteps = torch.zeros(largest.rows)
        return trace(lambda: family.predict(parts, noisy, timesteps, complete), [parts.denoiser])


def _decode(family: Family, parts: Parts, largest: Largest, trace: Tracing, *, tile: int | None) -> Trace:
    """Images that are decoded at once."""
    import torch

    alone = (1, largest.width, largest.height)
    images, width, height = alone if tile is not None else largest.together or alone
    size = (height // parts.latent_factor, width // parts.latent_factor)
    with torch.no_grad():
        latents = torch.empty(images, family.channels(parts), *size, device="meta", dtype=parts.dtype)
        return trace(lambda: decode_tiled(family.decode, parts, latents, tile), [parts.vae])


def _encode(family: Family, parts: Parts, largest: Largest, trace: Tracing) -> Trace:
    """An image that drawing begins with, whole: tiles are the decoder's alone."""
    import torch

    width, height = largest.encoded or (largest.width, largest.height)
    with torch.no_grad():
        pixels = torch.empty(1, 3, height, width, device="meta", dtype=parts.dtype)
        return trace(lambda: family.encode_images(parts, pixels), [parts.vae])
