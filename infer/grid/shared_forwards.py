"""Cells of a grid that share forwards: as many at once as are set, and as one is done the next takes its place.

Each is claimed in the cell store while it is drawn and kept as soon as it is done, so that an interrupt loses those in flight alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic

from infer.draw.denoise import Walk
from infer.draw.render import Render
from infer.draw.session import Counts, Session
from infer.grid.cell_result import CellResult, failed, look_up
from infer.grid.cells import CellStore
from infer.sharing.width import measured_width
from registry.errors import WriteFailed

LOG = logging.getLogger(__name__)


@dataclass
class _Flight:
    """A cell that is drawn: its denoising, and the seconds that are its own."""

    walk: Walk
    claim: ExitStack
    seconds: float  # its share of those of the forwards it was in
    forwards: int = 0


class SharedForwards:
    """The cells of one loaded base that share forwards."""

    def __init__(
        self,
        session: Session,
        renders: Sequence[Render],
        cells: CellStore,
        counts: Counts,
        *,
        width: int | None,
        strict: bool,
        keep: Callable[[CellResult], None],
        found_status: str = "reused",
    ) -> None:
        """`found_status`: the status of a cell that another process has drawn since this one began."""
        self._session = session
        self._renders = renders
        self._cells = cells
        self._counts = counts
        self._given = width  # None: as many as fit the memory, measured by the first forward of each kind
        self._width = width
        self._strict = strict
        self._keep = keep
        self._found_status = found_status
        self._flights: list[_Flight] = []
        self._followers: dict[str, list[int]] = {}  # latents' key -> the cells that one in flight denoises for, too
        self._left: list[int] = []

    def draw(self, indices: Sequence[int]) -> list[int]:
        """Draw the Renders at these indices; gives those that are left: drawn by another process, or in a forward that failed."""
        groups: dict[Hashable, deque[int]] = {}
        for index in indices:
            try:
                groups.setdefault(self._session.kind(index), deque()).append(index)
            except Exception:  # drawn alone it fails by itself, with its own error
                self._left.append(index)
        try:
            for waiting in groups.values():
                self._draw_group(waiting)
        finally:
            for flight in self._flights:
                flight.claim.close()
        return sorted(self._left)

    def _draw_group(self, waiting: deque[int]) -> None:
        self._width = self._given
        while waiting or self._flights:
            while waiting and len(self._flights) < (self._width or 1):
                self._start(waiting.popleft())
            if self._flights:
                self._advance(waiting)

    def _start(self, index: int) -> None:
        render = self._renders[index]
        if (followers := self._followers.get(render.latents_key())) is not None:
            followers.append(index)
            return
        if self._session.is_denoised(index):
            self._follow(index)
            return
        began = monotonic()
        with ExitStack() as claim:
            if not claim.enter_context(self._cells.alone(render.key(), wait=False)):
                self._left.append(index)
                return
            if self._is_stored(index):
                return
            try:
                walk = self._session.begin(index)
            except Exception:  # drawn alone it fails by itself, with its own error
                LOG.debug("A cell does not begin", exc_info=True)
                self._left.append(index)
                return
            self._followers[render.latents_key()] = []
            self._flights.append(_Flight(walk, claim.pop_all(), monotonic() - began))

    def _is_stored(self, index: int) -> bool:
        """Whether another process has drawn the cell since; its result is kept then."""
        render = self._renders[index]
        stored = look_up(self._cells, render.key(), self._counts)
        if stored is not None:
            self._session.release(index)
            process = stored.process if self._found_status == "rendered" else None
            self._keep(CellResult(key=render.key(), render=render, status=self._found_status, path=stored.path, process=process))
        return stored is not None

    def _advance(self, waiting: deque[int]) -> None:
        """One forward of all in flight, and what is done of them kept."""
        began, flights = monotonic(), self._flights
        try:
            self._forward([flight.walk for flight in flights])
        except Exception as error:
            self._flights = []
            for flight in flights:
                flight.claim.close()
            if is_out_of_memory(error) and len(flights) > 1:
                self._width = len(flights) // 2
                self._counts.note(f"{len(flights)} cells do not fit the memory at once: from here on {self._width} share a forward.")
                for flight in reversed(flights):
                    waiting.extendleft(reversed([flight.walk.index, *self._followers.pop(self._key(flight))]))
                return
            for flight in flights:
                self._leave(flight.walk.index, error)
                self._left += self._followers.pop(self._key(flight))
            return
        each = (monotonic() - began) / len(flights)
        for flight in flights:
            flight.seconds += each
            flight.forwards += 1
        self._flights = [flight for flight in flights if not flight.walk.done]
        done = [flight for flight in flights if flight.walk.done]
        try:
            self._session.decode_together([flight.walk for flight in done])
            for flight in done:
                self._finish(flight)
        finally:
            for flight in done:
                flight.claim.close()

    def _forward(self, walks: list[Walk]) -> None:
        if self._width is None:
            self._width = measured_width(lambda: self._session.advance(walks), self._session.parts.device)
        else:
            self._session.advance(walks)

    def _key(self, flight: _Flight) -> str:
        return self._renders[flight.walk.index].latents_key()

    def _leave(self, index: int, error: Exception) -> None:
        LOG.debug("A cell that shared forwards is drawn alone", exc_info=error)
        self._counts.note(f"Some cells are drawn alone after all: sharing forwards failed with {type(error).__name__}: {error}")
        self._left.append(index)

    def _finish(self, flight: _Flight) -> None:
        index, began = flight.walk.index, monotonic()
        render = self._renders[index]
        self._keep(self._kept(render, lambda: self._session.finish(flight.walk), flight, began))
        flight.claim.close()
        for follower in self._followers.pop(self._key(flight)):
            self._follow(follower)

    def _follow(self, index: int) -> None:
        """Draw a cell whose latents are there, of a cell that differs in what acts after them."""
        render, began = self._renders[index], monotonic()
        with self._cells.alone(render.key(), wait=False) as alone:
            if not alone or not self._session.is_denoised(index):
                self._left.append(index)
            elif not self._is_stored(index):
                self._keep(self._kept(render, lambda: self._session.draw(index)[0], None, began))

    def _kept(self, render: Render, png: Callable[[], bytes], flight: _Flight | None, began: float) -> CellResult:
        try:
            data = png()
            seconds, forwards = (flight.seconds, flight.forwards) if flight is not None else (0.0, 0)
            stored = self._cells.put(render, data, seconds=seconds + monotonic() - began, forwards=forwards)
        except WriteFailed:
            raise  # a disk that takes no image: every further one would be drawn and lost
        except Exception as error:  # one failed cell does not end the grid
            return failed(render, error, began=began, strict=self._strict)
        return CellResult(
            key=stored.key, render=render, status="rendered", seconds=stored.seconds, path=stored.path, process=stored.process
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no room."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
