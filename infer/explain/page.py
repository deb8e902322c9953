"""The page of an explanation: one HTML file without scripts that opens from the disk, its images beside it as PNG files too."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from infer.draw.machine import version_of
from infer.draw.values import number
from infer.explain.document import document, pictures_of
from infer.explain.explain import Explanation
from infer.output.page.images import data_uri
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file, write_json, write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

PAGE, VALUES = "explain.html", "explain.json"


def write_explanation(found: Explanation, folder: Path) -> dict[str, Any]:
    """Write explain.html, images/ and explain.json into a folder that is there; gives explain.json, with the page's path."""
    pictures = {name: _png(image) for name, image in pictures_of(found).items()}
    make_folder(folder / "images")
    for name, png in pictures.items():
        with atomic_file(folder / "images" / f"{name}.png") as out:
            out.write(png)
    files = {name: f"images/{name}.png" for name in pictures}
    values = document(found, files) | {"page": str(folder / PAGE)}
    write_text(folder / PAGE, page(values, {files[name]: data_uri("png", png) for name, png in pictures.items()}))
    write_json(folder / VALUES, values)
    return values


def page(values: Mapping[str, Any], uri: Mapping[str, str]) -> str:
    """The HTML of what explain.json says, `uri` has the address of each of its images. There is no script in it."""
    environment = _environment()
    return environment.get_template("explain/page.html").render(
        title=f"One image's way: {PurePath(values['image']).name}",
        generator=f"LoRA Loom {version_of('loraloom')}",
        css=_own(environment, "explain/page.css") + _own(environment, "explain/body.css"),
        **_shown(values, uri),
    )


def panel(values: Mapping[str, Any], uri: Mapping[str, str]) -> str:
    """The same without its head, for the report of the image's grid."""
    return _environment().get_template("explain/body.html").render(**_shown(values, uri))


def _shown(values: Mapping[str, Any], uri: Mapping[str, str]) -> dict[str, Any]:
    blocks = [block["relative"] for one in values["adapters"] for block in one["blocks"]]
    return {
        "values": values,
        "uri": uri,
        "pooled": list(dict.fromkeys((one["encoder"], one["pooled"]) for one in values["similarity"])),
        "widest": max(blocks, default=0.0) or 1.0,
    }


def _environment() -> Environment:
    """Whatever a person wrote is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("infer.output"), autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment


def _own(environment: Environment, name: str) -> Any:
    from markupsafe import Markup

    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])  # our own file


def percent(share: float) -> str:
    """12 %, 1.2 %, 0.012 %."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def _png(image: Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
