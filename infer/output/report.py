"""The report: one HTML file that opens from the disk and fetches nothing from anywhere, its images inside it or beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer.draw.machine import version_of
from infer.output.gallery import OUTSIDE, Gallery
from infer.output.page.data import page_data
from infer.output.page.images import beside, embedded, embeds
from infer.output.page.live import LiveParts, end_live
from infer.output.page.policy import allowed
from infer.output.page.single_file import BESIDE
from registry.formats.atomic_file import write_text
from registry.printable import counted, script_json

SCRIPTS = (
    "dom",
    "page",
    "zoom",
    "grid/state",
    "grid/order",
    "grid/table",
    "grid/lines",
    "grid/sides",
    "grid/bar",
    "grid/marks",
    "grid/viewer",
    "grid/compare",
    "grid/facts",
    "grid/explain",
    "grid/cycle",
    "grid/keys",
    "grid/address",
    "grid/live",
    "grid/start",
)


def write_report(path: Path, gallery: Gallery, *, single_file: bool | None = None) -> list[str]:
    """Write the report; gives notes on images that had to be embedded smaller.

    The images are in the page, or beside it in its folder with small copies in thumbs/; `single_file` None is the first where they are
    a few megabytes.
    """
    files = list(dict.fromkeys(one.path for one in gallery.images if one.path is not None))
    if embeds(files, single_file):
        images, kind, notes = embedded(files)
        shown = notes
    else:
        images, kind, notes = {file: beside(path, file) for file in files}, "", []
        shown = [BESIDE]
    write_text(path, page(gallery, page_data(gallery, images, kind=kind), shown))
    end_live(path)
    return notes


def write_live_report(path: Path, gallery: Gallery, live: LiveParts) -> None:
    """Write the report of a grid that is being drawn once, and then what was done since: an open page takes it in."""
    live.add(gallery)
    if not live.started:
        write_text(path, page(gallery, page_data(gallery, live.images, kind="", live=True)))
        live.started = True


@dataclass(frozen=True)
class Head:
    """What stands over the cells, as texts."""

    title: str
    summary: str
    fixed: Mapping[str, str]  # the settings that all cells share
    notes: Sequence[str] = ()


def page(gallery: Gallery, data: Mapping[str, Any], notes: Iterable[str] = ()) -> str:
    """The HTML. Whatever a person wrote is escaped in the head and plain text in the script's data."""
    head = Head(gallery.title, _summary(gallery, live=bool(data["live"])), gallery.fixed, [*gallery.notes, *notes])
    return rendered(head, data)[0]


def rendered(head: Head, data: Mapping[str, Any], *, served: bool = False) -> tuple[str, str]:
    """The HTML of a head and a page's data, and its policy: it lets the page run the scripts of this version and no others.

    A `served` page asks the server that sent it for what it needs; any other one finds its files beside it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    loader = PackageLoader("infer.output")
    environment = Environment(loader=loader, autoescape=select_autoescape(default=True), undefined=StrictUndefined)

    def own(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])  # our own file: it holds no text a person gave

    script = Markup("\n").join(own(f"{name}.js") for name in SCRIPTS)
    asks = "; connect-src 'self'" if served else ""
    parts = " 'self'" if data["live"] and not served else ""  # the scripts in live/
    policy = f"default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'{asks}; script-src {allowed(script)}{parts}"
    html = environment.get_template("report.html").render(
        title=head.title,
        generator=f"LoRA Loom {version_of('loraloom')}",
        policy=Markup(policy),
        summary=head.summary,
        fixed=list(head.fixed.items()),
        sources=data["sources"],
        notes=head.notes,
        served=served,
        css=own("report.css") + own("grid/grid.css") + own("explain/body.css"),
        js=script,
        data=Markup(script_json(data)),
    )
    return html, policy


def _summary(gallery: Gallery, *, live: bool) -> str:
    result = gallery.result
    outside = sum(one.status == OUTSIDE for one in gallery.images)
    parts = [counted(sum(one.status not in (OUTSIDE, "absent") for one in gallery.images), "cell")]
    if live:
        return parts[0]  # what is done is counted by the page itself: this text stays while the grid is drawn
    parts += [f"{result[name]} {name}" for name in ("rendered", "reused", "failed") if result.get(name)]
    parts += [f"{outside} made elsewhere"] if outside else []
    if missing := sum(one.status == "missing" for one in gallery.images):
        parts.append(f"{missing} not drawn")
    if result.get("seconds"):
        parts.append(f"{result['seconds']:.1f} s")
    return " · ".join(parts)
