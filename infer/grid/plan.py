"""The plan of a grid: everything checked, nothing loaded. Faults are reported together, the cost beforehand."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.budget.memory import GridMemory
from infer.draw.control import is_within
from infer.draw.draw import negative_key, prompt_key, truncation_note, weighted_key
from infer.draw.inputs import image_notes
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.values import number
from infer.grid.cells import CellStore
from infer.grid.config import GridConfig, free_settings
from infer.grid.layout import Cell, Layout, expand, replaced_weights
from infer.grid.order import loading
from infer.grid.shared_plan import alone_notes, shared_forwards, with_sharing
from infer.grid.upsampled import MOST_TEXTS, unchanged_prompts, upsampled_prompts
from infer.hires.passes import Pass, passes_of
from infer.hires.setting import size_note
from infer.output.lossy import metadata_fault
from infer.output.sources import hint_lines, prepared_hints
from infer.outside.column import OutsideCell, outside_counts, with_columns
from infer.prompt.dialect import A1111, PLAIN, dialect_notes, read_prompt
from infer.prompt.marks import literal_note
from infer.prompt.upsampling.upsample import RULES
from infer.remembered.base import Base
from infer.score.scorer import Scene, Scorer
from infer.sharing.width import MOST, read_batch_size
from infer.stages.latents import LatentsStore, latents_of
from registry.architectures.text.textual_inversion import with_tokens
from registry.errors import Faults, LoomError, Refused
from registry.files.write_failure import refuse_file_as_folder
from registry.printable import as_lines, counted, some

if TYPE_CHECKING:
    from infer.grid.from_image import Start
    from registry.parts import Parts
    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class GridPlan:
    """A grid that can be drawn: its cells with resolved Renders, and the work that remains."""

    config: GridConfig
    layout: Layout
    cells: tuple[Cell, ...]
    distinct: int  # images: equal cells are drawn once
    stored: int  # of them, already in the store
    model_loads: int
    encodes: int
    shared: int  # images to draw that share forwards with others
    forwards: int
    control_calls: int
    latents_reused: int  # denoisings whose latents an earlier run has kept
    seconds: float | None  # None: no cell like these was drawn here before
    notes: tuple[str, ...]
    resolver: Resolver
    outside: tuple[OutsideCell, ...] = ()  # images made elsewhere, in columns of their own
    memory: GridMemory | None = None  # the settings that were found for a budget
    scores: tuple[Scorer, ...] = ()
    start: Start | None = None  # the image that the settings are from

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "cells": len(self.cells),
            "distinct": self.distinct,
            "stored": self.stored,
            "to_draw": self.distinct - self.stored,
            "model_loads": self.model_loads,
            "encodes": self.encodes,
            "shared": self.shared,
            "forwards": self.forwards,
            "control_calls": self.control_calls,
            "latents_reused": self.latents_reused,
            "seconds": self.seconds,
            "axes": {one.name: list(one.labels) for one in self.layout.dimensions},
            "rows": _side(self.layout, self.layout.rows),
            "columns": _side(self.layout, self.layout.columns),
            **({"outside": outside_counts(self.outside)} if self.outside else {}),
            **({"memory": self.memory.to_json()} if self.memory else {}),
            **({"scores": [one.to_json() for one in self.scores]} if self.scores else {}),
            **({"from": self.start.to_json()} if self.start else {}),
            "notes": list(self.notes),
            **({"hints": hints} if (hints := self._hints()) else {}),
        } | ({"upsampled": rows} if (rows := upsampled_prompts(cell.render for cell in self.cells)) else {})

    def _hints(self) -> list[dict[str, Any]]:
        return prepared_hints((cell.render for cell in self.cells), self.resolver.hints)

    def to_text(self) -> str:
        """The plan for a person."""
        columns, added = {one.column for one in self.outside}, len({one.name for one in self.outside})
        sides = [(len(one) - (added if columns & {*one.axes} else 0), one.name) for one in self.layout.dimensions]
        lines = [f"{counted(len(self.cells), 'cell')}: {' x '.join(f'{count} {name}' for count, name in sides) or 'one image'}"]
        lines += [
            f"  {one['name']}: {counted(one['images'], 'image')} made elsewhere in {counted(one['cells'], 'cell')}"
            for one in outside_counts(self.outside)
        ]
        if self.distinct != len(self.cells):
            lines.append(f"  {counted(self.distinct, 'distinct image')}: cells with equal settings are drawn once")
        lines.append(f"  {self.stored} in the store already, {self.distinct - self.stored} to draw")
        nets = f", ControlNet calls {self.control_calls:,}" if self.control_calls else ""
        lines.append(f"  model loads {self.model_loads}, prompt encodings {self.encodes}, denoiser calls {self.forwards:,}{nets}")
        if self.latents_reused:
            lines.append(f"  {self.latents_reused} denoised before: their latents are only decoded")
        if self.shared:
            lines.append(f"  {self.shared} of them share their denoiser calls: {_widest(self.config)}")
        if self.distinct > self.stored:
            lines.append(
                f"  about {duration(self.seconds)}"
                if self.seconds is not None
                else "  time not known: no cell like these was drawn here before"
            )
        lines += self.memory.lines() if self.memory else []
        lines += [f"  score {one.name}: {one.definition}" for one in self.scores]
        lines += self.start.lines() if self.start else []
        for one in self.layout.dimensions:
            lines.append(f"  {one.name}: {_listed(one.labels)}")
        lines += hint_lines(self._hints())
        rows = upsampled_prompts(cell.render for cell in self.cells)
        lines += [f"  {row['upsample']}: {row['prompt']!r} becomes {row['text']!r}" for row in rows[:MOST_TEXTS]]
        lines += (
            [f"  and {counted(len(rows) - MOST_TEXTS, 'more upsampled prompt')} (all of them: --json)"] if len(rows) > MOST_TEXTS else []
        )
        return as_lines([*lines, *(f"note: {note}" for note in self.notes)])


def plan_grid(config: GridConfig, store: Store, cells: CellStore, *, start: Start | None = None) -> GridPlan:
    """The plan of these settings, which `start` says the origin of. Raises Faults with everything that is wrong with them."""
    resolver = Resolver(store)
    try:
        planned = _planned(config, store, cells, resolver)
        return planned if start is None else replace(planned, start=start, notes=(*start.notes(), *planned.notes))
    finally:
        resolver.keep_answers()


def _planned(config: GridConfig, store: Store, cells: CellStore, resolver: Resolver) -> GridPlan:
    faults: dict[str, None] = {}
    try:
        refuse_file_as_folder(f"out={config.out}", Path(config.out).absolute())
    except Refused as error:
        faults[str(error)] = None
    layout, expanded = expand(config, store, lambda fault: faults.__setitem__(fault, None))
    with_model = any(cell.render.upsample and cell.render.upsample.model not in RULES for cell in expanded)
    if with_model:  # what is wrong, before a language model is loaded
        for cell in expanded:
            _resolved(cell, resolver, faults, upsample=False)
    ready = [] if with_model and faults else expanded
    resolved = [found for cell in ready if (found := _resolved(cell, resolver, faults)) is not None]
    resolver.upsampler.close()
    layout, resolved, outside, beside = with_columns(
        config.outside, layout, resolved, config.base, resolver.images, lambda fault: faults.__setitem__(fault, None)
    )
    scores = _scores(config, layout, resolved, store, faults)
    memory = None
    if config.memory is not None and resolved and not faults:
        resolved, memory = _within(config, config.memory, resolved, resolver, faults)
    batch_size = read_batch_size(config.batch_size)
    kept = latents_of(store.home, config.keep_latents)
    if batch_size != 1 and not faults:
        resolved = with_sharing(resolved, resolver, cells, kept)
    if not faults:
        costs = _Costs(resolver, faults)
        distinct = {cell.render.key(): cell.render for cell in resolved}
        for render in distinct.values():
            if (fault := metadata_fault(render, config.image_format.name)) is not None:
                faults[fault] = None
        work = _work([render for key, render in distinct.items() if not cells.has(key)], kept, costs)
    if faults:
        raise Faults("This grid cannot be drawn:", faults)
    return GridPlan(
        config=config,
        layout=layout,
        cells=tuple(resolved),
        distinct=len(distinct),
        stored=len(distinct) - len(work.missing),
        model_loads=len({loading(one.drawn.render) for one in work.denoised}),  # latents that are kept are decoded without it
        encodes=len({text for one in work.denoised for text in costs.texts(one)}),
        shared=work.shared,
        forwards=shared_forwards([(loading(render), render, calls) for render, calls in work.calls()], resolver, width=batch_size),
        control_calls=work.control_calls,
        latents_reused=work.latents_reused,
        seconds=_seconds(work.missing, work.forwards, cells),
        notes=tuple(
            dict.fromkeys(
                [
                    *replaced_weights(config),
                    *costs.notes(list(distinct.values())),
                    *_unused(distinct.values()),
                    *unchanged_prompts(cell.render for cell in resolved),
                    *_unused_tokens(list(distinct.values())),
                    *(alone_notes(distinct.values(), resolver) if batch_size != 1 else ()),
                    *beside,
                    *(note for one in scores for note in one.notes),
                ]
            )
        ),
        resolver=resolver,
        outside=tuple(outside),
        memory=memory,
        scores=scores,
    )


@dataclass(frozen=True)
class _Work:
    """What is left to draw: the images that are not there, each one's denoiser calls, the denoisings whose latents are not kept."""

    missing: Sequence[Render]
    forwards: Sequence[int]
    denoised: Sequence[Denoising]
    shared: int  # images that share forwards with others
    control_calls: int
    latents_reused: int

    def calls(self) -> Iterator[tuple[Render, int]]:
        """(image, its denoiser calls)."""
        return zip(self.missing, self.forwards, strict=True)


def _work(missing: Sequence[Render], kept: LatentsStore | None, costs: _Costs) -> _Work:
    """The work of the images that the store has not. Images that differ in what acts after the latents are denoised once.

    So is a first pass that several second ones share; where the latents of an image are there, no pass before them is needed.
    """
    passes = [passes_of(render) for render in missing]
    reused = {one.key for each in passes for one in each if kept is not None and kept.has(one.key)}
    denoised: dict[str, Denoising] = {}
    forwards: list[int] = []
    control_calls, taken = 0, set[str]()
    for each in passes:
        calls = 0
        for place in reversed(range(len(each))):
            one = each[place]
            if one.key in reused or one.key in denoised:
                taken |= {one.key} & reused
                break
            denoised[one.key] = found = Denoising(drawn=one, before=each[place - 1].render if place else None)
            here = costs.forwards(found)
            calls, control_calls = calls + here, control_calls + _control_calls(one.render, here)
        forwards.append(calls)
    return _Work(
        missing=missing,
        forwards=forwards,
        denoised=tuple(denoised.values()),
        shared=sum(render.shared for render, each in zip(missing, passes, strict=True) if each[-1].key not in reused),
        control_calls=control_calls,
        latents_reused=len(taken),
    )


def _within(
    config: GridConfig, memory: str, resolved: list[Cell], resolver: Resolver, faults: dict[str, None]
) -> tuple[list[Cell], GridMemory | None]:
    """The cells with the settings that fit the budget."""
    from infer.budget.fit import choose

    try:
        found = choose(
            memory,
            [cell.render for cell in resolved],
            resolver,
            free=free_settings(config),
            batch_size=read_batch_size(config.batch_size) or 1,
        )
    except Faults as error:
        faults |= dict.fromkeys(error.faults)
        return resolved, None
    changed = [replace(cell, render=render) for cell, render in zip(resolved, found.renders, strict=True)]
    return [again for cell in changed if (again := _resolved(cell, resolver, faults)) is not None], found.memory


def _resolved(cell: Cell, resolver: Resolver, faults: dict[str, None], *, upsample: bool = True) -> Cell | None:
    try:
        return replace(cell, render=resolver.resolve(cell.render, upsample=upsample))
    except Faults as error:
        faults |= dict.fromkeys(error.faults)
    except LoomError as error:
        faults[str(error)] = None
    return None


def _scores(config: GridConfig, layout: Layout, cells: Sequence[Cell], store: Store, faults: dict[str, None]) -> tuple[Scorer, ...]:
    """The scores, each model tried once. What is wrong with them is a fault."""
    if config.score is None:
        return ()
    from infer.score.given import plan_scores

    scene = Scene(
        prompts=tuple(dict.fromkeys(cell.render.prompt for cell in cells)),
        axes=tuple(axis for one in layout.dimensions for axis in one.axes if len(one) > 1),
        adapters=tuple(dict.fromkeys(one.sha256 for cell in cells for one in cell.render.active if one.sha256)),
        store=store,
        device=config.device,
    )
    return plan_scores(config.score, scene, faults)


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """A pass that is drawn, and the one before it, whose steps a prompt's schedule counts on from."""

    drawn: Pass
    before: Render | None

    @property
    def walked(self) -> int:
        """Steps that are walked."""
        return (self.drawn.render.steps or 1) if self.drawn.walked is None else self.drawn.walked


class _Costs:
    """The cost of Renders, from configs alone."""

    def __init__(self, resolver: Resolver, faults: dict[str, None]) -> None:
        self._resolver = resolver
        self._faults = faults
        self._skeleton: tuple[Hashable, Parts] | None = None  # the last one, with the tokens of textual inversion embeddings

    def forwards(self, one: Denoising) -> int:
        """Denoiser calls of a pass: the number of its scheduler's timesteps. What the scheduler refuses is a fault."""
        render = one.drawn.render
        base = self._base(render)
        settings = [render.sampler, render.schedule, render.sigma_min, render.sigma_max, render.steps]
        question = ["calls", *settings, render.width, render.height, render.strength]
        question += [] if one.drawn.walked is None else ["of them", one.drawn.walked]
        return self._resolver.ask(base, question, lambda: self._count(base, one.drawn), keep=lambda count: count is not None) or 0

    def texts(self, one: Denoising) -> Iterable[Hashable]:
        """What is encoded for a pass: each text with the state of its text encoders (adapters, embeddings)."""
        render = one.drawn.render
        active_adapters = tuple(
            (lora.sha256, lora.weight, lora.text_weight) for lora in render.active if self._changes_text(lora.reference)
        )
        if render.prompt_dialect == PLAIN:
            wanted = [prompt_key(render.prompt, render.clip_skip, render.prompt_chunks)]
            if render.guided:
                wanted.append(negative_key(self._base(render).family, render.negative, render.prompt_chunks))
        else:
            wanted = list(self._in_dialect(one))
        tokens = tuple((embedding.sha256, embedding.token) for embedding in render.embeddings)
        return [(loading(render), active_adapters, tokens, key) for key in wanted]

    def _in_dialect(self, one: Denoising) -> Iterable[Hashable]:
        render, before = one.drawn.render, 0 if one.before is None else one.before.steps or 0
        for text, negative in ((render.prompt, False), *([(render.negative or "", True)] if render.guided else [])):
            for read in read_prompt(text, render.prompt_dialect, steps=one.walked, before=before, negative=negative):
                yield weighted_key(read.texts, render)

    def notes(self, renders: Sequence[Render]) -> Iterable[str]:
        """Notes: what loading assumes, a guidance without effect, adapters of another family, image sizes, truncated prompts."""
        renders = list(renders)
        bases = {render.base_sha256: self._base(render) for render in renders}
        yield from (warning for base in bases.values() for warning in base.facts.warnings)
        yield from (_idle_guidance(self._base(render), render) for render in renders if self._lacks_negative(render))
        yield from (note for render in renders for one in render.active if (note := self._other_family(render, one.reference)))
        yield from (note for render in renders for one in passes_of(render) for note in image_notes(one.render, self._resolver.hints))
        yield from (note for render in renders if (note := _large(render, self._base(render))))
        yield from (
            note for render in renders if render.hires and (note := size_note(render.hires, (render.width or 0, render.height or 0)))
        )
        yield from (note for render in renders if render.compute and (note := self._computed(render, render.compute)))
        plain = [render for render in renders if render.prompt_dialect == PLAIN]
        if note := literal_note(text for render in plain for text in (render.prompt, render.negative) if text):
            yield note
        for dialect in A1111:
            others = {render.prompt: render.steps or 1 for render in renders if render.prompt_dialect == dialect}
            yield from dialect_notes(list(others), dialect, steps=max([1, *others.values()]))
        texts = {
            (render.base_sha256, render.embeddings, text, render.prompt_chunks): render
            for render in plain
            for text in (render.prompt, render.negative)
            if text
        }
        rank = {sha256: number for number, sha256 in enumerate(bases)}
        by_base = sorted(texts.items(), key=lambda one: rank[one[0][0]])  # an empty model each, of which few are kept
        for render, text in ((render, str(text)) for (_, _, text, _), render in by_base):
            base = self._base(render)
            tokens = [[one.sha256, one.token] for one in render.embeddings]
            question: list[Any] = ["truncated", text, render.prompt_chunks, tokens]
            if note := self._resolver.ask(base, question, partial(self._truncated, base, render, text)):
                yield note

    def _truncated(self, base: Base, render: Render, text: str) -> str | None:
        """The sentence on a prompt that is longer than the text encoders read, with the tokens of its embeddings."""
        what = (base.sha256, render.embeddings)
        if self._skeleton is None or self._skeleton[0] != what:
            self._skeleton = what, with_tokens(base.skeleton, self._resolver.textual_inversions(render))
        return truncation_note(base.family, replace(self._skeleton[1], prompt_chunks=render.prompt_chunks), text)

    def _computed(self, render: Render, kind: str) -> str:
        """The note on arithmetic in 8 bits: how many layers take part."""
        base = self._base(render)
        fitting, quantised = self._resolver.ask(base, ["compute", kind], partial(_computing, base, kind))
        return (
            f"compute={kind}: {fitting} of the {quantised} quantised layers of {render.base} multiply in {kind}, with activations quantised"
            " token by token: another image than that of the dequantised weights."
            + ("" if fitting == quantised else " The widths of the others have no such products.")
        )

    def _lacks_negative(self, render: Render) -> bool:
        """Whether the family would make an unconditional pass at this guidance, had a negative prompt been given."""
        if render.guidance is None or render.guided or render.negative is not None:
            return False
        base = self._base(render)
        return self._resolver.guided(base, render.guidance, negative=True)

    def _other_family(self, render: Render, reference: str) -> str | None:
        """The note on an adapter that fits a base of another family than its own (FLUX.1's blocks are Chroma's)."""
        family, base = self._resolver.adapter(reference).record.family, self._base(render).family
        if family is None or family == base.name:
            return None
        return f"The adapter {reference} is known as one for {family}; its layers fit this {base.name} base, but it was not trained for it."

    def _base(self, render: Render) -> Base:
        return self._resolver.base(render)

    def _changes_text(self, reference: str) -> bool:
        return any(name.startswith("text_encoder") for name in self._resolver.adapter(reference).record.components)

    def _count(self, base: Base, one: Pass) -> int | None:
        """Timesteps of a pass's scheduler that are run; None, and a fault, where it refuses them."""
        from infer.draw.denoise import set_timesteps
        from infer.draw.samplers import build_scheduler
        from infer.sampling.scheduled import chosen_schedule

        render, steps = one.render, one.render.steps or 0
        strength = render.strength if one.walked is None else 1.0
        try:
            chosen = chosen_schedule(render.schedule, render.sigma_min, render.sigma_max)
            scheduler = build_scheduler(base.skeleton, render.sampler, schedule=chosen)
            height, width = render.height or 0, render.width or 0
            timesteps = set_timesteps(base.family, scheduler, steps, strength=strength, walked=one.walked, height=height, width=width)
        except Exception as error:  # schedulers raise errors of many types
            self._faults[f"sampler {render.sampler or base.facts.scheduler_class} does not take {counted(steps, 'step')}: {error}"] = None
            return None
        return len(timesteps)


def _computing(base: Base, kind: str) -> tuple[int, int]:
    from registry.quantised.products import computing_layers

    return computing_layers(base.skeleton.denoiser, base.family.quantised.choose(kind), kind)


def _seconds(missing: Sequence[Render], forwards: Sequence[int], cells: CellStore) -> float | None:
    """The time to draw what is missing, from the cells that were drawn here before; None when there is none like them."""
    known: dict[Hashable, float | None] = {}
    total = 0.0
    for render, count in zip(missing, forwards, strict=True):
        kind = (
            render.base_sha256,
            render.width,
            render.height,
            render.precision,
            render.base_dtype,
            render.compute,
            render.device,
            render.guided,
            render.shared,
            render.hires and (render.hires.width, render.hires.steps, render.hires.of_image),
        )
        if kind not in known:
            known[kind] = cells.seconds_a_forward(render)
        if (each := known[kind]) is None:
            return None
        total += each * count
    return round(total, 1)


def _widest(config: GridConfig) -> str:
    """How many cells share a denoiser call, for a person."""
    width = read_batch_size(config.batch_size)
    return f"up to {width} at once" if width is not None else f"as many as fit the memory, here counted with {MOST}"


def _idle_guidance(base: Base, render: Render) -> str:
    shown = number(render.guidance or 0.0)
    return f"A guidance of {shown} has no effect in {base.family.title} without a negative prompt: give one, 'negative=\" \"' is enough."


def _unused(renders: Iterable[Render]) -> Iterable[str]:
    """Negative prompts and guidance rescale without effect."""
    renders = list(renders)
    if any(render.rescale and not render.any_guided for render in renders):
        yield "rescale has no effect without an unconditional pass: there is no guidance whose spread it would correct."
    idle = {render.guidance for render in renders if render.negative and not render.any_guided}
    if idle:
        shown = ", ".join(number(each) for each in sorted(each for each in idle if each is not None))
        yield f"The negative prompt has no effect at a guidance of {shown}: there is no unconditional pass that would read it."


def _unused_tokens(renders: Sequence[Render]) -> Iterable[str]:
    """Textual inversion embeddings whose token is in no prompt."""
    for token in dict.fromkeys(str(one.token) for render in renders for one in render.embeddings):
        prompts = (render.prompt + (render.negative or "") for render in renders if token in [one.token for one in render.embeddings])
        if not any(token.lower() in text.lower() for text in prompts):
            yield f"The token {token!r} of a textual inversion embedding is in no prompt: it has no effect. Write it in the prompt."


def duration(seconds: float) -> str:
    """A time for a person: 40 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _control_calls(render: Render, steps: int) -> int:
    """Calls of the Render's ControlNets: one a step within each one's window."""
    return sum(is_within(at, steps, one.start, one.end) for one in render.steering for at in range(steps))


def _large(render: Render, base: Base) -> str | None:
    """The note on a drawing whose size is its input image's and far above the base's resolution."""
    made, drawn = base.facts.resolution, max(render.width or 0, render.height or 0)
    if not render.images or drawn <= 1.5 * made:
        return None
    return (
        f"The drawing is {render.width}x{render.height} pixels; {base.record.name} was made for {made}x{made}."
        " Larger ones take longer and repeat themselves: give size=... for another."
    )


def _side(layout: Layout, index: int | None) -> str | None:
    return None if index is None else layout.dimensions[index].name


def _listed(labels: Sequence[str], most: int = 8) -> str:
    return some((label if len(label) <= 60 else f"{label[:57]}..." for label in labels), most, between=" | ")
