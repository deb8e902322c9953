"""scores.html: a plot for each axis and score, and the definitions. Names are escaped, nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infer.draw.machine import version_of
from infer.vote.pages import environment
from registry.formats.atomic_file import write_text
from registry.printable import counted, one_line

MARGIN = 3.0  # % of a plot's width at its ends
Row = Mapping[str, Any]


def write_score_page(path: Path, title: str, section: Mapping[str, Any]) -> None:
    """Write the page of the section `scores` of result.json."""
    write_text(path, score_page(title, section))


def score_page(title: str, section: Mapping[str, Any]) -> str:
    """The HTML."""
    templates, own = environment(Path(__file__).parent / "templates")
    rows: Sequence[Row] = section["differences"]
    made: str = templates.get_template("scores.html").render(
        title=one_line(title),
        generator=f"LoRA Loom {version_of('loraloom')}",
        axes=[_axis(name, [row for row in rows if row["axis"] == name]) for name in dict.fromkeys(row["axis"] for row in rows)],
        definitions=[
            {
                "name": one["name"],
                "mean": _number(section["means"].get(one["name"])),
                "better": one["better"] or "–",
                "text": one_line(f"{one['definition']} {one['unit']}.{_model(one['model'])}"),
            }
            for one in section["definitions"]
        ],
        notes=[one_line(note) for note in section["notes"]],
        css=own("report.css") + own("rank.css") + own("scores.css"),
    )
    return made


def _axis(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    scores = dict.fromkeys(row["score"] for row in rows)
    return {
        "name": one_line(name),
        "first": one_line(rows[0]["first"]),
        "scores": [_score(score, [row for row in rows if row["score"] == score]) for score in scores],
    }


def _score(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """One plot: the same distance to both sides of 0, beyond every interval."""
    far = max((abs(row[end]) for row in rows for end in ("mean", "low", "high") if row[end] is not None), default=0.0) or 1.0
    return {"name": name, "ends": (_number(-far), f"+{_number(far)}"), "rows": [_row(row, far) for row in rows]}


def _row(row: Row, far: float) -> dict[str, Any]:
    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + value / far * (50 - MARGIN), 2)

    return {
        "value": one_line(row["value"]),
        "at": place(row["mean"]),
        "low": place(row["low"]),
        "high": place(row["high"]),
        "mean": f"{row['mean']:+.4g}",
        "reach": "" if row["low"] is None else f"{row['low']:+.4g} to {row['high']:+.4g}",
        "pairs": row["pairs"],
        "over": counted(row["groups"], row["over"]) if row["over"] else "–",
        "verdict": row["verdict"],
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _model(model: Mapping[str, Any] | None) -> str:
    return "" if model is None else f" Model: {model['path']} (sha256 {str(model['sha256'])[:12]})."
