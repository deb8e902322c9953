"""The page of an explanation: one HTML file without scripts that opens from the disk, its images beside it as PNG files too."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.machine import version_of
from infer.draw.values import number
from infer.explain.explain import Explanation, document
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file, write_json, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

PAGE, VALUES = "explain.html", "explain.json"


def write_explanation(found: Explanation, folder: Path) -> dict[str, Any]:
    """Write explain.html, explain.json and images/ into a folder that is there; gives explain.json, with the page's path."""
    pictures = _pictures(found)
    make_folder(folder / "images")
    for name, image in pictures.items():
        with atomic_file(folder / "images" / f"{name}.png") as out:
            out.write(_png(image))
    values = document(found, {name: f"images/{name}.png" for name in pictures}) | {"page": str(folder / PAGE)}
    write_json(folder / VALUES, values)
    write_text(folder / PAGE, page(found, values, pictures))
    return values


def _pictures(found: Explanation) -> dict[str, Image]:
    """Every image by its name."""
    pictures = {f"frame-{place}": one.image for place, one in enumerate(found.frames)}
    for place, one in enumerate(found.changes):
        name = f"{one.variant.what}-{place}"
        pictures |= {name: one.image, f"{name}-map": one.difference.map}
    return pictures


def page(found: Explanation, values: dict[str, Any], pictures: dict[str, Image]) -> str:
    """The HTML. Whatever a person wrote is escaped; there is no script in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    loader = PackageLoader("infer.explain")
    environment = Environment(loader=loader, autoescape=select_autoescape(default=True), undefined=StrictUndefined)
    environment.filters |= {"number": number, "percent": percent}
    shown = {f"images/{name}.png": f"data:image/png;base64,{base64.b64encode(_png(one)).decode()}" for name, one in pictures.items()}
    return environment.get_template("explain.html").render(
        title=f"One image's way: {found.plan.path.name}",
        generator=f"LoRA Loom {version_of('loraloom')}",
        css=Markup(loader.get_source(environment, "explain.css")[0]),  # our own file
        render=found.plan.render,
        settings=[(name, text) for name, text in found.settings.items() if name not in ("prompt", "negative")],
        values=values,
        uri=shown,
        pooled=list(dict.fromkeys((one["encoder"], one["pooled"]) for one in values["similarity"])),
        last=len(found.frames) - 1,
        widest=max((block["relative"] for one in values["adapters"] for block in one["blocks"]), default=0.0) or 1.0,
    )


def percent(share: float) -> str:
    """12 %, 1.2 %, 0.012 %."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def _png(image: Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
