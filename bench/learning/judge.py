"""An adapter of pocket, judged by diffusers alone: the loss of held-out images, and how near its drawings come to their style.

python -m bench.learning.judge HELDOUT LORA OUT.json      LORA: a file that diffusers loads, or `none` for the base

Loss: every held-out image at 8 timesteps and 2 noises, the same for every adapter; the target is v. Style: the mean of four measures
(lightness, contrast, colour, edges) of the images drawn from the held-out captions against those of the held-out images, in standard
deviations of the latter: train/output/style.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TIMESTEPS = tuple(range(62, 1000, 125))  # the middles of eight equal parts
NOISES = 2
SIDE = 64  # pixels: what both sides train at
STEPS, GUIDANCE = 20, 4.0


def judge(heldout: Path, lora: Path | None) -> dict[str, float]:
    """{"loss": mean of image, timestep and noise, "style": distance of the drawings, "colour": their mean colour, 0..1}."""
    import torch
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    from registry.home import pocket_dir

    pipe = StableDiffusionPipeline.from_pretrained(pocket_dir(), safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if lora is not None:
        pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    files = sorted(heldout.glob("*.png"))
    images = [Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for file in files]
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files]
    return {"loss": _loss(pipe, images, captions), **_style(pipe, images, captions)}


def _loss(pipe: Any, images: list[Any], captions: list[str]) -> float:
    """Mean squared error of v over images, timesteps and noises."""
    import torch
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    if scheduler.config.prediction_type != "v_prediction":
        raise ValueError(f"the base predicts {scheduler.config.prediction_type}; this measurement is written for v_prediction")
    random = torch.Generator().manual_seed(0)
    losses = []
    with torch.no_grad():
        ids = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = pipe.text_encoder(ids)[0]
        pixels = torch.cat([pipe.image_processor.preprocess(image) for image in images])
        latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
        for timestep in TIMESTEPS:
            steps = torch.full((len(images),), timestep)
            for _ in range(NOISES):
                noise = torch.randn(latents.shape, generator=random)
                found = pipe.unet(scheduler.add_noise(latents, noise, steps), steps, states).sample
                losses.append((found - scheduler.get_velocity(latents, noise, steps)).square().mean())
    return float(torch.stack(losses).mean())


def _style(pipe: Any, images: list[Any], captions: list[str]) -> dict[str, float]:
    import numpy
    import torch

    from train.output.style import SMALLEST, measures

    wanted = numpy.array([measures(image) for image in images])
    spread = numpy.maximum(wanted.std(0, ddof=1), SMALLEST)
    seeds = [torch.Generator().manual_seed(number) for number in range(len(captions))]
    drawn = pipe(captions, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds, width=SIDE, height=SIDE).images
    found = numpy.array([measures(image) for image in drawn])
    distance = float((numpy.abs(found.mean(0) - wanted.mean(0)) / spread).mean())
    return {"style": distance, "colour": float(found[:, 2].mean())}


if __name__ == "__main__":
    place, name, out = sys.argv[1:]
    Path(out).write_text(json.dumps(judge(Path(place), None if name == "none" else Path(name))), encoding="utf-8")
