"""Images drawn while training: the same prompts and seeds each time, through infer's own loop, into samples/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.family import Family
from registry.formats.atomic_file import atomic_file
from registry.parts import Conditioning, Parts
from registry.progress import Report, Tick
from train.config import TrainConfig
from train.loop.encode import Prompts, Texts
from train.loop.step import cast

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from train.loop.step import TrainState


def sample_name(step: int, number: int) -> str:
    """File name of the image of prompt `number` (from 1) at a step."""
    return f"step-{step:06d}-{number:02d}.png"


def encode_unconditional(family: Family, parts: Parts, *, guidance: float, device: torch.device) -> Conditioning | None:
    """The conditioning of no negative prompt, on the CPU; None where the family makes no unconditional pass at this guidance."""
    import torch

    if not family.guided(parts, guidance, negative=False):
        return None
    for encoder in parts.text_encoders.values():
        encoder.to(device)
    with torch.no_grad():
        state = family.encode_unconditional(parts, 1)
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


@dataclass(kw_only=True)
class PromptPreviews:
    """The preview prompts of a run, encoded before the text encoders were let go; read anew each time where these learn."""

    config: TrainConfig
    folder: Path
    texts: Texts | Prompts
    nothing: Conditioning | None
    report: Report

    def draw(self, learner: TrainState, step: int) -> list[Path]:
        """One image a prompt with the weights as they are; training's own randomness is not touched."""
        with learner.evaluating():
            images = self._images(learner)
        paths = []
        prompts = self.config.preview.prompts or []
        for number, (prompt, image) in enumerate(zip(prompts, images, strict=True), 1):
            path = self.folder / "samples" / sample_name(step, number)
            _write(
                path,
                image,
                self._told(prompt, number, step),
            )
            paths.append(path)
        return paths

    def _told(self, prompt: str, number: int, step: int) -> str:
        """A1111's parameters text, so that viewers show what made the image."""
        settings = self.config.preview
        return f"{prompt}\nSteps: {settings.steps}, CFG scale: {settings.guidance}, Seed: {self._seed(number)}, trained steps: {step}"

    def _seed(self, number: int) -> int:
        return self.config.preview.seed + number - 1

    def _images(self, learner: TrainState) -> Sequence[Image]:
        import torch

        from infer.draw.denoise import Job, denoise, to_image
        from infer.draw.samplers import build_scheduler

        family, parts, device = learner.family, learner.parts, learner.device
        settings, side = self.config.preview, learner.resolution
        assert settings.steps is not None and settings.guidance is not None
        nothing = None if self.nothing is None else cast(self._nothing(learner), device, parts.dtype)
        jobs = [
            Job(
                conditional=cast(self._read(learner, number), device, parts.dtype),
                unconditional=nothing,
                guidance=settings.guidance,
                steps=settings.steps,
                scheduler=build_scheduler(parts),
                seed=self._seed(number + 1),
                height=side,
                width=side,
            )
            for number in range(len(self.texts.index))
        ]
        states = torch.get_rng_state()
        try:
            latents = denoise(family, parts, jobs, width=4, on_step=lambda done, total: self.report(Tick("draw previews", done, total)))
            parts.vae.to(device)
            with torch.no_grad():
                return [image for each in latents for image in to_image(family.decode(parts, each))]
        finally:
            parts.vae.to("cpu")
            torch.set_rng_state(states)

    def _read(self, learner: TrainState, number: int) -> Conditioning:
        """What the denoiser is told by prompt `number` (from 0)."""
        import torch

        told = self.texts.rows([number])
        if not isinstance(told, list):
            return told
        with torch.no_grad():
            return learner.family.encode_prompts(learner.parts, told)

    def _nothing(self, learner: TrainState) -> Conditioning:
        """What it is told by no negative prompt."""
        import torch

        if isinstance(self.texts, Texts):
            assert self.nothing is not None
            return self.nothing
        with torch.no_grad():
            return learner.family.encode_unconditional(learner.parts, 1)


def _write(path: Path, image: Image, parameters: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("parameters", parameters)
    with atomic_file(path) as file:
        image.save(file, format="PNG", pnginfo=info)
