"""One picture of a loaded model: its prompts encoded once each, the denoising loop, the decoder."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from infer.denoise import Counter, Job, denoise, to_image
from infer.render import Render
from infer.samplers import build_scheduler
from registry.families.base import Conditioning, Family, Parts

if TYPE_CHECKING:
    from PIL.Image import Image


class Prompts:
    """The conditionings of one loaded model, each distinct text encoded once. `encodes` counts the work done.

    `tell` hears of every prompt that is longer than what fits.
    """

    def __init__(self, family: Family, parts: Parts, *, tell: Callable[[str], None]) -> None:
        self.encodes = 0
        self._family = family
        self._parts = parts
        self._tell = tell
        self._known: dict[tuple[str | None, int | None], Conditioning] = {}
        self._state: Hashable = ()

    def under(self, state: Hashable) -> None:
        """What the text encoders carry from now on (adapters and weights); what was encoded under another state is let go."""
        if state != self._state:
            self._state = state
            self._known.clear()

    def conditioning(self, text: str | None, *, clip_skip: int | None) -> Conditioning:
        """The conditioning (1, T, D) of a text, or of no negative prompt at all (None)."""
        import torch

        if (text, clip_skip) not in self._known:
            with torch.no_grad():
                self._known[text, clip_skip] = self._encode(text, clip_skip)
            self.encodes += 1
        return self._known[text, clip_skip]

    def _encode(self, text: str | None, clip_skip: int | None) -> Conditioning:
        if text is None:
            return self._family.encode_nothing(self._parts, 1, clip_skip=clip_skip)
        needed, fit = self._family.count_tokens(self._parts, text)
        if needed > fit:
            self._tell(tell_truncated(text, needed, fit))
        return self._family.encode_prompts(self._parts, [text], clip_skip=clip_skip)


def tell_truncated(text: str, needed: int, fit: int) -> str:
    """The sentence for a prompt that is longer than what fits."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f"The prompt {shown!r} is truncated: it needs {needed} tokens and {fit} fit; the model does not see its end."


def draw(
    family: Family,
    parts: Parts,
    render: Render,
    prompts: Prompts,
    *,
    counter: Counter | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Image:
    """The picture of a resolved Render under whatever adapters are set; unconditional pass at a guidance above 1, as in diffusers."""
    import torch

    if render.steps is None or render.guidance is None or render.width is None or render.height is None:
        raise ValueError("Only a resolved Render can be drawn: steps, guidance, width and height are needed.")
    guided = family.guided(parts, render.guidance, negative=render.negative is not None)
    job = Job(
        conditional=prompts.conditioning(render.prompt, clip_skip=render.clip_skip),
        unconditional=prompts.conditioning(render.negative, clip_skip=None) if guided else None,  # the pipelines never skip layers of it
        guidance=render.guidance,
        steps=render.steps,
        scheduler=build_scheduler(parts, render.sampler),
        seed=render.seed,
        height=render.height,
        width=render.width,
    )
    (latents,) = denoise(family, parts, [job], counter=counter, on_step=on_step)
    with torch.no_grad():
        return to_image(family.decode(parts, latents))[0]
