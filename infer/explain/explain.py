"""`loraloom explain`: everything that led to one image, measured on the image's own settings."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from infer.draw.files import Adapter, ControlNet, spell_adapters
from infer.draw.inputs import hint_image, init_image
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session
from infer.explain.blocks import BlockChange, changes_by_block
from infer.explain.changes import CONTROL, START, Difference, Variant, control_name, difference, embedding_name, name_of
from infer.explain.filmstrip import Filmstrip, Frame
from infer.explain.plan import ExplainPlan
from infer.explain.similarity import Similarity, similarities
from infer.explain.tokens import Tokens, tokens_of, without_marks
from infer.grid.cell_result import look_up
from infer.grid.cells import CellStore
from infer.output.gallery import spell_settings
from infer.output.lossy import through_encoder
from infer.output.png import read_png
from infer.output.reproduce import compare
from infer.sharing.alone import TOLERANCE
from registry.architectures.text.textual_inversion import with_tokens
from registry.errors import JobFailed, LoomError
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A frame with its image: what the denoiser predicts at a call, or at the end the image itself (`frame` None)."""

    frame: Frame | None
    image: Image


@dataclass(frozen=True, kw_only=True)
class Change:
    """An image with something left out, and how it differs. `source` is what was left out: the image that is redrawn, a hint.

    `redrawn` is the difference of the image to the one that it was redrawn from.
    """

    variant: Variant
    image: Image
    difference: Difference
    source: Image | None = None
    redrawn: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class FileBeside:
    """The image of the file, where what is drawn is another one. `difference` None: they are not of one size."""

    image: Image
    difference: Difference | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One image's way."""

    plan: ExplainPlan
    settings: dict[str, str]
    image: Image
    largest_difference: int  # of 255, to the pixels of the file
    file: FileBeside | None
    tokens: tuple[Tokens, ...]
    similar: tuple[Similarity, ...]
    frames: tuple[Shown, ...]
    changes: tuple[Change, ...]
    blocks: dict[Adapter, list[BlockChange]]
    forwards: int
    seconds: float
    notes: tuple[str, ...]


def explain(plan: ExplainPlan, *, report: Report = silent) -> Explanation:
    """Draw and measure. Raises JobFailed when the image cannot be drawn."""
    return next(explain_each([plan], report=report))


def explain_each(plans: Sequence[ExplainPlan], *, stored: CellStore | None = None, report: Report = silent) -> Iterator[Explanation]:
    """`explain` of each plan, of one resolver and one base as it is loaded, in their order: the base is loaded once.

    What is drawn beside an image is taken from `stored`, where a grid has drawn it before.
    """
    counts = Counts()
    renders = [render for plan in plans for render in (plan.render, *(one.render for one in plan.variants))]
    session = Session(plans[0].resolver, renders, counts, report=report)  # without kept latents: every step is wanted
    work = _Work(len(renders), stored, counts, report)
    loading = tuple(counts.notes)
    try:
        first = 0
        for plan in plans:
            began, forwards, counts.notes = monotonic(), counts.forwards, []
            found = _explained(plan, session, first, work)
            first += 1 + len(plan.variants)
            seconds = round(monotonic() - began, 3)
            yield replace(found, forwards=counts.forwards - forwards, seconds=seconds, notes=(*found.notes, *loading, *counts.notes))
    except LoomError:
        raise
    except Exception as error:
        raise JobFailed(f"The image could not be explained: {type(error).__name__}: {error}") from error
    finally:
        session.close()


class _Work:
    """The progress over all images that are wanted, and those that a grid has drawn before."""

    def __init__(self, total: int, stored: CellStore | None, counts: Counts, report: Report) -> None:
        self.report = report
        self._total = total
        self._stored = stored
        self._counts = counts
        self._done = 0

    def stored(self, render: Render) -> bytes | None:
        """The PNG of an image that was drawn before."""
        found = look_up(self._stored, render.key(), self._counts) if self._stored is not None else None
        return None if found is None else found.png

    def done(self) -> None:
        """One image more."""
        self._done += 1
        self.report(Tick("draw", self._done, self._total))


def _explained(plan: ExplainPlan, session: Session, first: int, work: _Work) -> Explanation:
    """The explanation of the plan whose Renders are the session's from `first` on."""
    render, family, resolver = plan.render, session.family, plan.resolver
    session.clear()  # the base's own weights and tokenizers
    named = with_tokens(session.parts, resolver.textual_inversions(render))
    tokens = tokens_of(render, family, named)
    prompt = without_marks(render.prompt, render)
    negative = [without_marks(render.negative, render, negative=True)] if render.any_guided and render.negative else []
    others = [text for text in dict.fromkeys([*negative, *plan.against]) if text.strip()]
    similar = similarities(session.parts, prompt, others) if prompt.strip() else []
    blocks: dict[Adapter, list[BlockChange]] = {}
    for one in render.active:

        def on_weight(done: int, total: int, name: str = name_of(one, resolver)) -> None:
            work.report(Tick("measure", done, total, note=name))

        blocks[one] = changes_by_block(one, resolver.adapter(one.reference).path, family, session.parts, on_weight=on_weight)
    strip = Filmstrip(prediction=session.parts.prediction, count=plan.frames - 1, left_out=_left_out(plan))
    image = _image(session.draw(first, watch=strip.watch)[0])
    work.done()
    frames = [Shown(frame=frame, image=_decoded(session, first, frame)) for frame in strip.frames]
    changes = []
    for index, variant in enumerate(plan.variants, first + 1):
        png = work.stored(variant.render)
        if png is None:
            png, _ = session.draw(index)
        session.release(index)
        changes.append(_change(plan, variant, image, _image(png)))
        work.done()
    apart, there = _compared(plan, image)
    return Explanation(
        plan=plan,
        settings=_settings(render, resolver),
        image=image,
        largest_difference=apart,
        file=_file(plan, image, there, apart),
        tokens=tuple(tokens),
        similar=tuple(similar),
        frames=(*frames, Shown(frame=None, image=image)),
        changes=tuple(changes),
        blocks=blocks,
        forwards=0,
        seconds=0.0,
        notes=(*plan.notes, *_notes(plan, apart, resized=None if there.size == image.size else there.size)),
    )


def _change(plan: ExplainPlan, variant: Variant, image: Image, other: Image) -> Change:
    render, resolver = plan.render, plan.resolver
    apart = difference(image, other)
    if variant.what == START:
        source = init_image(render, resolver.images)
        return Change(variant=variant, image=other, difference=apart, source=source, redrawn=difference(image, source))
    if variant.what == CONTROL and isinstance(variant.one, ControlNet):
        hint = hint_image(render, variant.one, resolver.hints).convert("RGB")
        return Change(variant=variant, image=other, difference=apart, source=hint)
    return Change(variant=variant, image=other, difference=apart)


def _compared(plan: ExplainPlan, image: Image) -> tuple[int, Image]:
    """The largest difference of the image to the file's, of 255, and the file's; a lossy image is compared behind its own encoder."""
    there, again = _image(plan.path.read_bytes()), image
    encoding = read_png(plan.path).encoding if plan.taken is None else None
    if encoding is not None:
        again = through_encoder(image, format=encoding.format, quality=encoding.quality)
    return compare(again, there)[0], there


def _file(plan: ExplainPlan, image: Image, there: Image, apart: int) -> FileBeside | None:
    """The image of the file, to be seen beside the one that is drawn, where they differ."""
    if apart <= _tolerance(plan.render):
        return None
    return FileBeside(image=there, difference=difference(image, there) if image.size == there.size else None)


def _settings(render: Render, resolver: Resolver) -> dict[str, str]:
    """The settings for a person, files by their names."""
    base = resolver.base(render)
    shown = replace(
        render,
        controls=tuple(replace(one, reference=control_name(one, resolver)) for one in render.controls),
        embeddings=tuple(replace(one, reference=embedding_name(one, resolver)) for one in render.embeddings),
        vae=None if render.vae is None else resolver.vae(render.vae).record.name,
    )
    named = [replace(one, reference=name_of(one, resolver)) for one in render.every_adapter]
    spelt = spell_settings(shown, base=base.record.name, scheduler=base.facts.scheduler_class)
    return spelt | ({"adapters": spell_adapters(tuple(named))} if named else {})


def _decoded(session: Session, index: int, frame: Frame) -> Image:
    """A frame's image; numbers that are none (at the first step of a model that has no signal there) become grey."""
    import torch

    clean = torch.nan_to_num(frame.clean, nan=0.0, posinf=0.0, neginf=0.0)
    return session.decoded(index, clean.to(session.parts.dtype if not session.family.fp32_latents else torch.float32))


def _image(png: bytes) -> Image:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        return opened.convert("RGB")


def _left_out(plan: ExplainPlan) -> int:
    """The steps before the first frame, of the schedule that the frames are of."""
    if (hires := plan.render.hires) is not None:
        return hires.schedule_steps - (hires.steps or 0)
    return (plan.render.steps or 0) - plan.steps


def _tolerance(render: Render) -> int:
    return TOLERANCE[render.precision] if render.shared else 0


def _notes(plan: ExplainPlan, apart: int, *, resized: tuple[int, int] | None) -> list[str]:
    render = plan.render
    second = [] if render.hires is None else ["The frames are those of the second pass: it begins with what the first one has drawn."]
    if resized is not None:
        there, drawn = ("x".join(map(str, size)) for size in (resized, render.final_size))
        return [*second, f"The file has {there} pixels, the image {drawn}: it was cropped or scaled, and is drawn whole here."]
    if apart <= _tolerance(render) or plan.taken is not None:
        return second
    return [
        *second,
        f"The image is not drawn again to the bit here: the largest difference is {apart} of 255. `loraloom reproduce` says why.",
    ]
