"""The cells of a plan that share forwards, why others do not, and how many denoiser calls that leaves."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heapreplace

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.grid.cells import CellStore
from infer.grid.layout import Cell
from infer.sharing.alone import kind_of, why_alone
from infer.sharing.width import MOST
from infer.stages.latents import LatentsStore


def with_sharing(planned: Sequence[Cell], resolver: Resolver, cells: CellStore, latents: LatentsStore | None) -> list[Cell]:
    """The cells with resolved Renders, those that can be `shared` so. What is there as it is drawn alone, image or latents, stays that."""
    found = []
    for cell in planned:
        alone = why_alone(cell.render, resolver) is not None or cells.has(cell.render.key())
        alone = alone or (latents is not None and latents.has(cell.render.latents_key()))
        found.append(cell if alone else replace(cell, render=replace(cell.render, shared=True)))
    return found


def alone_notes(renders: Iterable[Render], resolver: Resolver) -> Iterator[str]:
    """A note for each reason why some of these Renders are drawn alone."""
    reasons = [reason for render in renders if not render.shared and (reason := why_alone(render, resolver)) is not None]
    for reason in dict.fromkeys(reasons):
        count = reasons.count(reason)
        yield f"{count} cell{'s are' if count > 1 else ' is'} drawn alone, without sharing forwards: {reason}."


def shared_forwards(missing: Sequence[tuple[Hashable, Render, int]], resolver: Resolver, *, width: int | None) -> int:
    """Denoiser calls of (what its model is loaded by, Render, its own calls): those that are `shared` serve `width` cells at once.

    Each takes the first of the places that is free, so that a kind of cells takes as many calls as its last one ends at. Where the
    memory decides, the first call of a kind is that of one cell.
    """
    empty = [0] * width if width is not None else [0, *[1] * (MOST - 1)]
    kinds: dict[Hashable, list[int]] = {}
    total = 0
    for loaded, render, calls in missing:
        if not calls:
            continue
        if not render.shared:
            total += calls
            continue
        places = kinds.setdefault((loaded, kind_of(render, resolver)), list(empty))
        heapreplace(places, places[0] + calls)
    return total + sum(max(places) for places in kinds.values())
