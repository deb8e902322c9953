"""The contact sheet of `data lint --html`: one HTML file with the images, their captions and the findings, and nothing fetched."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.formats.atomic_file import write_text
from registry.formats.image_file import read_image
from registry.printable import one_line, printable, script_json
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from train.data.dataset import Sample
    from train.data.lint import Lint

MOST = 1500  # images on the sheet: 10 MB of thumbnails
SIDE = 192  # pixels of a thumbnail
QUALITY = 75  # of its JPEG
PAGE = 60  # images on the screen at a time


def write_sheet(path: Path, found: Lint, *, report: Report = silent) -> int:
    """Write the sheet; gives the number of images on it: at most MOST, those with findings first."""
    by_image = _checks_of(found)
    chosen = _chosen(found.samples, by_image)
    cards = []
    for done, sample in enumerate(chosen, 1):
        cards.append(_card(sample, by_image.get(sample.name, ()), found))
        report(Tick("thumbnails", done, len(chosen), sample.name))
    write_text(path, page(found, cards))
    return len(chosen)


def page(found: Lint, cards: Sequence[Mapping[str, Any]]) -> str:
    """The HTML. Names and captions are data of the script, which writes them as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined)
    checks = {finding.check: len(finding.images) for finding in found.findings if finding.images}
    return environment.get_template("sheet.html.j2").render(
        path=one_line(found.path),
        total=len(found.samples),
        shown=len(cards),
        faults=[one_line(fault) for fault in found.faults],
        notes=[one_line(note) for note in found.notes],
        findings=[replace(finding, what=one_line(finding.what)) for finding in found.findings],
        checks=checks,
        data=Markup(script_json({"page": PAGE, "cards": cards})),
    )


def _checks_of(found: Lint) -> dict[str, list[str]]:
    """The checks that found something, by image."""
    checks: dict[str, list[str]] = defaultdict(list)
    for finding in found.findings:
        for name in finding.images:
            if finding.check not in checks[name]:
                checks[name].append(finding.check)
    return checks


def _chosen(samples: Sequence[Sample], checks: Mapping[str, Sequence[str]]) -> list[Sample]:
    """The images on the sheet, in the order of the set."""
    if len(samples) <= MOST:
        return list(samples)
    flagged = [place for place, sample in enumerate(samples) if sample.name in checks][:MOST]
    plain = [place for place, sample in enumerate(samples) if sample.name not in checks]
    return [samples[place] for place in sorted(flagged + plain[: MOST - len(flagged)])]


def _card(sample: Sample, checks: Sequence[str], found: Lint) -> dict[str, Any]:
    return {
        "name": one_line(sample.name),
        "size": f"{sample.size.width} × {sample.size.height}",
        "tokens": found.tokens.by_image.get(sample.name) if found.tokens else None,
        "caption": printable(sample.caption) if sample.caption is not None else None,
        "checks": list(checks),
        "image": _thumbnail(sample),
    }


def _thumbnail(sample: Sample) -> str:
    """Base64 of a JPEG; empty where the file is gone by now."""
    from PIL import Image

    try:
        image = read_image(sample.read()).image
    except Exception:  # read a second time, a file may be gone or changed: the sheet shows its caption alone
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
