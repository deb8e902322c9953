"""report.html of a run: one file that opens from the disk, with its images and curves inside it and nothing fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.formats.atomic_file import write_text
from registry.printable import one_line, printable, script_json
from train.run_report.charts import ImageLoss
from train.run_report.judgement_rows import judgement_rows
from train.run_report.model_tables import model_tables
from train.run_report.previews import PROMPTS, Embedded, cards, steps_shown
from train.run_report.report import RunReport, facts_of
from train.run_report.settings import changed_settings, command_of, rows_of

NAME = "report.html"
ROWS = 40  # images in the table of losses
FILES = 400  # rows of inputs


def write_page(found: RunReport, path: Path | None = None) -> Path:
    """Write the page, into the run folder unless a path is given; gives where it is."""
    place = found.run.folder / NAME if path is None else path
    write_text(place, page(found))
    return place


def page(found: RunReport) -> str:
    """The HTML. Names, prompts and captions are escaped, or data of the script, which writes them as text."""
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), PackageLoader("infer.output")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    def own(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])  # our own file: it holds no text a person gave

    run, embedded = found.run, Embedded()
    steps = steps_shown(sorted({step for step, _ in run.previews}))
    rows = cards(found.rows, steps, found.trained, embedded)
    data = {
        "charts": [chart.to_json() for chart in found.charts],
        "range": None if found.verdict is None or found.verdict.steps is None else list(found.verdict.steps),
        "steps": steps,
        "cards": rows,
        "images": embedded.uris,
        "copies": {str(row["step"]): row["distance"] for row in found.copies},
        "spectrum": _spectrum_chart(found),
    }
    return environment.get_template("run.html").render(
        title=one_line(found.title),
        verdict=found.verdict,
        verdict_range=_range(found),
        sentences=[one_line(sentence) for sentence in found.sentences if found.verdict is None or sentence != found.verdict.sentence],
        facts=[(name, one_line(value)) for name, value in facts_of(found)],
        charts=found.charts,
        prompts=[(one_line(card["prompt"]), card["seed"]) for card in rows],
        steps=steps,
        all_steps=len({step for step, _ in run.previews}),
        left_out=max(0, len(found.rows) - PROMPTS),
        losses=[_loss_row(loss) for loss in found.losses[:ROWS]],
        all_losses=len(found.losses),
        remarked=[loss for loss in found.losses if loss.remark],
        judgement=_judgement(found),
        spectrum=found.spectrum,
        notes=_notes(run.plan or {}),
        plan_text=printable(str((run.plan or {}).get("text", ""))),
        buckets=_buckets(run.plan or {}),
        settings=[(name, one_line(value)) for name, value in rows_of(changed_settings(run.config))],
        inputs=run.inputs,
        files=_files(run.trained, run.heldout),
        all_files=len(run.trained) + len(run.heldout),
        command=one_line(command_of(run.config)),
        missing=[one_line(line) for line in found.missing],
        css=own("report.css") + own("chart.css") + own("run.css"),
        js=own("dom.js") + own("page.js") + own("chart.js") + own("run.js"),
        data=Markup(script_json(data)),
    )


def _judgement(found: RunReport) -> dict[str, Any] | None:
    """The sentence and the table of the judgement by images; None without one, or where the file has another form."""
    value = found.run.judgement
    if value is None:
        return None
    columns, rows = judgement_rows(value)
    steps = [str(step) for step in value["steps"]]
    tables = [_table("", "", columns, rows, steps)]
    tables += [_table(one_line(one.title), one_line(one.about), one.columns, one.rows, steps) for one in model_tables(value)]
    return {"sentence": one_line(value["sentence"]), "tables": tables}


def _table(title: str, about: str, columns: Sequence[str], rows: Sequence[Sequence[str]], good: Sequence[str]) -> dict[str, Any]:
    return {"title": title, "about": about, "columns": columns, "rows": [(row[0] in good, row) for row in rows]}


def _range(found: RunReport) -> str | None:
    """'step 50 to step 150', of the steps to choose from."""
    if found.verdict is None or found.verdict.steps is None:
        return None
    low, high = found.verdict.steps
    return f"step {low}" if low == high else f"steps {low} to {high}"


def _spectrum_chart(found: RunReport) -> dict[str, Any] | None:
    """The singular values as a chart over their number."""
    if found.spectrum is None:
        return None
    lines = [
        {"name": group.name, "level": False, "points": [[place, value, None, None] for place, value in enumerate(group.values, 1)]}
        for group in found.spectrum.groups
        if group.norm > 0
    ]
    about = "Root mean square over the layers of a block, largest first."
    return {"key": "spectrum", "title": "Singular values of scale B A", "about": about, "lines": lines} if lines else None


def _loss_row(loss: ImageLoss) -> dict[str, Any]:
    first, last = loss.points[0][1], loss.points[-1][1]
    return {
        "name": one_line(loss.name),
        "prompt": one_line(loss.prompt),
        "part": loss.part,
        "first": first,
        "last": last,
        "change": last - first,
        "remark": loss.remark,
        "line": _sparkline([value for _, value in loss.points]),
        "from": loss.points[0][0],
        "to": loss.points[-1][0],
    }


def _sparkline(values: Sequence[float], *, width: float = 96, height: float = 22) -> str:
    """The points of an SVG polyline."""
    low, high = min(values), max(values)
    span, gaps = (high - low) or 1.0, max(1, len(values) - 1)
    places = ((place / gaps * (width - 4) + 2, height - 3 - (value - low) / span * (height - 6)) for place, value in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _buckets(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the plan's buckets; none of a plan that has another form."""
    rows = plan.get("buckets")
    wanted = {"width", "height", "images"}
    return [row for row in rows if isinstance(row, dict) and wanted <= row.keys()] if isinstance(rows, list) else []


def _notes(plan: Mapping[str, Any]) -> list[str]:
    """The plan's notes; none of a plan that has another form."""
    notes = plan.get("notes")
    return [one_line(note) for note in notes] if isinstance(notes, list) else []


def _files(trained: Sequence[Mapping[str, Any]], heldout: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """(part, file, prompt, sha256) of the images, as many as fit a page."""
    rows = [("held out", row) for row in heldout] + [("trained", row) for row in trained]
    return [(part, one_line(row["file"]), one_line(row["prompt"]), str(row["sha256"])) for part, row in rows[:FILES]]


def document(found: RunReport, path: Path | None) -> dict[str, Any]:
    """What --json prints: the report's values, and where the page is."""
    value: dict[str, Any] = json.loads(json.dumps(found.to_json(), default=str))
    return {**value, "report": None if path is None else str(path)}
