"""Images and prompts encoded once and cached on disk, each under a key of everything that its value depends on.

A latent's key: the file's bytes, the transform, the VAE's weights and config, the dtype, the versions of the encoding code (VERSION
here, `Family.encoding_version` there). The posterior (mean, logvar) is kept, so that every step draws its own sample. A text state's
key: the exact tokens, the text encoders' weights, the same versions. An edited image, another VAE, another resolution: another key.

Everything is encoded one at a time: a value never depends on what else was encoded beside it.
"""

# B batch, C channels, H W latent size, T tokens, D width

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed
from registry.family import Family
from registry.formats.hashing import value_sha256
from registry.formats.image_file import decode
from registry.parts import Conditioning, Parts, Posterior, collate
from registry.progress import Report, Tick
from train.data.captions import shortened
from train.data.dataset import Sample
from train.data.images import TRANSFORM, crop_corner, fit, scaled_size, to_pixels
from train.loop.cache import Cache, add_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VERSION = 1  # of the code that encodes for every family; another value of a latent or a text state needs another number


@dataclass(frozen=True)
class Latents:
    """Posteriors of a set's images in order, on the CPU: mean and logvar (N, C, H, W) fp32, logvar None without a posterior.

    `crops` (N, 4): height and width of each image, top and left of its crop; None: as if they were made at the resolution.
    """

    mean: Tensor
    logvar: Tensor | None
    crops: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """One latent's (C, H, W)."""
        return tuple(self.mean.shape[1:])

    def part(self, begin: int, end: int) -> Latents:
        """The latents of images begin..end-1."""
        logvar, crops = (None if rows is None else rows[begin:end] for rows in (self.logvar, self.crops))
        return Latents(self.mean[begin:end], logvar, crops)

    def crops_of(self, indices: Sequence[int]) -> Tensor | None:
        """(B, 4) of these images."""
        return None if self.crops is None else self.crops[list(indices)]

    def rows(self, indices: Sequence[int]) -> Posterior:
        picked = list(indices)
        return Posterior(self.mean[picked], None if self.logvar is None else self.logvar[picked])


@dataclass(frozen=True)
class Texts:
    """Conditionings of a set's prompts, each distinct prompt once; `index` names the one of each sample."""

    states: tuple[Conditioning, ...]
    index: tuple[int, ...]

    def part(self, begin: int, end: int) -> Texts:
        """The texts of samples begin..end-1."""
        return Texts(self.states, self.index[begin:end])

    def rows(self, indices: Sequence[int]) -> Conditioning:
        """The batch of these samples' conditionings."""
        return collate([self.states[self.index[i]] for i in indices])


@dataclass(frozen=True)
class Prompts:
    """A set's prompts as texts, for text encoders that are trained: their states change with every step."""

    prompts: tuple[str, ...]

    @property
    def index(self) -> tuple[int, ...]:
        """One number a sample."""
        return tuple(range(len(self.prompts)))

    def part(self, begin: int, end: int) -> Prompts:
        """The prompts of samples begin..end-1."""
        return Prompts(self.prompts[begin:end])

    def rows(self, indices: Sequence[int]) -> list[str]:
        """These samples' prompts."""
        return [self.prompts[i] for i in indices]


TextInput = Conditioning | list[str]  # of a batch: conditionings, or prompts that are encoded in the forward pass


def module_hash(*modules: nn.Module) -> str:
    """blake3 over every module's config, and its weights' names, dtypes, shapes and bytes."""
    from blake3 import blake3

    digest = blake3(max_threads=blake3.AUTO)
    for module in modules:
        config = getattr(module, "config", {})
        plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        digest.update(json.dumps({k: v for k, v in plain.items() if not k.startswith("_")}, sort_keys=True, default=str).encode())
        add_tensors(digest, module.state_dict())
    return digest.hexdigest()


def encode_latents(
    family: Family, parts: Parts, samples: Sequence[Sample], *, resolution: int, device: torch.device, cache: Cache, report: Report
) -> Latents:
    """The posteriors of the images, from the cache or from the VAE, which works in fp32 (SDXL's overflows in fp16)."""
    import torch

    if not samples:
        raise JobFailed("There are no images to encode.")
    vae = parts.vae
    common: dict[str, Any] = {"kind": "latent", "version": VERSION, "transform": TRANSFORM, "resolution": resolution, "dtype": "float32"}
    common |= {"vae": module_hash(vae), "family": family.name, "encoding": family.encoding_version}
    vae.to(device)
    if any(weight.dtype != torch.float32 for weight in vae.parameters()):  # diffusers warns of every cast
        vae.to(torch.float32)
    rows = []
    for done, sample in enumerate(samples, 1):
        key = value_sha256({**common, "sha256": sample.sha256})
        rows.append(cache.or_make(key, lambda sample=sample: _posterior(family, parts, sample, resolution))[0])  # type: ignore[misc]
        report(Tick("encode images", done, len(samples), sample.name))
    vae.to("cpu")
    logvars = [row["logvar"] for row in rows if "logvar" in row]
    logvar = torch.cat(logvars) if len(logvars) == len(rows) else None
    crops = torch.tensor([_crop(sample, resolution) for sample in samples])
    return Latents(torch.cat([row["mean"] for row in rows]), logvar, crops)


def _crop(sample: Sample, resolution: int) -> list[int]:
    """Height and width of the image, top and left of its crop once it is scaled: what SDXL is conditioned on."""
    left, top = crop_corner(scaled_size(sample.size, resolution), resolution)
    return [sample.size.height, sample.size.width, top, left]


def _posterior(family: Family, parts: Parts, sample: Sample, resolution: int) -> dict[str, Tensor]:
    import torch

    data = sample.read()
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise JobFailed(f"{sample.name} changed while the run was starting. Start it again.")
    image, _ = decode(data)
    pixels = to_pixels(fit(image, resolution)).unsqueeze(0)  # (1, 3, h, w)
    with torch.no_grad():
        posterior = family.encode_images(parts, pixels)
    kept = None if family.trains_on_mean else posterior.logvar
    out = {"mean": posterior.mean} | ({} if kept is None else {"logvar": kept})
    bad = [name for name, tensor in out.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise JobFailed(f"The VAE gives {' and '.join(bad)} that are not finite for {sample.name}. Its weights are damaged or overflow.")
    return {name: tensor.float().cpu() for name, tensor in out.items()}


def encode_texts(
    family: Family,
    parts: Parts,
    prompts: Sequence[str],
    *,
    device: torch.device,
    cache: Cache,
    report: Report,
    clip_skip: int | None = None,
) -> Texts:
    """The conditionings of the prompts, from the cache or from the text encoders; equal prompts share one."""
    encoders = list(parts.text_encoders.values())
    common: dict[str, Any] = {"kind": "text", "version": VERSION, "family": family.name, "encoding": family.encoding_version}
    common["encoders"] = module_hash(*encoders)
    common |= {"config": dict(parts.config), "dtype": str(parts.dtype)} | ({"clip_skip": clip_skip} if clip_skip else {})
    common |= {"prompt_chunks": parts.prompt_chunks} if parts.prompt_chunks > 1 else {}
    for encoder in encoders:
        encoder.to(device)
    distinct = list(dict.fromkeys(prompts))
    states = []
    for done, prompt in enumerate(distinct, 1):
        key = value_sha256({**common, "prompt": prompt, "ids": _token_ids(parts, prompt)})
        states.append(cache.or_make(key, lambda prompt=prompt: _text_state(family, parts, prompt, clip_skip))[0])  # type: ignore[misc]
        report(Tick("encode prompts", done, len(distinct)))
    for encoder in encoders:
        encoder.to("cpu")
    place = {prompt: number for number, prompt in enumerate(distinct)}
    return Texts(tuple(states), tuple(place[prompt] for prompt in prompts))


def _token_ids(parts: Parts, prompt: str) -> dict[str, Any]:
    ids = {name: tokenizer(prompt, truncation=False, verbose=False).input_ids for name, tokenizer in parts.tokenizers.items()}
    return {name: {"ids": list(map(int, value)), "limit": parts.tokenizers[name].model_max_length} for name, value in ids.items()}


def _text_state(family: Family, parts: Parts, prompt: str, clip_skip: int | None) -> Conditioning:
    import torch

    with torch.no_grad():
        state = family.encode_prompts(parts, [prompt], clip_skip=clip_skip)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise JobFailed(
                f"The text encoders give {name} that is not finite for {shortened(prompt)!r}. "
                "In fp16 some overflow: use precision=bf16 or fp32."
            )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def release(parts: Parts) -> None:
    """Free the text encoders; the encoded prompts are kept."""
    parts.text_encoders.clear()


def cached_bytes(latents: Latents, texts: Texts | Prompts) -> int:
    """Bytes of the encoded set."""
    tensors = [
        latents.mean,
        *([latents.logvar] if latents.logvar is not None else []),
        *(t for state in (texts.states if isinstance(texts, Texts) else ()) for t in state.values()),
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
