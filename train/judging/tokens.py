"""A judgement's grid of a run that trains new tokens: each checkpoint is drawn with the vectors of its own step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.files import Embedding
from infer.draw.resolve import Resolver
from infer.grid.config import Axes, GridConfig
from infer.grid.job import cells_of
from infer.grid.layout import Cell
from infer.grid.plan import GridPlan, plan_grid
from train.run_report.read import RunFiles
from train.settings.tokens import tokens_of

if TYPE_CHECKING:
    from registry.store import Store

FILE = "embedding-{}.safetensors"  # of a checkpoint


def step_embeddings(run: RunFiles, place: Path) -> list[dict[str, str]]:
    """The embeddings in a checkpoint, as a grid names them."""
    given = tokens_of(run.config.tokens)
    return [{"embedding": str(place / FILE.format(one.file_name)), "token": one.token} for one in given]


def plan_with_tokens(run: RunFiles, settings: Mapping[str, Any], adapters: Sequence[str], store: Store) -> GridPlan:
    """The grid of prompts by checkpoints, the bare base first, which reads the tokens as plain text."""
    steps = [step_embeddings(run, place) for place in run.checkpoints.values()]
    axes: Axes = settings["axes"]
    if run.config.lora.kind == "none":
        by_step: list[Any] = ["none", *steps]
        return plan_grid(GridConfig(**{**settings, "axes": Axes(embedding=by_step, prompt=axes.prompt)}), store, cells_of(store))
    planned = plan_grid(GridConfig(**{**settings, "embeddings": steps[-1]}), store, cells_of(store))
    number = next(place for place, one in enumerate(planned.layout.dimensions) if one.name == "adapter")
    resolver = planned.resolver
    tokens = [(), *(tuple(_resolved(one, resolver) for one in step) for step in steps)]
    cells = tuple(_with(cell, tokens[cell.place[number]]) for cell in planned.cells)
    keys, kept = {cell.render.key() for cell in cells}, cells_of(store)
    return replace(planned, cells=cells, distinct=len(keys), stored=sum(kept.has(key) for key in keys))


def _resolved(given: Mapping[str, str], resolver: Resolver) -> Embedding:
    found = resolver.embedding(given["embedding"])
    return Embedding(reference=given["embedding"], token=given["token"], sha256=found.sha256)


def _with(cell: Cell, embeddings: tuple[Embedding, ...]) -> Cell:
    return replace(cell, render=replace(cell.render, embeddings=embeddings))
