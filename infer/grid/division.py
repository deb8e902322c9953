"""The cells that this process draws of a grid that others may draw too: processes of `accelerate launch`, or other grids.

Who draws what is settled by locks in the cell store. A process claims a base, and in it the cells of one set of adapters after the
other, so that each loads and attaches little; one that has nothing left helps where others are at work, from the end. A lock goes with
its process: what a killed one had claimed is drawn by those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session, free_memory
from infer.grid.cell_result import CellResult, failed, look_up
from infer.grid.cells import CellStore, Stored
from infer.grid.order import added, grouped, in_order, loading
from infer.grid.shared_forwards import SharedForwards
from infer.stages.latents import LatentsStore
from registry.budget.freed import keep_freed
from registry.errors import WriteFailed
from registry.files.read_ahead import ReadAhead
from registry.progress import Report

LOOK = 5.0  # seconds between two looks for what others have drawn


@dataclass(kw_only=True)
class Settings:
    """How the cells are drawn, and where they are kept."""

    resolver: Resolver
    cells: CellStore
    latents: LatentsStore | None
    counts: Counts
    strict: bool
    batch_size: int | None
    report: Report
    found_status: str = "reused"  # the status of a cell that another process has drawn since this one began
    peak: int | None = None  # bytes that the plan of a memory budget names; a CPU is held to them
    share: tuple[int, int] | None = None  # (this process, of processes) where the file system has no locks to claim cells by


class Division:
    """Draws Renders, none of which the store has, each by this process or by another; `keep` gets each result once."""

    def __init__(self, renders: Sequence[Render], settings: Settings, keep: Callable[[CellResult], None]) -> None:
        self._settings = settings
        self._keep_one = keep
        ordered = in_order(renders)
        if settings.share is not None:
            own, of = settings.share
            ordered = [render for _, render in sorted(enumerate(ordered), key=lambda one: (one[0] - own) % of != 0)]
        self._bases = {key: [ordered[place] for place in places] for key, places in grouped(ordered, loading).items()}
        self._waiting = {render.key(): render for render in ordered}  # without a result
        self._loaded: _Loaded | None = None
        self._ahead: ReadAhead | None = None
        self._beside_others = settings.found_status != "reused"
        self._looked = monotonic()

    def draw(self) -> None:
        """Draw what no other process draws, then wait for what they do, and draw what they did not."""
        try:
            self._draw()
        finally:
            self._stop_reading()

    def _draw(self) -> None:
        claimed = []
        for key, group in self._bases.items():
            with self._settings.cells.claimed("base", key) as mine:
                self._draw_base(key, group, helping=False) if mine else claimed.append(key)
        for key in claimed:
            self._beside_others = True
            self._draw_base(key, self._bases[key], helping=True)
        self._stop_reading()
        for group in self._bases.values():
            self._draw_rest(group)

    def _draw_base(self, key: Hashable, group: list[Render], *, helping: bool) -> None:
        """The cells of a base that are free. Once it is loaded, the files of the next one are read ahead."""
        self._look()
        self._stop_reading()
        group = [render for render in group if render.key() in self._waiting]
        self._loaded = _Loaded(group, self._settings, then=lambda: self._read_ahead(key))
        try:
            alone = list(range(len(group)))
            together = [place for place in alone if group[place].shared] if self._settings.batch_size != 1 else []
            if together:
                self._draw_together(group, together[::-1] if helping else together)
            sets = [[place for place in places if group[place].key() in self._waiting] for places in grouped(group, added).values()]
            taken = []
            for places in sets[::-1] if helping else sets:
                with self._settings.cells.claimed("adapters", (key, added(group[places[0]])) if places else ()) as mine:
                    self._draw_alone(group, places) if mine else taken.append(places)
            for places in taken:
                self._draw_alone(group, places[::-1])
        finally:
            self._loaded.close()
            self._loaded = None

    def _read_ahead(self, key: Hashable) -> None:
        """Begin to read the base that this process will probably load after that one."""
        keys = list(self._bases)
        for coming in keys[keys.index(key) + 1 :]:
            first = next(
                (render for render in self._bases[coming] if render.key() in self._waiting and not self._is_denoised(render)), None
            )
            if first is not None:
                self._ahead = ReadAhead([Path(one.path) for one in self._settings.resolver.base(first).record.files])
                self._ahead.start()
                return

    def _is_denoised(self, render: Render) -> bool:
        """Whether an earlier run has kept its latents: then little of its base is read."""
        kept = self._settings.latents
        return kept is not None and kept.has(render.latents_key())

    def _stop_reading(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    def _draw_together(self, group: list[Render], places: list[int]) -> None:
        """Those that share forwards. What is left of them is drawn alone."""
        assert self._loaded is not None
        settings = self._settings
        if not any(settings.cells.is_free(group[place].key()) for place in places):
            return  # others are at the last ones: no base is loaded for them
        try:
            session = self._loaded.session()
        except Exception:  # drawn alone, each fails with it
            return
        SharedForwards(
            session,
            group,
            settings.cells,
            settings.counts,
            width=settings.batch_size,
            strict=settings.strict,
            keep=self._keep,
            found_status=settings.found_status,
        ).draw(places)

    def _draw_alone(self, group: list[Render], places: Sequence[int]) -> None:
        for place in places:
            if group[place].key() in self._waiting:
                self._draw_once(group, place, wait=False)
                self._look()

    def _draw_rest(self, group: list[Render]) -> None:
        """The cells of a base that others have claimed: waited for, and drawn here where they are not drawn."""
        group = [render for render in group if render.key() in self._waiting]
        self._loaded = _Loaded(group, self._settings)
        try:
            for place in range(len(group)):
                self._draw_once(group, place, wait=True)
        finally:
            self._loaded.close()
            self._loaded = None

    def _draw_once(self, group: list[Render], place: int, *, wait: bool) -> None:
        """The cell, drawn here unless another process draws it or has drawn it; with `wait`, waits for that."""
        assert self._loaded is not None
        render, settings = group[place], self._settings
        key = render.key()
        with settings.cells.alone(key, wait=wait) as mine:
            if not mine:
                self._beside_others = True
            elif stored := look_up(settings.cells, key, settings.counts):
                self._loaded.release(place)
                self._keep(self._found(render, stored))
            else:
                self._keep(self._drawn(render, place))

    def _drawn(self, render: Render, place: int) -> CellResult:
        assert self._loaded is not None
        began = monotonic()
        try:
            png, forwards = self._loaded.session().draw(place)
            stored = self._settings.cells.put(render, png, seconds=monotonic() - began, forwards=forwards)
            return CellResult(
                key=stored.key, render=render, status="rendered", seconds=stored.seconds, path=stored.path, process=stored.process
            )
        except WriteFailed:
            raise  # a disk that takes no image: every further one would be drawn and lost
        except Exception as error:  # one failed cell does not end the grid
            return failed(render, error, began=began, strict=self._settings.strict)

    def _found(self, render: Render, stored: Stored) -> CellResult:
        """The result of a cell that another process has drawn since this one began."""
        status = self._settings.found_status
        process = stored.process if status == "rendered" else None
        return CellResult(key=stored.key, render=render, status=status, path=stored.path, process=process)

    def _keep(self, result: CellResult) -> None:
        self._waiting.pop(result.key, None)
        self._keep_one(result)

    def _look(self) -> None:
        """Keep what other processes have drawn meanwhile, now and then."""
        if not self._beside_others or monotonic() - self._looked < LOOK:
            return
        cells = self._settings.cells
        for key, render in list(self._waiting.items()):
            if cells.has(key) and (stored := look_up(cells, key, self._settings.counts)):
                self._keep(self._found(render, stored))
                if self._loaded is not None:
                    self._loaded.release_key(key)
        self._looked = monotonic()


class _Loaded:
    """A base that is loaded once one of its Renders is drawn here."""

    def __init__(self, group: Sequence[Render], settings: Settings, *, then: Callable[[], None] = lambda: None) -> None:
        """`then` is called once the base is loaded."""
        self._then = then
        self._group = group
        self._settings = settings
        self._places = {render.key(): place for place, render in enumerate(group)}
        self._session: Session | None = None
        self._problem: Exception | None = None
        self._done: set[int] = set()

    def session(self) -> Session:
        """The loaded base. Raises what loading it raised, each time."""
        if self._problem is not None:
            raise self._problem
        if self._session is None:
            settings = self._settings
            if settings.counts.model_loads:
                free_memory()  # of the base before
            try:
                self._session = Session(
                    settings.resolver,
                    self._group,
                    settings.counts,
                    report=settings.report,
                    latents=settings.latents,
                    peak=settings.peak,
                )
            except Exception as error:  # whatever a loader raises fails every cell of this base
                self._problem = error
                raise
            for place in self._done:
                self._session.release(place)
            keep_freed()  # by one denoiser call for the next
            self._then()
        return self._session

    def release(self, place: int) -> None:
        """A Render of the group is drawn elsewhere: what it alone needs is let go."""
        self._done.add(place)
        if self._session is not None:
            self._session.release(place)

    def release_key(self, key: str) -> None:
        """The same, by the Render's key."""
        if key in self._places:
            self.release(self._places[key])

    def close(self) -> None:
        """Drop the model, before the next one is loaded."""
        if self._session is not None:
            self._session.close()
            self._session = None
