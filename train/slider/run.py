"""A pass of a concept slider: noisy latents drawn by the model itself or made of images, and what is learned at both signs."""

# B images of one pass, C channels, H W latent size

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infer.draw.denoise import Job, denoise
from infer.draw.samplers import build_scheduler
from registry.parts import Conditioning
from train.loop.batches import Batch
from train.loop.encode import Texts
from train.loop.rng import draws_for, seed_of
from train.loop.step import Pass, TrainState, cast, denoising_pass
from train.lora import adapter_disabled
from train.objective.slider import Slider, ends_of, sampler_step, signs_of
from train.slider.dataset import STEPS
from train.slider.scale import AdapterScale

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SliderPass(Pass):
    """A pass at the adapter's weight +1, and what goes in and should come out at -1."""

    opposite_noisy: Tensor  # (B, C, H, W)
    opposite_target: Tensor  # (B, C, H, W)


@dataclass(frozen=True, kw_only=True)
class SliderRun:
    """A slider in training: its prompts encoded, and the adapter's scale."""

    slider: Slider
    texts: Texts  # of Slider.prompts
    unconditional: Conditioning | None  # for drawing, where the family's guidance makes such a pass
    guidance: float  # of drawing
    scale: AdapterScale
    drawn: bool  # noisy latents are drawn: there are no images
    pairs: int = 0  # where images come in pairs: the negative image's item is so many places behind the positive one's

    def make_pass(self, state: TrainState, step: int, batch: Batch, of: int) -> Pass:
        """The pass of these places of a step. Images of a pair get the same noise, timestep, part of the image and prompt."""
        if self.drawn:
            return self._moved(state, self._draw(state, step, batch, of))
        made = denoising_pass(state, step, batch, of)
        if not self.pairs:
            return self._moved(state, made)
        other = denoising_pass(state, step, replace(batch, items=tuple(item + self.pairs for item in batch.items)), of)
        return SliderPass(**vars(made), opposite_noisy=other.noisy, opposite_target=other.target)

    def opposite(self, state: TrainState, made: Pass, prediction: Tensor) -> Tensor:
        """What makes of each image's loss at weight +1 the mean of those at +1 and at -1 (B,)."""
        assert isinstance(made, SliderPass)
        with self.scale.at(-1.0):
            other = state.predict(state.model, made.opposite_noisy, made.timesteps, made.text, made.crops)
        weights = None if made.weights is None else made.weights.to(state.device)
        losses = state.objective.losses
        at_one = losses(prediction, made.target.to(state.device), made.rows, weights)
        return (losses(other, made.opposite_target.to(state.device), made.rows, weights) - at_one) / 2

    def text(self, held: Sequence[int], which: int) -> Conditioning:
        """The batch's target (0), positive (1) or negative prompts (2), each under the text that is held."""
        return self.texts.rows([3 * number + which for number in held])

    def held(self, state: TrainState, step: int, place: int) -> int:
        """Which preserved text the image at this place gets."""
        return self.slider.held((seed_of("slider preserve", state.config.seed, step, place) % 2**52) / 2**52)

    def _moved(self, state: TrainState, made: Pass) -> SliderPass:
        """The pass with the slider's prompts, and with the base's prediction moved to both ends as targets."""
        held = [self.held(state, made.step, place) for place in made.batch.places]
        base, positive, negative = self.predictions(state, made, held)
        ends = ends_of(base, positive, negative, guidance=self.slider.guidance)
        fields = vars(made) | {"text": self.text(held, 0), "target": ends[0]}
        return SliderPass(**fields, opposite_noisy=made.noisy, opposite_target=ends[1])

    def predictions(self, state: TrainState, made: Pass, held: Sequence[int]) -> list[Tensor]:
        """What the base itself predicts for the target, the positive and the negative prompt, each (B, C, H, W)."""
        import torch

        with torch.no_grad(), adapter_disabled(state.modules):
            return [state.predict(state.model, made.noisy, made.timesteps, self.text(held, which), made.crops) for which in range(3)]

    def _draw(self, state: TrainState, step: int, batch: Batch, of: int) -> Pass:
        """Latents that the model itself has denoised from noise so far, half of a step's images at each sign of the adapter.

        Each is a function of (seed, step, place) and of the weights. The timestep distribution maps quantiles to how far.
        """
        seed, places = state.config.seed, batch.places
        quantiles = draws_for(seed, step, places, of=of, shape=(1, 1, 1)).quantiles
        shares = [float(share) for share in state.objective.functions.timesteps(quantiles)]
        signs = signs_of(places, seed_of("slider signs", seed, step) % 2)
        seeds = [seed_of("slider noise", seed, step, place) for place in places]
        held = [self.held(state, step, place) for place in places]
        return self.walk(state, step, batch, seeds=seeds, shares=shares, signs=signs, held=held)

    def walk(
        self,
        state: TrainState,
        step: int,
        batch: Batch,
        *,
        seeds: Sequence[int],
        shares: Sequence[float],
        signs: Sequence[float],
        held: Sequence[int],
    ) -> Pass:
        """Images drawn from these seeds until such a share of the timesteps is left, each at this factor on the adapter."""
        import torch

        jobs = [self._job(state, *each) for each in zip(batch.items, seeds, shares, held, strict=True)]
        found: list[tuple[Tensor, float]] = [(torch.empty(0), 0.0)] * len(jobs)
        for sign in sorted(set(signs)):
            mine = [number for number, own in enumerate(signs) if own == sign]
            with self.scale.at(sign):
                latents = denoise(state.family, state.parts, [jobs[number] for number in mine])
            for number, each in zip(mine, latents, strict=True):
                found[number] = _next_input(jobs[number], each)
        noisy = torch.cat([latents for latents, _ in found]).float().cpu()
        times = torch.tensor([time for _, time in found], dtype=torch.float64)
        rows = (state.objective.timesteps[None, :] - times[:, None]).abs().argmin(1)  # the nearest of the table
        text = self.text(held, 0)
        return Pass(step=step, batch=batch, noisy=noisy, target=noisy, rows=rows, timesteps=times, text=text, crops=None)

    def _job(self, state: TrainState, item: int, seed: int, share: float, held: int) -> Job:
        parts, steps, bucket = state.parts, self.slider.draw_steps or STEPS, state.items[item].bucket
        return Job(
            conditional=cast(self.text([held], 0), state.device, parts.dtype),
            unconditional=None if self.unconditional is None else cast(self.unconditional, state.device, parts.dtype),
            guidance=self.guidance,
            steps=steps,
            stop=sampler_step(share, steps),
            scheduler=build_scheduler(parts),
            seed=seed,
            height=bucket.height,
            width=bucket.width,
        )


def _next_input(job: Job, latents: Tensor) -> tuple[Tensor, float]:
    """(what the denoiser gets next (1, C, H, W), its timestep) of a drawing that stopped."""
    scheduler = job.scheduler
    time = scheduler.timesteps[job.stop]
    scale = getattr(scheduler, "scale_model_input", None)
    scaled: Tensor = latents if scale is None else scale(latents, time)
    return scaled, float(time)
