"""Images and prompts encoded once and cached on disk, each under a key of everything that its value depends on.

A latent's key: the file's bytes, its size and crop, the transform, the VAE's weights and config, the dtype, the versions of the
encoding code (VERSION here, `Family.encoding_version` there). The posterior (mean, logvar) is kept, so that every step draws its own
sample. A text state's key: the exact tokens, the text encoders' weights, the same versions. An edited image, another VAE, another
size: another key.

Everything is encoded one at a time: a value never depends on what else was encoded beside it.
"""

# B batch, C channels, H W latent size, T tokens, D width

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed
from registry.family import Family
from registry.formats.hashing import value_sha256
from registry.formats.image_file import decode
from registry.parts import Conditioning, Parts, Posterior, collate
from registry.progress import Report, Tick
from train.data.captions import shortened
from train.data.images import TRANSFORM, fit, to_pixels
from train.data.items import Item, View
from train.loop.cache import Cache, add_tensors
from train.masks.mask import ALPHA
from train.masks.mask import TRANSFORM as MASK_TRANSFORM
from train.masks.views import kept_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VERSION = 1  # of the code that encodes for every family; another value of a latent or a text state needs another number


Row = Mapping[str, Any]  # one view's posterior: mean and, where there is one, logvar, (1, C, H, W) fp32


@dataclass(frozen=True)
class Streamed(Sequence[Row]):
    """Rows that are read from the cache each time: for sets larger than memory."""

    cache: Cache
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, place: Any) -> Any:
        found = self.cache.get(self.keys[place])
        if found is None:
            raise JobFailed(f"{self.cache.path(self.keys[place])} is gone from the cache while the run reads it. Resume: it is made again.")
        return found


@dataclass(frozen=True)
class Latents:
    """Posteriors of items in order, on the CPU; `rows` has those of every item's views one after another.

    `crops`, a row each (N, 4): height and width of the image, top and left of its crop; None: as if they were made at their size.
    """

    rows: Sequence[Row]
    first: tuple[int, ...]  # row of each item's first view
    shapes: tuple[tuple[int, ...], ...]  # of each item's latents, (C, H, W)
    crops: Tensor | None = None
    masks: Sequence[Row] | None = None  # of every view the share of each latent that its mask keeps, (1, 1, H, W); None: no image has one

    def __len__(self) -> int:
        return len(self.first)

    def part(self, begin: int, end: int) -> Latents:
        """The latents of items begin..end-1."""
        return self.of(range(begin, end))

    def of(self, items: Sequence[int]) -> Latents:
        """The latents of these items."""
        return replace(self, first=tuple(self.first[item] for item in items), shapes=tuple(self.shapes[item] for item in items))

    def view(self, items: Sequence[int], views: Sequence[int] | None = None) -> LatentBatch:
        """The views of these items, all of one size; None: their first ones."""
        import torch

        places = [self.first[item] + view for item, view in zip(items, views or [0] * len(items), strict=True)]
        rows = [self.rows[place] for place in places]
        logvar = torch.cat([row["logvar"] for row in rows]) if "logvar" in rows[0] else None
        posterior = Posterior(torch.cat([row["mean"] for row in rows]), logvar)
        kept = None if self.masks is None else torch.cat([self.masks[place]["kept"] for place in places])
        return LatentBatch(posterior, None if self.crops is None else self.crops[places], kept)


@dataclass(frozen=True)
class LatentBatch:
    """Posteriors of a batch, (B, C, H, W), the crops that they are of, (B, 4), and what their masks keep, (B, 1, H, W)."""

    posterior: Posterior
    crops: Tensor | None
    kept: Tensor | None = None


@dataclass(frozen=True)
class Texts:
    """Conditionings of a set's prompts, each distinct prompt once; `index` names the one of each sample."""

    states: tuple[Conditioning, ...]
    index: tuple[int, ...]

    def part(self, begin: int, end: int) -> Texts:
        """The texts of samples begin..end-1."""
        return Texts(self.states, self.index[begin:end])

    def of(self, samples: Sequence[int]) -> Texts:
        """The texts of these samples."""
        return Texts(self.states, tuple(self.index[sample] for sample in samples))

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

    def of(self, samples: Sequence[int]) -> Prompts:
        """The prompts of these samples."""
        return Prompts(tuple(self.prompts[sample] for sample in samples))

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
    family: Family,
    parts: Parts,
    items: Sequence[Item],
    *,
    device: torch.device,
    cache: Cache,
    report: Report,
    in_memory: bool = True,
) -> Latents:
    """The posteriors of the items' views, from the cache or from the VAE, which works in fp32 (SDXL's overflows in fp16).

    `in_memory` False: they stay in the cache, and are read from it when they are used.
    """
    import torch

    if not items:
        raise JobFailed("There are no images to encode.")
    vae = parts.vae
    common: dict[str, Any] = {"kind": "latent", "version": VERSION, "transform": TRANSFORM, "dtype": "float32"}
    common |= {"vae": module_hash(vae), "family": family.name, "encoding": family.encoding_version}
    vae.to(device)
    if any(weight.dtype != torch.float32 for weight in vae.parameters()):  # diffusers warns of every cast
        vae.to(torch.float32)
    views = [(item, view) for item in items for view in item.views]
    keys: list[str] = []
    rows: list[Row] = []
    shapes: list[tuple[int, ...]] = []
    for done, (item, view) in enumerate(views, 1):
        keys.append(value_sha256({**common, "sha256": item.sample.sha256, **_geometry(item, view)}))
        row, _ = cache.or_make(keys[-1], lambda item=item, view=view: _posterior(family, parts, item, view))  # type: ignore[misc]
        rows += [row] if in_memory else []
        shapes.append(tuple(row["mean"].shape[1:]))
        report(Tick("encode images", done, len(views), item.sample.name))
    vae.to("cpu")
    first = tuple(itertools.accumulate((len(item.views) for item in items[:-1]), initial=0))
    crops = torch.tensor([_crop(item, view) for item, view in views])
    masks = _masks(views, shapes, cache, in_memory=in_memory) if any(item.sample.mask for item in items) else None
    return Latents(rows if in_memory else Streamed(cache, keys), first, tuple(shapes[place] for place in first), crops, masks)


def _masks(views: Sequence[tuple[Item, View]], shapes: Sequence[tuple[int, ...]], cache: Cache, *, in_memory: bool) -> Sequence[Row]:
    """What the mask of every view keeps, from the cache or made; all of it where an image has none."""
    keys: list[str] = []
    rows: list[Row] = []
    for (item, view), shape in zip(views, shapes, strict=True):
        mask = item.sample.mask
        known = {"kind": "mask", "transform": MASK_TRANSFORM, "latent": list(shape[1:]), **_geometry(item, view)}
        known |= {"mask": mask and mask.sha256, "alpha": mask is not None and mask.name == ALPHA}
        keys.append(value_sha256(known))
        row, _ = cache.or_make(keys[-1], lambda item=item, view=view, shape=shape: {"kept": kept_of(item, view, shape)})  # type: ignore[misc]
        rows += [row] if in_memory else []
    return rows if in_memory else Streamed(cache, keys)


def drawn_latents(family: Family, parts: Parts, items: Sequence[Item]) -> Latents:
    """In place of images where the model draws what it learns from: zeros of each item's size."""
    import torch

    sizes = [(item.bucket.height // parts.latent_factor, item.bucket.width // parts.latent_factor) for item in items]
    shapes = tuple((family.channels(parts), *size) for size in sizes)
    return Latents([{"mean": torch.zeros(1, *shape)} for shape in shapes], tuple(range(len(items))), shapes)


def _geometry(item: Item, view: View) -> dict[str, Any]:
    """What of an image is encoded, as its key has it."""
    return {"size": [item.bucket.width, item.bucket.height], "corner": [view.left, view.top], "flipped": view.flipped}


def _crop(item: Item, view: View) -> list[int]:
    """Height and width of the image, top and left of its crop once it is scaled: what SDXL is conditioned on."""
    return [item.sample.size.height, item.sample.size.width, view.top, view.left]


def _posterior(family: Family, parts: Parts, item: Item, view: View) -> dict[str, Tensor]:
    import torch

    sample, bucket = item.sample, item.bucket
    data = sample.read()
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise JobFailed(f"{sample.name} changed while the run was starting. Start it again.")
    image, _ = decode(data)
    cut = fit(image, bucket.width, bucket.height, corner=(view.left, view.top), flipped=view.flipped)
    pixels = to_pixels(cut).unsqueeze(0)  # (1, 3, h, w)
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
    """Bytes of the encoded set that are in memory."""
    rows = () if isinstance(latents.rows, Streamed) else latents.rows
    tensors = [t for state in (*rows, *(texts.states if isinstance(texts, Texts) else ())) for t in state.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
