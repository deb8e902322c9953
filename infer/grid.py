"""The engine: many Renders drawn with few loads. Costly changes are rare (base, then adapters), each prompt is encoded once.

Cells are drawn one at a time: a shared forward differs from a solo one in the last bits, and a key promises the bytes.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from infer.adapters import attach, detach, set_weights
from infer.cells import CellError, CellStore, Stored
from infer.denoise import Counter
from infer.draw import Prompts, draw
from infer.infotext import ModelNames
from infer.png import encode_png
from infer.render import Render
from infer.resolve import Base, Resolver
from registry.errors import Faults, JobFailed, LoomError
from registry.families.base import Family, Parts
from registry.loading import load_base
from registry.progress import Report, Tick, silent
from registry.store import Store

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What came of one Render: `status` is rendered, reused or failed; `path` is the picture in the cell store."""

    key: str
    render: Render
    status: str
    seconds: float = 0.0
    error: str | None = None
    path: Path | None = None


@dataclass(kw_only=True)
class Counts:
    """The work of a run, and what a person should hear of it."""

    model_loads: int = 0
    encodes: int = 0
    forwards: int = 0
    notes: list[str] = field(default_factory=list)

    def tell(self, note: str) -> None:
        """Keep a note once."""
        if note not in self.notes:
            self.notes.append(note)
            LOG.info(note)


def render_cells(
    renders: Sequence[Render],
    store: Store,
    cells: CellStore,
    *,
    report: Report = silent,
    strict: bool = False,
    counts: Counts | None = None,
    resolver: Resolver | None = None,
    on_result: Callable[[CellResult], None] | None = None,
) -> list[CellResult]:
    """One result a Render, in order; equal pictures are drawn once, and none that the store has whole.

    Everything is checked before a model is loaded (Faults). A cell that fails is a result with its error; under `strict` it
    is a JobFailed. What was drawn is in the store at once, so an interrupt loses only the cell it hits. `on_result` hears
    each distinct cell as it is done.
    """
    counts = counts if counts is not None else Counts()
    resolver = resolver if resolver is not None else Resolver(store)
    resolved = _resolve_all(renders, resolver)
    wanted = {render.key(): render for render in reversed(resolved)}  # the first of equal ones names the picture
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
    _draw_all(missing, resolver, cells, counts, keep=keep, strict=strict, report=report)
    return [_named(results[render.key()], render) for render in resolved]


def look_up(cells: CellStore, key: str, counts: Counts) -> Stored | None:
    """The cell when it is there and whole; a damaged one is told, and as good as missing."""
    try:
        return cells.get(key)
    except CellError as error:
        counts.tell(f"A stored cell was damaged and is drawn again: {error}.")
        return None


def _named(result: CellResult, render: Render) -> CellResult:
    return CellResult(**{**vars(result), "render": render})


def _resolve_all(renders: Sequence[Render], resolver: Resolver) -> list[Render]:
    resolved: list[Render] = []
    faults: dict[str, None] = {}  # told once each, in order
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
    """What a loaded model serves: Renders that share it need one load."""
    return (render.base_sha256, render.base_config_sha256, render.precision, render.device)


def in_order(renders: Sequence[Render]) -> list[Render]:
    """The Renders so that bases, then sets of adapters, then their weights change as rarely as can be; else as they came."""
    levels: list[Callable[[Render], Hashable]] = [
        loading,
        lambda render: tuple(one.sha256 for one in render.active),
        lambda render: tuple(one.weight for one in render.active),
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
    keep: Callable[[CellResult], None],
    strict: bool,
    report: Report,
) -> None:
    """Draw each Render, one loaded model at a time, and keep each result."""
    groups: dict[tuple[Hashable, ...], list[Render]] = {}
    for render in in_order(renders):
        groups.setdefault(loading(render), []).append(render)
    for group in groups.values():
        session: Session | None = None
        problem: Exception | None = None
        try:
            session = Session(resolver, group, counts, report=report)
        except Exception as error:  # whatever a loader throws is told in every cell that needed it
            problem = error
        for index, render in enumerate(group):
            keep(_draw_one(session, problem, index, render, cells, strict=strict))
        if session is not None:
            session.close()


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
    except Exception as error:  # the grid goes on: one cell's fault is its own
        told = f"{error}" if isinstance(error, LoomError) else f"{type(error).__name__}: {error}"
        LOG.warning("A cell failed: %s", told)
        LOG.debug("The cell's traceback", exc_info=error)
        if strict:
            raise JobFailed(f"A cell failed, and strict=true stops there. {told} What was drawn before is kept.") from error
        return CellResult(key=key, render=render, status="failed", seconds=monotonic() - began, error=told)


class Session:
    """A loaded base with the adapters its Renders need: attached at first use, taken off after the last."""

    def __init__(self, resolver: Resolver, renders: Sequence[Render], counts: Counts, *, report: Report = silent) -> None:
        import torch

        first = renders[0]
        self._resolver = resolver
        self._renders = renders
        self._counts = counts
        self._base: Base = resolver.base(first.base, first.base_config)
        self._attached: dict[str, bool] = {}  # name -> whether it changes the text encoders
        self._refused: dict[str, Exception] = {}
        self._last_use = {one.sha256: index for index, render in enumerate(renders) for one in render.active}
        self._report = report
        report(Tick("load", 0, 1, note=self._base.record.name))
        self.family: Family
        self.parts: Parts
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[first.precision]
        self.family, self.parts = load_base(self._base.record, dtype=dtype, device=first.device, base_config=first.base_config)
        counts.model_loads += 1
        for warning in self.parts.warnings:
            counts.tell(warning)
        if self.parts.resolution != self._base.side:  # only a single file of no published size can be so
            counts.tell(
                f"{self._base.record.name} was made for {self.parts.resolution} pixels a side, which its header did not tell:"
                f" cells without a size are drawn at {self._base.side}. Give size={self.parts.resolution}."
            )
        self._prompts = Prompts(self.family, self.parts, tell=counts.tell)
        report(Tick("load", 1, 1, note=self._base.record.name))

    def draw(self, index: int) -> tuple[bytes, int]:
        """PNG bytes of the Render at `index`, and the denoiser calls it took."""
        render, counter, encodes = self._renders[index], Counter(), self._prompts.encodes
        try:
            self._wear(render)
            image = draw(self.family, self.parts, render, self._prompts, counter=counter)
            return encode_png(image, render, self._names(render)), counter.forwards
        finally:
            self._counts.forwards += counter.forwards
            self._counts.encodes += self._prompts.encodes - encodes
            self._let_go(index)

    def close(self) -> None:
        """Free the model's memory before the next one is loaded."""
        import torch

        del self.family, self.parts, self._prompts
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _wear(self, render: Render) -> None:
        """Exactly the Render's adapters at its weights, in the order of their contents."""
        for one in render.active:
            self._attach(_name(one.sha256), one.reference)
        worn = {_name(one.sha256): one.weight for one in render.active}
        set_weights(self.parts, worn)
        self._prompts.under(tuple((name, weight) for name, weight in worn.items() if self._attached[name]))

    def _attach(self, name: str, reference: str) -> None:
        if name in self._refused:
            raise self._refused[name]
        if name in self._attached:
            return
        try:
            attach(self.family, self.parts, {name: self._resolver.adapter(reference).path})
        except Exception as error:
            self._refused[name] = error
            raise
        self._attached[name] = any(name in getattr(encoder, "peft_config", {}) for encoder in self.parts.text_encoders.values())

    def _let_go(self, index: int) -> None:
        """Take off the adapters that no later Render of this base needs: memory stays flat however many there are."""
        done = [_name(one.sha256) for one in self._renders[index].active if self._last_use[one.sha256] == index]
        if done := [name for name in done if name in self._attached]:
            detach(self.parts, done)
            for name in done:
                del self._attached[name]

    def _names(self, render: Render) -> ModelNames:
        return model_names(self._resolver, render)


def _name(sha256: str | None) -> str:
    """An adapter's name inside the model: peft takes no dots."""
    return f"a{(sha256 or '')[:16]}"


def model_names(resolver: Resolver, render: Render) -> ModelNames:
    """What a picture's text calls the files of a resolved Render."""
    base = resolver.base(render.base, render.base_config)
    adapters: Mapping[str, Any] = {one.reference: resolver.adapter(one.reference) for one in render.adapters}
    return ModelNames(
        base=base.record.name,
        scheduler=base.scheduler,
        adapters={reference: (found.record.name, found.short_hash) for reference, found in adapters.items()},
        embedded_guidance=base.family.embedded_guidance,
    )
