"""The engine: many Renders drawn with few loads. Costly changes are rare (base, then adapters), each prompt is encoded once.

Cells are drawn one at a time, and a key promises the bytes; a Render that is `shared` has another key, since a forward that it shares
with others differs from a solo one in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from time import monotonic

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session, free_memory
from infer.grid.cell_result import CellResult, failed, look_up
from infer.grid.cells import CellStore
from infer.grid.shared_forwards import SharedForwards
from infer.stages.latents import LatentsStore
from registry.errors import Faults, LoomError, WriteFailed
from registry.progress import Report, Tick, silent
from registry.store import Store

__all__ = ["CellResult", "Counts", "in_order", "loading", "look_up", "render_cells"]


def render_cells(
    renders: Sequence[Render],
    store: Store,
    cells: CellStore,
    *,
    report: Report = silent,
    strict: bool = False,
    batch_size: int | None = 1,
    counts: Counts | None = None,
    resolver: Resolver | None = None,
    latents: LatentsStore | None = None,
    on_result: Callable[[CellResult], None] | None = None,
) -> list[CellResult]:
    """One result a Render, in order; equal images are drawn once, and none that the store has.

    Everything is checked before a model is loaded (Faults). A cell that fails is a result with its error; under `strict` it
    is a JobFailed. What was drawn is in the store at once, so an interrupt loses only the cells it hits. At most `batch_size`
    cells (None: as many as fit the memory) share a forward, of those whose Render is `shared`. A cell whose `latents` are kept is
    only decoded (None: all are denoised). `on_result` is called for each distinct cell as it is done.
    """
    counts = counts if counts is not None else Counts()
    resolver = resolver if resolver is not None else Resolver(store)
    resolved = _resolve_all(renders, resolver)
    wanted = {render.key(): render for render in reversed(resolved)}  # the first of equal ones names the image
    wanted = dict(reversed(wanted.items()))
    results: dict[str, CellResult] = {}

    def keep(result: CellResult) -> None:
        results[result.key] = result
        if on_result is not None:
            on_result(result)
        report(
            Tick(
                "cells",
                len(results),
                len(wanted),
                note=result.status,
                values={"failed": sum(one.status == "failed" for one in results.values())},
            )
        )

    for key, render in wanted.items():
        if stored := look_up(cells, key, counts):
            keep(CellResult(key=key, render=render, status="reused", path=stored.path))
    missing = [render for key, render in wanted.items() if key not in results]
    _draw_all(missing, resolver, cells, counts, latents=latents, keep=keep, strict=strict, batch_size=batch_size, report=report)
    return [replace(results[render.key()], render=render) for render in resolved]


def _resolve_all(renders: Sequence[Render], resolver: Resolver) -> list[Render]:
    resolved: list[Render] = []
    faults: dict[str, None] = {}  # each once, in order
    for render in renders:
        try:
            resolved.append(resolver.resolve(render))
        except Faults as error:
            faults |= dict.fromkeys(error.faults)
        except LoomError as error:
            faults[str(error)] = None
    if faults:
        raise Faults("This grid cannot be drawn:", faults)
    return resolved


# --- order


def loading(render: Render) -> tuple[Hashable, ...]:
    """What a model is loaded by: Renders with an equal one share a load."""
    kept = (render.precision, render.base_dtype, render.text_encoder_dtype)
    return (render.base_sha256, render.base_config_sha256, render.prediction, *kept, render.device)


def in_order(renders: Sequence[Render]) -> list[Render]:
    """The Renders in the order with the fewest changes of base, ControlNets, adapters, weights, embeddings and VAE; else as given."""
    levels: list[Callable[[Render], Hashable]] = [
        loading,
        lambda render: tuple(one.sha256 for one in render.steering),
        lambda render: tuple(one.sha256 for one in render.active),
        lambda render: tuple((one.weight, one.text_weight, one.start, one.end) for one in render.active),
        lambda render: render.embeddings,
        lambda render: render.vae_sha256,
    ]
    first: list[dict[Hashable, int]] = [{} for _ in levels]
    for render in renders:
        for seen, level in zip(first, levels, strict=True):
            seen.setdefault(level(render), len(seen))
    return sorted(renders, key=lambda render: tuple(seen[level(render)] for seen, level in zip(first, levels, strict=True)))


# --- drawing


def _draw_all(
    renders: Sequence[Render],
    resolver: Resolver,
    cells: CellStore,
    counts: Counts,
    *,
    latents: LatentsStore | None,
    keep: Callable[[CellResult], None],
    strict: bool,
    batch_size: int | None,
    report: Report,
) -> None:
    """Draw each Render, one loaded model at a time, and keep each result."""
    groups: dict[tuple[Hashable, ...], list[Render]] = {}
    for render in in_order(renders):
        groups.setdefault(loading(render), []).append(render)
    for number, group in enumerate(groups.values()):
        session: Session | None = None
        problem: Exception | None = None
        if number:
            free_memory()
        try:
            session = Session(resolver, group, counts, report=report, latents=latents)
        except Exception as error:  # whatever a loader raises fails every cell of this base
            problem = error
        later: list[tuple[int, Render]] = []  # another process draws them now
        alone = list(range(len(group)))
        if session is not None and batch_size != 1:
            together = SharedForwards(session, group, cells, counts, width=batch_size, strict=strict, keep=keep)
            left = together.draw([index for index in alone if group[index].shared])
            alone = sorted({*left, *(index for index in alone if not group[index].shared)})
        for index in alone:
            render = group[index]
            result = _draw_once(session, problem, index, render, cells, counts, strict=strict, wait=False)
            keep(result) if result is not None else later.append((index, render))
        for index, render in later:
            result = _draw_once(session, problem, index, render, cells, counts, strict=strict, wait=True)
            assert result is not None
            keep(result)
        if session is not None:
            session.close()


def _draw_once(
    session: Session | None,
    problem: Exception | None,
    index: int,
    render: Render,
    cells: CellStore,
    counts: Counts,
    *,
    strict: bool,
    wait: bool,
) -> CellResult | None:
    """The cell, drawn here unless another process has drawn it since. None while another one draws it; with `wait`, waits for that."""
    key = render.key()
    with cells.alone(key, wait=wait) as alone:
        if not alone:
            return None
        if stored := look_up(cells, key, counts):
            if session is not None:
                session.release(index)
            return CellResult(key=key, render=render, status="reused", path=stored.path)
        return _draw_one(session, problem, index, render, cells, strict=strict)


def _draw_one(
    session: Session | None, problem: Exception | None, index: int, render: Render, cells: CellStore, *, strict: bool
) -> CellResult:
    key, began = render.key(), monotonic()
    try:
        if session is None:
            assert problem is not None
            raise problem
        png, forwards = session.draw(index)
        stored = cells.put(render, png, seconds=monotonic() - began, forwards=forwards)
        return CellResult(key=key, render=render, status="rendered", seconds=stored.seconds, path=stored.path)
    except WriteFailed:
        raise  # a disk that takes no image: every further one would be drawn and lost
    except Exception as error:  # one failed cell does not end the grid
        return failed(render, error, began=began, strict=strict)
