"""The engine: many Renders drawn with few loads. Costly changes are rare (base, then adapters), each prompt is encoded once.

Cells are drawn one at a time, and a key promises the bytes; a Render that is `shared` has another key, since a forward that it shares
with others differs from a solo one in the last bits. Several processes divide them (infer.grid.division).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts
from infer.grid.cell_result import CellResult, look_up
from infer.grid.cells import CellStore
from infer.grid.division import Division, Settings
from infer.grid.order import in_order, loading
from infer.stages.latents import LatentsStore
from registry.errors import Faults, LoomError
from registry.launch.processes import Launch
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
    launch: Launch | None = None,
    locks: bool = True,
    peak: int | None = None,
    on_result: Callable[[CellResult], None] | None = None,
) -> list[CellResult]:
    """One result a Render, in order; equal images are drawn once, and none that the store has.

    Everything is checked before a model is loaded (Faults), unless the Renders come with the `resolver` that has resolved them. A cell
    that fails is a result with its error; under `strict` it is a JobFailed. What was drawn is in the store at once, so an interrupt loses
    only the cells it hits. At most `batch_size` cells (None: as many as fit the memory) share a forward, of those whose Render is
    `shared`. A cell whose `latents` are kept is only decoded (None: all are denoised). Of the cells that other processes draw at the same
    time none is drawn twice; under a `launch` of several they count as rendered, and without `locks` each begins with its own share.
    On a CPU memory is held to the planned `peak`, in bytes (None: freed memory is kept). `on_result` is called for each distinct cell as
    it is done.
    """
    counts = counts if counts is not None else Counts()
    if resolver is None:
        resolver = Resolver(store)
        renders = _resolve_all(renders, resolver)
    resolved = list(renders)
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
    settings = Settings(
        resolver=resolver,
        cells=cells,
        latents=latents,
        counts=counts,
        strict=strict,
        batch_size=batch_size,
        report=report,
        found_status="rendered" if launch is not None and launch.count > 1 else "reused",
        peak=peak,
        share=(launch.rank, launch.count) if launch is not None and launch.count > 1 and not locks else None,
    )
    Division(missing, settings, keep).draw()
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
