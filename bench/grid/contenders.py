"""The three ways to draw a grid of adapters x weights x samplers x prompts: two loops over diffusers' pipeline, and `loraloom grid`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

SEED = 1
Images = dict[tuple[str, float, str, str], Any]  # adapter, weight, sampler, prompt -> (H, W, 3) of 0..255


@dataclass(kw_only=True)
class Grid:
    """What is drawn, and where it is put."""

    base: Path
    family: str
    adapters: Mapping[str, Path]  # by name
    weights: Sequence[float]
    samplers: Sequence[str]
    prompts: Sequence[str]
    steps: int
    guidance: float
    size: int
    home: Path

    def only(self, adapter: str) -> Grid:
        """The part of one adapter."""
        return Grid(**{**vars(self), "adapters": {adapter: self.adapters[adapter]}})

    @property
    def cells(self) -> list[tuple[str, float, str, str]]:
        return list(product(self.adapters, self.weights, self.samplers, self.prompts))


@dataclass(kw_only=True)
class Drawn:
    """The images of a contender, and the CPU seconds that it took."""

    seconds: float = 0.0
    denoiser: float = 0.0  # of them in the denoiser itself
    others: float = 0.0  # of them in the text encoders and the VAE
    calls: int = 0  # of the denoiser
    images: Images = field(default_factory=dict)


class _Watch:
    """Calls of a model's modules and the CPU seconds in them."""

    def __init__(self, drawn: Drawn, denoiser: torch.nn.Module, vae: Any, text_encoders: Iterable[torch.nn.Module]) -> None:
        self._drawn, self._began = drawn, 0.0
        denoiser.register_forward_pre_hook(self._begin)
        denoiser.register_forward_hook(self._end_denoiser)
        for module in (vae.decoder, vae.post_quant_conv, *text_encoders):
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._began = time.process_time()

    def _end_denoiser(self, *_: Any) -> None:
        self._drawn.denoiser += time.process_time() - self._began
        self._drawn.calls += 1

    def _end(self, *_: Any) -> None:
        self._drawn.others += time.process_time() - self._began


def _pipeline(grid: Grid, drawn: Drawn) -> Any:
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(grid.base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    encoders = (getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2"))
    _Watch(drawn, pipeline.unet, pipeline.vae, [one for one in encoders if one is not None])
    return pipeline


def _scheduler(grid: Grid, pipeline: Any, sampler: str) -> Any:
    from infer.draw.samplers import build_scheduler
    from registry.families import FAMILIES

    if not hasattr(pipeline, "_parts"):
        pipeline._parts = FAMILIES[grid.family].load(grid.base, dtype=torch.float32, device="meta")
    return build_scheduler(pipeline._parts, sampler)


def _save(image: Image.Image, grid: Grid, name: str, number: int) -> Any:
    path = grid.home / name / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return numpy.asarray(image.convert("RGB"), dtype=int)


def naive(grid: Grid) -> Drawn:
    """The adapter is loaded for each cell, and each cell is a call of the pipeline."""
    drawn = Drawn()
    began = time.process_time()
    pipeline = _pipeline(grid, drawn)
    for number, (adapter, weight, sampler, prompt) in enumerate(grid.cells):
        pipeline.load_lora_weights(grid.adapters[adapter].parent, weight_name=grid.adapters[adapter].name, adapter_name="one")
        pipeline.set_adapters(["one"], [weight])
        pipeline.scheduler = _scheduler(grid, pipeline, sampler)
        image = pipeline(
            prompt,
            num_inference_steps=grid.steps,
            guidance_scale=grid.guidance,
            height=grid.size,
            width=grid.size,
            generator=torch.Generator("cpu").manual_seed(SEED),
        ).images[0]
        pipeline.unload_lora_weights()
        drawn.images[adapter, weight, sampler, prompt] = _save(image, grid, "naive", number)
    drawn.seconds = time.process_time() - began
    return drawn


def tuned(grid: Grid, *, batched: bool) -> Drawn:
    """Adapters loaded once and switched by `set_adapters`, prompts encoded once; `batched`: all prompts of a setting in one call."""
    drawn = Drawn()
    began = time.process_time()
    pipeline = _pipeline(grid, drawn)
    for name, path in grid.adapters.items():
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    calls = [grid.prompts] if batched else [[prompt] for prompt in grid.prompts]
    embeds = [_embeds(pipeline, prompts) for prompts in calls]
    for adapter, weight, sampler in product(grid.adapters, grid.weights, grid.samplers):
        pipeline.set_adapters([adapter], [weight])
        for prompts, encoded in zip(calls, embeds, strict=True):
            pipeline.scheduler = _scheduler(grid, pipeline, sampler)
            images = pipeline(
                **encoded,
                num_inference_steps=grid.steps,
                guidance_scale=grid.guidance,
                height=grid.size,
                width=grid.size,
                generator=[torch.Generator("cpu").manual_seed(SEED) for _ in prompts],
            ).images
            for prompt, image in zip(prompts, images, strict=True):
                drawn.images[adapter, weight, sampler, prompt] = _save(image, grid, f"tuned-{batched}", len(drawn.images))
    drawn.seconds = time.process_time() - began
    return drawn


def _embeds(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    with torch.no_grad():
        found = pipeline.encode_prompt(list(prompts), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip(names, found, strict=False))


def ours(grid: Grid, *, batch_size: int, name: str) -> Drawn:
    """`loraloom grid` in this process: the plan, the cells in a store under that name, the sheet and the report."""
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run
    from infer.stages import loading
    from registry.store import Store

    drawn, own = Drawn(), loading.load_base

    def load(*given: Any, **options: Any) -> Any:
        family, parts = own(*given, **options)
        if parts.device.type != "meta":
            _Watch(drawn, parts.denoiser, parts.vae, parts.text_encoders.values())
        return family, parts

    loading.load_base = load
    began = time.process_time()
    store = Store(grid.home / name)  # one home for all parts, as a person has it
    config = GridConfig(
        base=str(grid.base),
        steps=grid.steps,
        guidance=grid.guidance,
        size=grid.size,
        seed=SEED,
        batch_size=batch_size,
        out=str(store.home / "runs"),
        axes=Axes(
            adapter=[str(path) for path in grid.adapters.values()],
            weight=list(grid.weights),
            sampler=list(grid.samplers),
            prompt=list(grid.prompts),
        ),
    )
    try:
        outcome = run(config, store)
    finally:
        loading.load_base = own
        store.close()
    drawn.seconds = time.process_time() - began
    drawn.images = _images(outcome.folder, grid)
    return drawn


def _images(folder: Path, grid: Grid) -> Images:
    import json

    names = {str(path): name for name, path in grid.adapters.items()}
    found: Images = {}
    for line in (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines():
        cell = json.loads(line)
        (adapter,) = cell["render"]["adapters"]
        render = cell["render"]
        with Image.open(folder / cell["image"]) as image:
            place = (names[adapter["reference"]], adapter["weight"], render["sampler"], render["prompt"])
            found[place] = numpy.asarray(image.convert("RGB"), dtype=int)
    return found
