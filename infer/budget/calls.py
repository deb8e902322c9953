"""The largest calls that images make while they are drawn: of the denoiser, of the VAE's decoder and of its encoder.

Images that share calls are as many as `batch_size` says, of one kind; what is drawn alone (a second pass, ControlNets) makes its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from infer.budget.need import Largest
from infer.draw.draw import most_decoded
from infer.draw.render import Render
from infer.hires.passes import first_pass, second_pass
from infer.prompt.dialect import PLAIN, read_prompt
from infer.sharing.alone import kind_of, why_alone

if TYPE_CHECKING:
    from infer.draw.resolve import Resolver


def largest_of(renders: Sequence[Render], resolver: Resolver, *, batch_size: int = 1) -> Largest:
    """The largest calls of resolved Renders of one base, of which at most `batch_size` share a denoiser call."""
    alone, kinds = _grouped(renders, resolver, batch_size)
    denoised = [(_rows(one), *one.final_size) for render in alone for one in _passes(render)]
    denoised += [(kind.rows * min(batch_size, len(kind.keys)), *kind.size) for kind in kinds]
    decoded = [(1, *render.final_size) for render in renders]
    decoded += [(most_decoded(*kind.size, images=min(batch_size, count)), *kind.size) for kind in kinds for count in kind.decoded.values()]
    rows, *at = max(denoised, key=prod)
    return Largest(
        *max((render.final_size for render in renders), key=prod),
        rows=rows,
        at=(at[0], at[1]),
        chunks=max(render.prompt_chunks for render in renders),
        together=max(decoded, key=prod),
        encoded=max((render.final_size for render in renders if render.init is not None or render.enlarges_image), key=prod, default=None),
    )


@dataclass
class _Kind:
    """Images that share calls. One denoising serves all of equal latents; these are decoded one after the other."""

    size: tuple[int, int]
    rows: int = 1  # of an image, the most
    keys: set[str] = field(default_factory=set)  # of latents; not all, where they are more than are denoised at once
    decoded: Counter[str | None] = field(default_factory=Counter)  # VAE -> images that are decoded at once, as far as they are counted


def _grouped(renders: Sequence[Render], resolver: Resolver, batch_size: int) -> tuple[Sequence[Render], Sequence[_Kind]]:
    """Those that are drawn alone, and the others by what may share a call."""
    if batch_size == 1:
        return renders, ()
    alone: list[Render] = []
    kinds: dict[Hashable, _Kind] = {}
    for render in renders:
        if why_alone(render, resolver) is not None:
            alone.append(render)
            continue
        kind = kinds.setdefault(kind_of(render, resolver), _Kind(render.final_size))
        kind.rows = max(kind.rows, _rows(render))
        if kind.decoded[render.vae_sha256] < batch_size and (key := render.latents_key()) not in kind.keys:
            kind.keys.add(key)
            kind.decoded[render.vae_sha256] += 1
    return alone, list(kinds.values())


def _passes(render: Render) -> tuple[Render, ...]:
    """What is denoised: the image, or both of its passes."""
    return (render,) if render.hires is None else (first_pass(render), second_pass(render, render.hires))


def _rows(render: Render) -> int:
    """Conditionings of an image that share a call of the denoiser: its prompts, and the negative one."""
    plain = render.prompt_dialect == PLAIN
    prompts = 1 if plain else len(read_prompt(render.prompt, render.prompt_dialect, steps=render.steps or 1))
    return prompts + bool(render.guided)
