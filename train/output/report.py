"""report.html of a run: what was trained, its curves, its previews side by side. One file that opens from the disk."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry.formats.atomic_file import write_text
from train.loop.preview import sample_name

SAMPLE = re.compile(r"step-(\d{6,})-(\d{2,})\.png")
SHOWN = 8  # columns of steps; in between are left out, first and last are kept


def write_report(folder: Path, *, title: str, facts: Sequence[tuple[str, str]], prompts: Sequence[str], plan: str) -> Path:
    """Write report.html of the run folder from its curves.png and samples/."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    images = preview_files(folder)
    steps = _some(sorted({step for step, _ in images}))
    rows = [
        (prompt, [_encoded(images[step, number]) if (step, number) in images else "" for step in steps])
        for number, prompt in enumerate(prompts, 1)
    ]
    page = environment.get_template("report.html.j2").render(
        title=title, facts=facts, curves=_encoded(folder / "curves.png"), samples=rows if images else [], steps=steps, plan=plan
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def preview_files(folder: Path) -> Mapping[tuple[int, int], Path]:
    """(step, prompt number) -> image, in order."""
    found = {(int(match[1]), int(match[2])): file for file in (folder / "samples").iterdir() if (match := SAMPLE.fullmatch(file.name))}
    assert all(file.name == sample_name(*key) for key, file in found.items())
    return dict(sorted(found.items()))


def _some(steps: Sequence[int]) -> list[int]:
    if len(steps) <= SHOWN:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (SHOWN - 1))] for place in range(SHOWN)]


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
