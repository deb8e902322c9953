"""The images of a judgement, drawn by the grid's engine: every kept checkpoint and the bare base, at the same prompts and seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.values import member_name
from infer.grid.config import Axes, GridConfig
from infer.grid.job import cells_of, draw_plan
from infer.grid.plan import GridPlan, plan_grid
from registry.errors import JobFailed, Refused
from registry.printable import shell_line
from registry.progress import Report, silent
from train.judging.tokens import plan_with_tokens
from train.loop import checkpoint
from train.run_report.read import RunFiles

if TYPE_CHECKING:
    from PIL.Image import Image

    from registry.store import Store

FOLDER = "judgement"  # of the run folder: the grids
NONE = "none"  # an axis's word for no adapter


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A grid that is planned: prompts by seeds by checkpoints, the base first."""

    planned: GridPlan
    steps: tuple[int, ...]  # 0 is the base
    prompts: tuple[str, ...]
    seeds: int


def plan_drawing(run: RunFiles, prompts: Sequence[str], name: str, store: Store, *, seeds: int) -> Drawing:
    """The grid of these prompts; everything is checked, nothing loaded. Raises Faults."""
    steps = (0, *run.checkpoints)
    adapters = [NONE, *(str(place / checkpoint.ADAPTER) for place in run.checkpoints.values())]
    settings = grid_settings(run, seeds=seeds) | {
        "name": name,
        "axes": Axes(adapter=adapters, prompt=list(prompts)),
        "out": str(run.folder / FOLDER),
    }
    planned = (
        plan_with_tokens(run, settings, adapters, store)
        if run.config.tokens.add
        else plan_grid(GridConfig(**settings), store, cells_of(store))
    )
    return Drawing(planned=_labelled(planned, steps), steps=steps, prompts=tuple(prompts), seeds=seeds)


def grid_settings(run: RunFiles, *, seeds: int) -> dict[str, Any]:
    """The settings of a grid that draws as the run's previews are drawn, at so many seeds."""
    config, preview = run.config, run.config.preview
    settings: dict[str, Any] = {
        "base": config.base,
        "base_config": config.base_config,
        "prediction": config.prediction,
        "steps": preview.steps,
        "guidance": preview.guidance,
        "vae_tiling": preview.vae_tiling,
        "seed": preview.seed,
        "size": config.sides[-1],
        "clip_skip": config.clip_skip or None,
        "prompt_chunks": config.prompt_chunks,
        "device": config.device,
        "base_dtype": config.base_dtype,
        "text_encoder_dtype": config.text_encoder_dtype,
        "swap_blocks": config.swap_blocks,
        "repeats": seeds,
    }
    return settings if config.precision.name == "auto" else settings | {"precision": member_name(config.precision)}


def _labelled(planned: GridPlan, steps: Sequence[int]) -> GridPlan:
    """The plan with its adapters called base and by their steps, not by their files."""
    labels = tuple(f"step {step}" if step else "base" for step in steps)
    dimensions = tuple(replace(one, labels=labels) if one.name in ("adapter", "embedding") else one for one in planned.layout.dimensions)
    return replace(planned, layout=replace(planned.layout, dimensions=dimensions))


def drawn(drawing: Drawing, store: Store, *, report: Report = silent) -> tuple[dict[int, list[list[Image]]], Path]:
    """(images by step, each a list of seeds for each prompt; the grid's folder). Raises JobFailed where a cell cannot be drawn."""
    from PIL.Image import open as open_image

    outcome = draw_plan(drawing.planned, store, report=report)
    cells = cells_of(store)
    found: list[Image] = []
    for cell in drawing.planned.cells:
        stored = cells.get(cell.render.key())
        if stored is None:
            raise JobFailed(f"An image could not be drawn: {dict(cell.values)}. {outcome.folder} has the reason.")
        with open_image(io.BytesIO(stored.png)) as image:
            found.append(image.convert("RGB"))
    places = {cell.place: image for cell, image in zip(drawing.planned.cells, found, strict=True)}
    axes = [dimension.name for dimension in drawing.planned.layout.dimensions]
    return {step: _of_step(number, drawing, axes, places) for number, step in enumerate(drawing.steps)}, outcome.folder


def _of_step(number: int, drawing: Drawing, axes: Sequence[str], places: dict[tuple[int, ...], Image]) -> list[list[Image]]:
    def at(prompt: int, seed: int) -> Image:
        wanted = {"adapter": number, "embedding": number, "prompt": prompt, "seed": seed}
        return places[tuple(wanted.get(axis, 0) for axis in axes)]

    return [[at(prompt, seed) for seed in range(drawing.seeds)] for prompt in range(len(drawing.prompts))]


def check_drawable(run: RunFiles) -> None:
    """Raise Refused for a run whose checkpoints cannot be compared."""
    if not run.checkpoints:
        again = shell_line("loraloom", "train", f"resume={run.folder}")
        raise Refused(f"{run.folder} has no checkpoints to compare. Train it on: {again}")
    if run.config.objective.name == "slider":
        raise Refused(f"{run.folder} trained a slider, which comes near to no held-out images. Draw it: loraloom grid axes.weight=[-1,0,1]")
    if run.config.objective.name == "dpo":
        raise Refused(
            f"{run.folder} learned from votes, which are no images to come near to. Draw it beside the base, and vote: loraloom vote"
        )
