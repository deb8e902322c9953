"""What a sheet and a report show: the cells of a finished grid with their images, and the settings that all of them share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infer.draw.render import SETTINGS, Render
from infer.grid.layout import Layout
from infer.output.infotext import OWN
from infer.output.sources import SourceImage

OUTSIDE = "outside"  # the status of an image made elsewhere
UNFINISHED = "not drawn: the run was interrupted"  # the error of a cell


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score that cells have: its name, what it measures, and which of two values is the better one (None: neither)."""

    name: str
    definition: str
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True, kw_only=True)
class CellImage:
    """One cell as it is shown. `path` None is a cell without an image; `error` is the reason."""

    place: tuple[int, ...]
    key: str
    status: str  # rendered, reused, failed, missing, outside, absent
    path: Path | None
    settings: Mapping[str, str]  # for people, in order
    details: Mapping[str, str] = field(default_factory=dict)  # hashes and versions
    parameters: str = ""  # A1111's text
    command: str = ""  # the command line that draws it alone
    seconds: float = 0.0
    error: str | None = None
    pixels_sha256: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)  # by Score.name; None where it could not be computed
    sources: tuple[int, ...] = ()  # its source images, masks and hints: indexes into Gallery.sources


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A finished grid."""

    title: str
    layout: Layout
    images: Sequence[CellImage]
    fixed: Mapping[str, str]  # the settings that every cell shares and no axis varies
    notes: Sequence[str] = ()
    sources: Sequence[SourceImage] = ()
    scores: tuple[Score, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)

    def at(self) -> dict[tuple[int, ...], CellImage]:
        """The images by their place."""
        return {one.place: one for one in self.images}


def spell_settings(render: Render, *, base: str, scheduler: str | None) -> dict[str, str]:
    """All settings of a resolved Render as a person reads them; those that are not in use are left out."""
    shown = {one.label: one.show(one.value(render)) for one in SETTINGS.values()}
    shown |= {"base": base, "device": dict(render.versions).get("gpu", render.device)}
    if render.sampler is None:
        shown["sampler"] = _own_sampler(scheduler)
    return {name: value for name, value in shown.items() if value is not None}


def _own_sampler(scheduler: str | None) -> str:
    return "the base's own" if scheduler is None else f"{OWN.get(scheduler, (scheduler, ''))[0]} (the base's own)"


def spell_details(render: Render) -> dict[str, str]:
    """The hashes and versions behind the names of a resolved Render."""
    hashes = {f"{name} sha256": content or "" for name, content in render.contents()}
    return hashes | {"drawn with": ", ".join(f"{name} {version}" for name, version in render.versions)}


def shared_settings(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The settings that are equal in all."""
    if not settings:
        return {}
    return {name: value for name, value in settings[0].items() if all(one.get(name) == value for one in settings)}


def look_alikes(images: Sequence[CellImage], *, most: int = 3) -> list[str]:
    """Notes on settings that change nothing: cells that differ in them and have the very same pixels. Each cause is said once."""
    groups: dict[str, dict[str, CellImage]] = {}
    for one in images:
        if one.pixels_sha256:
            groups.setdefault(one.pixels_sha256, {}).setdefault(one.key, one)
    causes = Counter(_difference(list(group.values())) for group in groups.values() if len(group) > 1)
    notes = [
        f"The same pixels, bit for bit, came of {cause}{f', in {count} places' if count > 1 else ''}."
        for cause, count in causes.most_common(most)
    ]
    return notes + ([f"{len(causes) - most} more differences of settings left the pixels as they were."] if len(causes) > most else [])


def _difference(group: Sequence[CellImage]) -> str:
    """The settings in which these differ, as each of the first two has them."""
    one, other = group[:2]
    names = [name for name in {**one.settings, **other.settings} if one.settings.get(name) != other.settings.get(name)]
    if not names:
        return "two files that are called alike" + _more(len(group) - 2)
    first, second = ([f"{name} {image.settings.get(name, 'none')!r}" for name in names] for image in (one, other))
    return f"{', '.join(first)} and {', '.join(second)}" + _more(len(group) - 2)


def _more(count: int) -> str:
    return f", and of {count} more" if count > 0 else ""
