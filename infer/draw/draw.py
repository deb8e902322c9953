"""One image of a loaded model: its prompts encoded once each, the denoising loop, the decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from infer.draw.control import Steering
from infer.draw.denoise import Counter as Work
from infer.draw.denoise import Job, denoise, to_image
from infer.draw.render import Render
from infer.draw.samplers import build_scheduler
from infer.draw.start import Start
from infer.prompt.conditionings import PromptSchedule, Timeline
from infer.prompt.dialect import A1111, PLAIN, pieces_of, read_prompt
from infer.prompt.schedule import Timed
from infer.sampling.scheduled import chosen_schedule
from registry.architectures.text.clip_chunks import chunks_needed
from registry.architectures.text.weighted import WeightedText
from registry.architectures.vae.tiles import decode_tiled
from registry.family import Family
from registry.parts import Conditioning, Parts

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DECODED_PIXELS, MOST_DECODED = 1 << 20, 8  # of images that share a call of the VAE: a quarter less time at 64 pixels, none at 1024


class Prompts:
    """The conditionings of one loaded model, each distinct text encoded once. `encodes` counts the work done.

    `on_note` is called with a sentence for every prompt that is truncated.
    """

    def __init__(self, family: Family, parts: Parts, *, on_note: Callable[[str], None]) -> None:
        self.encodes = 0
        self._family = family
        self._parts = parts
        self._on_note = on_note
        self._own: dict[Hashable, Conditioning] = {}
        self._known = self._own
        self._state: tuple[Hashable, ...] = ()

    def set_state(self, *state: Hashable) -> None:
        """Set what the text encoders depend on from now on (adapters, weights, embeddings): nothing, or only empty ones, is the base's own.

        A change drops the cached conditionings, but for those of the base's own state, to which other cells return.
        """
        state = tuple(one for one in state if one)
        if state != self._state:
            self._state = state
            self._known = {} if state else self._own

    def conditioning(self, text: str, *, clip_skip: int | None, chunks: int = 1) -> Conditioning:
        """The conditioning (1, T, D) of a prompt."""
        parts = replace(self._parts, prompt_chunks=chunks)
        return self._once(
            prompt_key(text, clip_skip, chunks),
            lambda: self._family.encode_prompts(parts, [self._checked(parts, text)], clip_skip=clip_skip),
        )

    def schedule(self, render: Render, *, calls: int, before: int = 0) -> PromptSchedule:
        """The prompt of a Render in its dialect; `calls` are the steps that A1111 counts in schedules, on from those `before`."""
        if render.prompt_dialect == PLAIN:
            return PromptSchedule.constant(self.conditioning(render.prompt, clip_skip=render.clip_skip, chunks=render.prompt_chunks))
        return self._in_dialect(render.prompt, render, calls, before)

    def negative_schedule(self, render: Render, *, calls: int, before: int = 0) -> PromptSchedule:
        """The negative prompt of a Render in its dialect, or that of none at all. In a dialect clip skip is for both prompts."""
        if render.prompt_dialect == PLAIN:
            return PromptSchedule.constant(self.negative(render.negative, chunks=render.prompt_chunks))
        if not render.negative and render.prompt_dialect in A1111:
            nothing = self.negative(None)
            if not any(value.any() for value in nothing.values()):  # zeros: A1111 has them of an empty prompt too
                return PromptSchedule.constant(nothing)
        return self._in_dialect(render.negative or "", render, calls, before, negative=True)

    def _in_dialect(self, text: str, render: Render, calls: int, before: int, *, negative: bool = False) -> PromptSchedule:
        read = read_prompt(text, render.prompt_dialect, steps=calls, before=before, negative=negative)
        return PromptSchedule([Timeline(one.weight, one.texts, self._weighted(one.texts, render)) for one in read])

    def _weighted(self, timed: Sequence[Timed], render: Render) -> list[Conditioning]:
        """The conditioning of each text, distinct ones encoded once and together."""
        encode, dialect = self._family.encode_weighted, render.prompt_dialect
        assert encode is not None, "the resolver refuses a dialect for such a family"
        counts = _counts(timed)
        texts = [WeightedText(pieces_of(text, dialect), count) for text, count in counts.items()]
        key = weighted_key(timed, render)
        found = self._once(key, lambda: encode(self._parts, texts, dialect=dialect, clip_skip=render.clip_skip))
        rows = {text: {name: value[row : row + 1] for name, value in found.items()} for row, text in enumerate(counts)}
        return [rows[one.text] for one in timed]

    def negative(self, text: str | None, *, chunks: int = 1) -> Conditioning:
        """The conditioning (1, T, D) of a negative prompt, or of none at all (None)."""
        parts, key = replace(self._parts, prompt_chunks=chunks), negative_key(self._family, text, chunks)
        if text is None:
            return self._once(key, lambda: self._family.encode_unconditional(parts, 1))
        return self._once(key, lambda: self._family.negatives(parts, [self._checked(parts, text)]))

    def _once(self, key: Hashable, encode: Callable[[], Conditioning]) -> Conditioning:
        import torch

        if key not in self._known:
            with torch.no_grad():
                self._known[key] = encode()
            self.encodes += 1
        return self._known[key]

    def _checked(self, parts: Parts, text: str) -> str:
        if note := truncation_note(self._family, parts, text):
            self._on_note(note)
        return text


def prompt_key(text: str, clip_skip: int | None, chunks: int) -> Hashable:
    """The cache key of a prompt's conditioning."""
    return (text, clip_skip, chunks)


def weighted_key(timed: Sequence[Timed], render: Render) -> Hashable:
    """The cache key of the conditioning of the texts that a prompt has by step, in a dialect."""
    return (tuple(_counts(timed).items()), render.clip_skip, render.prompt_dialect)


def _counts(timed: Sequence[Timed]) -> dict[str, int]:
    """For how many turns each text is used, in one order for schedules of the same texts: they share what is encoded."""
    return dict(sorted(Counter(one.text for one in timed).items()))


def negative_key(family: Family, text: str | None, chunks: int) -> Hashable:
    """The cache key of a negative prompt's conditioning: that of a prompt of that text, unless the family encodes negatives differently."""
    return (text, None, chunks) if family.encode_negatives is None else (text, None, chunks, "negative")


def truncation_note(family: Family, parts: Parts, text: str) -> str | None:
    """The sentence for a prompt that is longer than what the text encoders read; None for one that is not."""
    needed, fit = family.count_tokens(parts, text)
    if needed <= fit:
        return None
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    more = f" prompt_chunks={chunks_needed(needed, fit, chunks=parts.prompt_chunks)} reads all of it." if family.one_chunk is None else ""
    return f"The prompt {shown!r} is truncated: it needs {needed} tokens and {fit} fit; the model does not see its end.{more}"


def job_of(
    family: Family,
    parts: Parts,
    render: Render,
    prompts: Prompts,
    *,
    start: Start | None = None,
    before: int = 0,
    steerings: Sequence[Steering] = (),
    before_step: Callable[[int, int], None] | None = None,
    adapters: Callable[[int, int], Mapping[str, float]] | None = None,
    watch: Callable[[Any], None] | None = None,
) -> Job:
    """The denoising of a resolved Render, its prompts encoded with the adapters that are set; guided by the family's rule.

    `before` are the denoiser calls of the pass before a second one; `watch` is called with its scheduler.
    """
    if render.steps is None or render.guidance is None or render.width is None or render.height is None:
        raise ValueError("Only a resolved Render can be drawn: steps, guidance, width and height are needed.")
    guided = family.guided(parts, render.guidance, negative=render.negative is not None)
    scheduler = build_scheduler(parts, render.sampler, schedule=chosen_schedule(render.schedule, render.sigma_min, render.sigma_max))
    if watch is not None:
        watch(scheduler)
    walked = start.walked if start is not None and start.walked is not None else render.steps
    calls = walked * int(getattr(scheduler, "order", 1))  # A1111 counts two for samplers of second order
    return Job(
        conditional=prompts.schedule(render, calls=calls, before=before),
        unconditional=prompts.negative_schedule(render, calls=calls, before=before) if guided else None,
        guidance=render.guidance,
        eta=render.eta or 0.0,
        rescale=render.rescale or 0.0,
        steps=render.steps,
        scheduler=scheduler,
        seed=render.seed,
        height=render.height,
        width=render.width,
        start=start,
        steerings=steerings,
        before_step=before_step,
        adapters=adapters,
    )


def calls_of(parts: Parts, render: Render) -> int:
    """The steps of a resolved Render's pass as A1111 counts them: two each for samplers of second order."""
    return (render.steps or 0) * int(getattr(build_scheduler(parts, render.sampler), "order", 1))


def draw_latents(
    family: Family,
    parts: Parts,
    render: Render,
    prompts: Prompts,
    *,
    start: Start | None = None,
    before: int = 0,
    steerings: Sequence[Steering] = (),
    counter: Work | None = None,
    on_step: Callable[[int, int], None] | None = None,
    before_step: Callable[[int, int], None] | None = None,
    watch: Callable[[Any], None] | None = None,
) -> Tensor:
    """The latents (1, C, H, W) of a resolved Render, drawn alone with the adapters that are set."""
    job = job_of(family, parts, render, prompts, start=start, before=before, steerings=steerings, before_step=before_step, watch=watch)
    (latents,) = denoise(family, parts, [job], counter=counter, on_step=on_step)
    return latents


def draw_image(family: Family, parts: Parts, latents: Tensor, *, tile: int | None = None) -> Image:
    """The image of latents (1, C, H, W), decoded in tiles of so many pixels a side. Raises JobFailed for NaN or infinite pixels."""
    import torch

    with torch.no_grad():
        return to_image(decode_tiled(family.decode, parts, latents, tile), latents)[0]


def most_decoded(width: int, height: int, *, images: int) -> int:
    """How many of so many images of a size share a call of the VAE, 1 at least."""
    return max(1, min(MOST_DECODED, DECODED_PIXELS // (width * height), images))


def draw_images(family: Family, parts: Parts, latents: Tensor) -> list[Image]:
    """The images of latents (B, C, H, W), decoded at once. Raises JobFailed for NaN or infinite pixels."""
    import torch

    with torch.no_grad():
        return to_image(family.decode(parts, latents), latents)
