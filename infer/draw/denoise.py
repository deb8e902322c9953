"""The denoising loop: many images at once, each with its own sampler, steps, guidance, prompt and seed.

One loop for every family. An image is the one that the stock diffusers pipeline draws: the seed is
`torch.Generator("cpu").manual_seed(seed)`, it draws the first noise and then feeds the sampler, one generator an image.
"""

# B rows of one forward, C channels, H W latent size, T tokens, D width

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from infer.draw.control import ControlCall, Steering, encode_hints, steered
from infer.draw.start import InpaintBackground, Start, check_strength, first_step, start_latents
from infer.prompt.conditionings import PromptSchedule
from infer.sharing.adapter_rows import RowAdapters
from registry.errors import JobFailed, Refused
from registry.family import Family
from registry.parts import Conditioning, Parts, collate

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


@dataclass(kw_only=True)
class Job:
    """One image to draw: everything the loop needs beside the model. Conditionings are of batch 1."""

    conditional: Conditioning | PromptSchedule
    unconditional: Conditioning | PromptSchedule | None  # used where the family's rule calls for a pass without the prompt
    guidance: float
    steps: int
    scheduler: Any  # a fresh one of infer.draw.samplers.build_scheduler: it keeps this image's state
    seed: int
    height: int  # pixels
    width: int  # pixels
    eta: float = 0.0  # fresh noise at each step, of schedulers that take it
    rescale: float = 0.0  # guidance rescale
    start: Start | None = None  # None: from noise
    stop: int | None = None  # sampler steps after which the latents are given, still noisy; None: all
    steerings: Sequence[Steering] = ()  # ControlNets with their hints
    before_step: Callable[[int, int], None] | None = None  # (step, of steps): changes the model: the job shares no forward
    adapters: Callable[[int, int], Mapping[str, float]] | None = None  # (step, of steps) -> weights, where forwards are shared


@dataclass
class Counter:
    """Work done: denoiser calls, the rows (images, doubled by guidance) in them, and ControlNet calls."""

    forwards: int = 0
    rows: int = 0
    control_calls: int = 0


@dataclass(kw_only=True)
class Walk:
    """A job in progress, begun by `begin`: the index of its next timestep, and its latents (1, C, H, W)."""

    index: int
    job: Job
    conditional: PromptSchedule
    unconditional: PromptSchedule | None
    generator: torch.Generator
    timesteps: Tensor  # the scheduler's own, from where this image starts
    latents: Tensor
    step_options: dict[str, Any]
    background: InpaintBackground | None = None  # what stays under a mask
    hints: Sequence[Tensor] = ()  # of the job's steerings, as their nets take them
    at: int = 0
    kind: tuple[Any, ...] = field(default=())  # jobs of one kind can share a forward

    @property
    def done(self) -> bool:
        return self.at >= len(self.timesteps)


def check_size(family: Family, parts: Parts, *, height: int, width: int) -> None:
    """Refuse a size that is no multiple of what the family can draw, or beyond the position embeddings of this build."""
    if height <= 0 or width <= 0 or height % family.size_multiple or width % family.size_multiple:
        least = "" if min(height, width) > 0 else f", {family.size_multiple} at least"
        raise Refused(f"The size is {width}x{height} pixels; {family.name} draws multiples of {family.size_multiple} pixels a side{least}.")
    most = family.largest_side(parts)
    if most is not None and max(height, width) > most:
        raise Refused(
            f"The size is {width}x{height} pixels; this build of {family.name} has position embeddings for {most} a side. "
            f"Draw a smaller image."
        )


def initial_noise(family: Family, parts: Parts, generator: torch.Generator, *, height: int, width: int) -> Tensor:
    """The first noise (1, C, H, W) of a drawing, unit variance: the pipeline's own shape and dtype, on the model's device."""
    import torch

    check_size(family, parts, height=height, width=width)
    shape = (1, family.channels(parts), height // parts.latent_factor, width // parts.latent_factor)
    dtype = torch.float32 if family.fp32_latents else parts.dtype
    return torch.randn(shape, generator=generator, dtype=dtype).to(parts.device)


def denoise(
    family: Family,
    parts: Parts,
    jobs: Sequence[Job],
    *,
    width: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    counter: Counter | None = None,
) -> list[Tensor]:
    """The final latents (1, C, H, W) of every job, in order.

    Jobs of one size and one shape of conditioning share forwards whatever else differs; at most `width` of them are on their
    way at once (None: all), and a finished one makes room for the next. `on_step(done, total)` is called after each forward
    with sampler calls done and to do.
    """
    import torch

    counter = counter if counter is not None else Counter()
    with torch.no_grad():
        begun = [begin(family, parts, index, job) for index, job in enumerate(jobs)]
        finished: list[Tensor | None] = [walk.latents if walk.done else None for walk in begun]  # one with stop=0 is done
        waiting = [walk for walk in begun if not walk.done]
        total = sum(len(walk.timesteps) for walk in waiting)
        done = 0
        active: list[Walk] = []
        while waiting or active:
            while waiting and (width is None or len(active) < width) and (not active or waiting[0].kind == active[0].kind):
                active.append(waiting.pop(0))
            advance(family, parts, active, counter)
            done += len(active)
            for walk in active:
                if walk.done:
                    finished[walk.index] = walk.latents
            active = [walk for walk in active if not walk.done]
            if on_step is not None:
                on_step(done, total)
    return [latents for latents in finished if latents is not None]


def begin(family: Family, parts: Parts, index: int, job: Job) -> Walk:
    """The walk `index`: the job with its timesteps set, its first noise drawn and its conditioning completed."""
    import torch

    if job.unconditional is not None and not family.classifier_free(parts):
        raise Refused(
            f"This build of {family.name} has its guidance embedded and no unconditional pass, so a negative prompt would have no effect. "
            "Leave it out."
        )
    strength, walked = (job.start.strength, job.start.walked) if job.start is not None else (None, None)
    timesteps = set_timesteps(family, job.scheduler, job.steps, strength=strength, walked=walked, height=job.height, width=job.width)
    timesteps = timesteps[: job.stop]
    generator = torch.Generator("cpu").manual_seed(job.seed)
    hints = encode_hints(family, parts, job.steerings, generator)  # before the noise, as in the pipelines
    latents, background = _first_latents(family, parts, job, timesteps, generator)
    complete = partial(family.complete, parts, height=job.height, width=job.width, guidance=job.guidance)
    conditional = _schedule(job.conditional).each(complete)
    unconditional = None
    if job.unconditional is not None and family.guided(parts, job.guidance, negative=True):
        unconditional = _schedule(job.unconditional).each(complete)
    return Walk(
        index=index,
        job=job,
        conditional=conditional,
        unconditional=unconditional,
        generator=generator,
        timesteps=timesteps,
        latents=latents,
        background=background,
        step_options=_step_options(job.scheduler, generator, job.eta),
        hints=hints,
        kind=(job.height, job.width, *_shapes(conditional.at(0)[0][0])),
    )


def _schedule(given: Conditioning | PromptSchedule) -> PromptSchedule:
    return given if isinstance(given, PromptSchedule) else PromptSchedule.constant(given)


def _shapes(conditioning: Conditioning) -> tuple[Any, ...]:
    """What rows of one forward have in common."""
    return tuple((key, value.shape[1:], value.dtype) for key, value in sorted(conditioning.items()))


def set_timesteps(
    family: Family, scheduler: Any, steps: int, *, strength: float | None, height: int, width: int, walked: int | None = None
) -> Tensor:
    """Set the scheduler's timesteps, and give those that are run: all of them, or the last ones that image-to-image takes."""
    family.set_timesteps(scheduler, steps, height=height, width=width)
    if strength is None:
        if hasattr(scheduler, "set_begin_index"):  # rounded timesteps may begin with two equal ones; looked up, the second would be taken
            scheduler.set_begin_index(0)
        return scheduler.timesteps  # type: ignore[no-any-return]  # diffusers is untyped
    if walked is None:
        check_strength(family, steps=steps, strength=strength)
    first = first_step(family, scheduler, steps, strength, walked=walked)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]  # type: ignore[no-any-return]


def _first_latents(
    family: Family, parts: Parts, job: Job, timesteps: Tensor, generator: torch.Generator
) -> tuple[Tensor, InpaintBackground | None]:
    def noise() -> Tensor:
        return initial_noise(family, parts, generator, height=job.height, width=job.width)

    if job.start is not None:
        return start_latents(family, parts, job.start, job.scheduler, timesteps, generator, noise)
    return noise() * getattr(job.scheduler, "init_noise_sigma", 1.0), None  # known only once the timesteps are set


def _step_options(scheduler: Any, generator: torch.Generator, eta: float) -> dict[str, Any]:
    """What the pipelines hand to every step that takes it: the image's generator, and eta."""
    options = {"generator": generator, "eta": eta}
    accepted = inspect.signature(scheduler.step).parameters
    return {key: value for key, value in options.items() if key in accepted}


@dataclass(kw_only=True)
class _Row:
    """One row of a forward: an image's latents with one of its conditionings."""

    walk: Walk
    conditioning: Conditioning
    weight: float | None  # of a prompt; None: the unconditional row

    @property
    def adapters(self) -> Mapping[str, float]:
        """Its own weights at this step, where it has such."""
        walk = self.walk
        return walk.job.adapters(walk.at, len(walk.timesteps)) if walk.job.adapters is not None else {}


def _grouped(rows: Sequence[_Row], by: Callable[[_Row], Hashable]) -> dict[Hashable, list[_Row]]:
    groups: dict[Hashable, list[_Row]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return groups


def advance(family: Family, parts: Parts, active: Sequence[Walk], counter: Counter, *, adapters: RowAdapters | None = None) -> None:
    """One denoiser call for all, and one sampler step each. Rows are the unconditional ones, then the conditional ones.

    `adapters` gives each row the adapters of its own image, and rows of equal ones lie together; None: all have those that are set in the
    model.
    """
    for walk in active:
        if walk.job.before_step is not None:
            assert len(active) == 1, "a job that changes the model shares no forward"
            walk.job.before_step(walk.at, len(walk.timesteps))
    guided = [walk for walk in active if walk.unconditional is not None]
    rows = [_Row(walk=walk, conditioning=walk.unconditional.at(walk.at)[0][0], weight=None) for walk in guided if walk.unconditional]
    rows += [_Row(walk=walk, conditioning=one, weight=weight) for walk in active for one, weight in walk.conditional.at(walk.at)]
    if adapters is not None:
        rows = list(chain.from_iterable(_grouped(rows, lambda row: tuple(sorted(row.adapters.items()))).values()))
    predicted = _predicted(family, parts, rows, counter, adapters)
    for walk in active:
        time = walk.timesteps[walk.at]
        own = [(row.weight, guess) for row, guess in zip(rows, predicted, strict=True) if row.walk is walk]
        guess = _guess(family, walk, own)
        walk.latents = walk.job.scheduler.step(guess, time, walk.latents, return_dict=False, **walk.step_options)[0]
        walk.at += 1
        if walk.background is not None:
            coming = None if walk.done else walk.timesteps[walk.at : walk.at + 1]
            walk.latents = walk.background.blend(walk.latents, walk.job.scheduler, coming)


def _guess(family: Family, walk: Walk, own: Sequence[tuple[float | None, Tensor]]) -> Tensor:
    """The guided prediction of an image: u + g sum w (c - u) over its prompts (composable diffusion, Liu et al. 2022, eq. 11)."""
    without = next((guess for weight, guess in own if weight is None), None)
    prompts = [(weight, guess) for weight, guess in own if weight is not None]
    if walk.conditional.is_one:
        guess = prompts[0][1]
        return guess if without is None else rescaled(family.guide(guess, without, walk.job.guidance), guess, walk.job.rescale)
    if without is None:  # one prompt whose weight scales nothing
        return prompts[0][1]
    guess = without
    for weight, one in prompts:
        guess = guess + (one - without) * (weight * walk.job.guidance)
    return guess


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`guided` (B, C, H, W) with that share of it at the spread of the prompt's own prediction (Lin et al. 2023, eq. 15 and 16)."""
    if not share:
        return guided
    dims = list(range(1, guided.ndim))
    factor = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return share * (guided * factor) + (1 - share) * guided


def _predicted(family: Family, parts: Parts, rows: Sequence[_Row], counter: Counter, adapters: RowAdapters | None) -> list[Tensor]:
    """The prediction (1, C, H, W) of each row. Rows share a forward but where prompts have no mask and another number of chunks."""
    import torch

    inputs = {walk.index: _scaled(walk, walk.timesteps[walk.at]) for walk in {row.walk.index: row.walk for row in rows}.values()}
    shared = _first_twins(rows, inputs) if adapters is not None else {}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if place in shared:
            continue
        masked = any(value.dtype == torch.bool for value in row.conditioning.values())  # then `collate` pads them to one length
        groups.setdefault(() if masked else _shapes(row.conditioning), []).append(place)
    found: dict[int, Tensor] = {}
    for places in groups.values():
        guesses = _forward(family, parts, [rows[place] for place in places], inputs, counter, adapters)
        found |= {place: guesses[number : number + 1] for number, place in enumerate(places)}
    return [found[shared.get(place, place)] for place in range(len(rows))]


def _first_twins(rows: Sequence[_Row], inputs: Mapping[int, Tensor]) -> dict[int, int]:
    """Rows of a first step -> the row before them that is the same in all: images of one seed that differ in prompts share the one without.

    From the second step on no two are equal.
    """
    twins: dict[int, int] = {}
    seen: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        walk = row.walk
        if walk.at == 0 and not walk.job.steerings:
            time, own = float(walk.timesteps[0]), tuple(sorted(row.adapters.items()))
            alike = seen.setdefault((walk.kind, time, own, _identity(row.conditioning)), [])
            twin = next((one for one in alike if inputs[rows[one].walk.index].equal(inputs[walk.index])), None)
            if twin is None:
                alike.append(place)
            else:
                twins[place] = twin
    return twins


FEW = 16  # numbers that are compared one by one; larger tensors are equal where they are one in memory


def _identity(conditioning: Conditioning) -> Hashable:
    """What conditionings of one prompt have in common: each text is encoded once."""
    return tuple(
        (name, tuple(value.flatten().tolist()) if value.numel() <= FEW else (value.data_ptr(), value.shape, value.stride()))
        for name, value in sorted(conditioning.items())
    )


def _forward(
    family: Family, parts: Parts, rows: Sequence[_Row], inputs: dict[int, Tensor], counter: Counter, adapters: RowAdapters | None
) -> Tensor:
    import torch

    noisy = torch.cat([inputs[row.walk.index] for row in rows])
    times = [float(row.walk.timesteps[row.walk.at]) for row in rows]
    timesteps = torch.tensor(times, dtype=torch.float32, device=parts.device)
    conditioning = collate([row.conditioning for row in rows])
    if adapters is not None:
        adapters.use([row.adapters for row in rows])
    control, calls = steered(family, parts, noisy, timesteps, conditioning, _control_calls(rows))
    counter.control_calls += calls
    counter.forwards += 1
    counter.rows += len(rows)
    return family.predict(parts, noisy, timesteps, conditioning, **({} if control is None else {"control": control}))


def _control_calls(rows: Sequence[_Row]) -> list[ControlCall]:
    """The ControlNets active at this step, with the rows of their image: the unconditional one first."""
    calls: list[ControlCall] = []
    for walk in {row.walk.index: row.walk for row in rows}.values():
        own = tuple(place for place, row in enumerate(rows) if row.walk is walk)
        for turn, (steering, hint) in enumerate(zip(walk.job.steerings, walk.hints, strict=True)):
            if steering.is_active(walk.at, len(walk.timesteps)):
                calls.append(ControlCall(turn, steering, hint, own))
    return calls


def _scaled(walk: Walk, time: Any) -> Tensor:
    """The latents scaled for the model by the scheduler."""
    scale = getattr(walk.job.scheduler, "scale_model_input", None)
    scaled: Tensor = walk.latents if scale is None else scale(walk.latents, time)
    return scaled


def to_image(pixels: Tensor, latents: Tensor | None = None) -> list[Image]:
    """Images of pixels (B, 3, h, w) in [-1, 1], clamped and rounded as diffusers does it. Raises JobFailed for NaN or infinite pixels.

    `latents` are what they were decoded from: they tell whether the VAE is the cause.
    """
    from PIL import Image

    finite = pixels.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = [str(row) for row in range(len(pixels)) if not finite[row]]
        cause = _cause(pixels, None if latents is None else latents[~finite])
        raise JobFailed(f"Image {', '.join(bad)} of {len(pixels)} came out as not-a-number. {cause}")
    values = (pixels / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
    return [Image.fromarray(image) for image in _bytes(values)]


def _cause(pixels: Tensor, latents: Tensor | None) -> str:
    """Why pixels are no numbers, as far as they and the latents show it, and what to do."""
    import torch

    by_vae = latents is not None and bool(latents.isfinite().all())
    part = "The VAE's image" if by_vae else "It" if latents is None else "What the denoiser gives"
    if torch.float16 in (pixels.dtype, pixels.dtype if latents is None else latents.dtype):
        return f"{part} holds NaN or infinity in fp16, whose range some models overflow: give precision=bf16 or fp32."
    damaged = "VAE are" if by_vae else "base, of a ControlNet or of an embedding are"
    return (
        f"{part} holds NaN or infinity in {str(pixels.dtype).removeprefix('torch.')}, whose range no sound model overflows: weights of the "
        f"{damaged} NaN{'' if by_vae else ', or an adapter has far too large a weight'}. Fetch the file again, or take another."
    )


def _bytes(values: Any) -> Iterable[Any]:
    return (values * 255).round().astype("uint8")  # type: ignore[no-any-return]  # numpy arrays all the way
