"""Sample images while training: the same prompts and seeds each time, through infer's sampling loop, into samples/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.architectures.vae.tiles import decode_tiled
from registry.family import Family
from registry.formats.atomic_file import atomic_file
from registry.parts import Conditioning, Parts
from registry.progress import Report, Tick
from train.config import TrainConfig
from train.loop.encode import Prompts, Texts
from train.loop.step import cast
from train.slider.scale import AdapterScale

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from train.loop.step import TrainState


WEIGHTS = (-1.0, 0.0, 1.0)  # at which a slider's prompts are drawn


def side_by_side(images: Sequence[Image]) -> Image:
    """Images of one size in a row."""
    from PIL import Image

    width, height = images[0].size
    row = Image.new("RGB", (width * len(images), height))
    for place, image in enumerate(images):
        row.paste(image, (place * width, 0))
    return row


def sample_name(step: int, number: int) -> str:
    """File name of the image of prompt `number` (from 1) at a step."""
    return f"step-{step:06d}-{number:02d}.png"


def encode_unconditional(family: Family, parts: Parts, *, guidance: float, device: torch.device) -> Conditioning | None:
    """The conditioning of no negative prompt, on the CPU; None where the family makes no unconditional pass at this guidance."""
    return encode_no_prompt(family, parts, device=device) if family.guided(parts, guidance, negative=False) else None


def encode_no_prompt(family: Family, parts: Parts, *, device: torch.device) -> Conditioning:
    """The conditioning of no prompt, on the CPU."""
    import torch

    for encoder in parts.text_encoders.values():
        encoder.to(device)
    with torch.no_grad():
        state = family.encode_unconditional(parts, 1)
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


@dataclass(kw_only=True)
class PromptPreviews:
    """The preview prompts of a run, encoded before the text encoders are freed; encoded again for every preview where these are trained."""

    config: TrainConfig
    folder: Path
    texts: Texts | Prompts
    unconditional: Conditioning | None
    report: Report
    scale: AdapterScale | None = None  # of a slider: each prompt is drawn at its two ends and at the base, side by side

    def draw(self, state: TrainState, step: int) -> list[Path]:
        """One image per prompt with the current weights; the training's random states are left unchanged."""
        with state.evaluating():
            images = self.images(state) if self.scale is None else self._ends(state, self.scale)
        paths = []
        prompts = self.config.preview.prompts or []
        for number, (prompt, image) in enumerate(zip(prompts, images, strict=True), 1):
            path = self.folder / "samples" / sample_name(step, number)
            _write(
                path,
                image,
                self._parameters_text(prompt, number, step),
            )
            paths.append(path)
        return paths

    def _parameters_text(self, prompt: str, number: int, step: int) -> str:
        """A1111's parameters text, which image viewers show."""
        settings = self.config.preview
        weights = "" if self.scale is None else f", adapter weights: {', '.join(f'{weight:g}' for weight in WEIGHTS)}"
        skip = f", Clip skip: {self.config.clip_skip + 1}" if self.config.clip_skip else ""  # A1111 counts from 1
        steps = f"Steps: {settings.steps}, CFG scale: {settings.guidance}, Seed: {self._seed(number)}"
        return f"{prompt}\n{steps}{skip}{weights}, trained steps: {step}"

    def _seed(self, number: int) -> int:
        return self.config.preview.seed + number - 1

    def _ends(self, state: TrainState, scale: AdapterScale) -> Sequence[Image]:
        """One image per prompt: those at the weights WEIGHTS side by side, all of one seed."""
        rows = []
        for weight in WEIGHTS:
            with scale.at(weight):
                rows.append(self.images(state))
        return [side_by_side(images) for images in zip(*rows, strict=True)]

    def images(self, state: TrainState, *, steps: int | None = None) -> Sequence[Image]:
        """One image per prompt, in as many steps as previews have unless given. The modules must be in eval mode."""
        import torch

        from infer.draw.denoise import to_image

        family, parts, device = state.family, state.parts, state.device
        settings, count = self.config.preview, len(self.texts.index)
        assert settings.steps is not None and settings.guidance is not None
        states = torch.get_rng_state()
        try:
            latents = denoised(
                state,
                [encoded(state, self.texts, number) for number in range(count)],
                None if self.unconditional is None else self._unconditional(state),
                guidance=settings.guidance,
                steps=steps or settings.steps,
                seeds=[self._seed(number) for number in range(1, count + 1)],
                side=state.resolution,
                report=self.report,
            )
            parts.vae.to(device)
            with torch.no_grad():
                pixels = ((decode_tiled(family.decode, parts, each, settings.vae_tiling), each) for each in latents)
                return [image for decoded, each in pixels for image in to_image(decoded, each)]
        finally:
            parts.vae.to("cpu")
            torch.set_rng_state(states)

    def _unconditional(self, state: TrainState) -> Conditioning:
        """The conditioning of no negative prompt."""
        import torch

        if isinstance(self.texts, Texts):
            assert self.unconditional is not None
            return self.unconditional
        with torch.no_grad():
            return state.family.encode_unconditional(state.parts, 1)


def denoised(
    state: TrainState,
    conditionals: Sequence[Conditioning],
    unconditional: Conditioning | None,
    *,
    guidance: float,
    steps: int,
    seeds: Sequence[int],
    side: int,
    report: Report,
) -> list[Tensor]:
    """Latents (1, C, H, W) drawn by the weights as they are, one a prompt; random states are left unchanged."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler

    family, parts, device = state.family, state.parts, state.device
    jobs = [
        Job(
            conditional=cast(conditional, device, parts.dtype),
            unconditional=None if unconditional is None else cast(unconditional, device, parts.dtype),
            guidance=guidance,
            steps=steps,
            scheduler=build_scheduler(parts),
            seed=seed,
            height=side,
            width=side,
        )
        for conditional, seed in zip(conditionals, seeds, strict=True)
    ]
    states = torch.get_rng_state()
    try:
        width = max(1, state.config.images_a_pass // (1 if unconditional is None else 2))  # a guided image has two rows
        return denoise(family, parts, jobs, width=width, on_step=lambda done, total: report(Tick("draw previews", done, total)))
    finally:
        torch.set_rng_state(states)


def encoded(state: TrainState, texts: Texts | Prompts, number: int) -> Conditioning:
    """The conditioning of a prompt."""
    import torch

    text = texts.rows([number])
    if not isinstance(text, list):
        return text
    with torch.no_grad():
        return state.family.encode_prompts(state.parts, text, clip_skip=state.config.clip_skip)


def _write(path: Path, image: Image, parameters: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("parameters", parameters)
    with atomic_file(path) as file:
        image.save(file, format="PNG", pnginfo=info)
