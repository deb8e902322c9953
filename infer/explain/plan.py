"""What explaining an image takes, checked before anything is drawn: its settings, and the images that are drawn beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.explain.changes import Variant, control_name, drawn_steps, embedding_name, name_of, variants_of
from infer.grid.config import GridConfig
from infer.grid.job import plan as plan_grid
from infer.output.png import read_png
from infer.output.reproduce import with_found_files
from registry.errors import BadFile, Faults, Refused
from registry.printable import as_lines, one_line

if TYPE_CHECKING:
    from infer.grid.from_image import Start
    from registry.store import Store

MOST_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class ExplainPlan:
    """An image that can be explained: its resolved Render, and the images that are drawn beside it.

    `taken` is what was taken over of another program's image, or of one whose settings are changed; None: the image's own Render is drawn.
    """

    path: Path
    render: Render
    steps: int  # that the image is drawn in: image-to-image leaves some out
    variants: tuple[Variant, ...]
    why_not: dict[str, str]
    against: tuple[str, ...]
    frames: int
    resolver: Resolver
    taken: Start | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        render = self.render
        return {
            "image": str(self.path),
            "key": render.key(),
            "draws": ["the image", *(one.name for one in self.variants)],
            "steps": render.steps,
            "drawn_steps": [self.steps, *(one.steps for one in self.variants)],
            "frames": self.frames,
            "adapters": [name_of(one, self.resolver) for one in render.active],
            "controls": [control_name(one, self.resolver) for one in render.steering],
            "embeddings": [embedding_name(one, self.resolver) for one in render.embeddings],
            "against": list(self.against),
            "not_drawn": self.why_not,
            "from": None if self.taken is None else self.taken.to_json(),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The plan for a person."""
        total = self.steps + sum(one.steps for one in self.variants)
        lines = [f"{self.path}: {1 + len(self.variants)} {'images' if self.variants else 'image'} in {total} steps"]
        lines += [f"  the image, and its frames: {self._counted(self.steps)}"]
        lines += [f"  {one.name}: {self._counted(one.steps)}" for one in self.variants]
        lines += self.taken.lines() if self.taken is not None else []
        return as_lines([*lines, *(f"note: {why}" for why in dict.fromkeys([*self.why_not.values(), *self.notes]))])

    def _counted(self, steps: int) -> str:
        whole = self.render.steps or 0
        if self.render.hires is not None:
            return f"{steps} steps, {self.render.hires.steps} of them in the second pass"
        return f"{steps} steps" if steps == whole else f"{steps} of {whole} steps, by its strength"


def plan_explanation(
    path: Path,
    store: Store,
    *,
    against: Sequence[str] = (),
    frames: int = 8,
    settings: GridConfig | None = None,
    given: Collection[str] = (),
) -> ExplainPlan:
    """What explaining the image at `path` takes.

    An image of another program is drawn as `loraloom grid from=IMAGE` does; `settings` are those that the image does not say or that are
    to be others, `given` their names. Raises BadFile when the image says nothing of how it was made, Faults when its models are not
    found.
    """
    check_options(against, frames)
    if given:
        return _planned_from(path, store, against, frames, settings, given)
    try:
        render = read_png(path).render
    except BadFile as error:
        if error.code != "no-render":
            raise
        return _planned_from(path, store, against, frames, settings, given)
    return plan_render(path, with_found_files(render, store), Resolver(store), against=against, frames=frames)


def check_options(against: Sequence[str], frames: int) -> None:
    """Refuse a number of frames, or a prompt to compare with, that is none."""
    if not 2 <= frames <= MOST_FRAMES:
        raise Refused(f"frames is {frames}. Expected 2 to {MOST_FRAMES}: the first prediction and the image among them.")
    if any(not text.strip() for text in against):
        raise Refused("A prompt to compare with is empty. Give its text.")


def plan_render(path: Path, render: Render, resolver: Resolver, *, against: Sequence[str], frames: int) -> ExplainPlan:
    """The plan of the image at `path`, whose Render has references that are found here."""
    try:
        render = resolver.resolve(render)
        variants, why = variants_of(render, resolver)
    finally:
        resolver.keep_answers()
    return ExplainPlan(
        path=path,
        render=render,
        steps=drawn_steps(render, resolver),
        variants=tuple(variants),
        why_not=why,
        against=tuple(dict.fromkeys(against)),
        frames=frames,
        resolver=resolver,
    )


def _planned_from(
    path: Path, store: Store, against: Sequence[str], frames: int, settings: GridConfig | None, given: Collection[str]
) -> ExplainPlan:
    """The plan of an image whose settings are filled in from its metadata, and from what is given."""
    config = replace(settings if settings is not None else GridConfig(), from_image=str(path))
    try:
        planned = plan_grid(config, store, given=given)
    except Faults as error:
        raise Faults(
            f"{one_line(path.name)} cannot be drawn here, and so not explained (settings: --set KEY=VALUE):", error.faults
        ) from error
    if len(planned.cells) != 1 or planned.outside:
        raise Refused(f"These settings give {len(planned.cells)} images, and one is explained. Leave out axes, repeats and outside.")
    assert planned.start is not None
    found = plan_render(path, planned.cells[0].render, planned.resolver, against=against, frames=frames)
    return replace(found, taken=planned.start, notes=tuple(dict.fromkeys([*_made_elsewhere(planned.start, given), *planned.notes])))


def _made_elsewhere(start: Start, given: Collection[str]) -> list[str]:
    """What must be known of an image that is not the one in the file."""
    tool = start.metadata.tool
    changed = [f"Other than the image says, because they were given: {', '.join(given)}."] if given else []
    if start.metadata.render is not None:
        return changed
    return [
        f"{one_line(start.path.name)} was drawn by {tool}. What is explained is the image that its settings give here: another program's"
        " arithmetic and noise differ, so that the pixels do too.",
        *changed,
    ]
