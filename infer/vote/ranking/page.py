"""The ranking as one HTML file: strengths, pairs, scores and voters with their intervals; names are escaped, nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infer.draw.machine import version_of
from infer.output.page.policy import allowed
from infer.vote.pages import environment
from infer.vote.ranking.binomial import LEVEL
from infer.vote.ranking.rank import Ranking
from infer.vote.ranking.table import Pair
from registry.formats.atomic_file import write_text
from registry.printable import counted, one_line

MARGIN = 3.0  # % of a plot's width at its ends


def write_ranking(path: Path, found: Ranking) -> None:
    """Write the page."""
    write_text(path, page(found))


def page(found: Ranking) -> str:
    """The HTML."""
    low, high = _ends(found)
    rows = [found.table.candidates[number] for number in found.order()]
    from markupsafe import Markup

    templates, own = environment()
    again = f", {counted(found.repeats, 'repeat')} beside them" if found.repeats else ""
    made: str = templates.get_template("rank.html").render(
        axis=one_line(found.axis),
        generator=f"LoRA Loom {version_of('loraloom')}",
        verdict=found.verdict,
        worth=found.worth,
        counted=f"{counted(found.votes, 'vote')} on {counted(found.table.groups, found.comparison.grouped_by)}{again}",
        ends=(low, high),
        middle=_place(0.0, low, high),
        candidates=[
            {
                "name": one_line(one.value),
                "place": _interval(one.strength, one.low, one.high, low, high),
                "strength": one.strength,
                "best": one.p_best,
                "wins": one.wins,
                "losses": one.losses,
                "ties": one.ties,
                "both_bad": one.both_bad,
            }
            for one in rows
        ],
        matrix=_matrix(found),
        pairs=[_pair(found, pair) for pair in found.table.pairs],
        scores=[
            {
                "name": one_line(one.name),
                "place": _interval(one.agreement, one.low, one.high, 0.0, 1.0),
                "agreement": _percent(one.agreement),
                "reach": f"{one.low:.0%} to {one.high:.0%}",
                "votes": one.votes,
                "kendall": _tau(one.kendall, one.kendall_low, one.kendall_high),
            }
            for one in found.scores
        ],
        voters=[
            {"name": one_line(one.name), "votes": one.votes, "left": str(one.left), "repeats": str(one.repeats), "seconds": one.seconds}
            for one in found.voters.each
        ],
        voter_lines=found.voters.sentences(),
        notes=[one_line(note) for note in found.notes],
        css=own("report.css") + own("rank.css"),
        policy=Markup(_policy(own)),
        js=_script(own),
    )
    return made


def policy() -> str:
    """What the page may do, as a Content-Security-Policy: run its own script and no other."""
    return _policy(environment()[1])


def _policy(own: Callable[[str], Any]) -> str:
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed(_script(own))}"


def _script(own: Callable[[str], Any]) -> Any:
    return own("dom.js") + own("page.js")


def _ends(found: Ranking) -> tuple[float, float]:
    """The same distance to both sides of 0, beyond every interval."""
    far = max((abs(end) for one in found.table.candidates for end in (one.low, one.high) if end is not None), default=1.0)
    return -far, far


def _place(value: float, low: float, high: float) -> float:
    """In % of the width."""
    return round(MARGIN + (value - low) / (high - low) * (100 - 2 * MARGIN), 2)


def _interval(at: float | None, low: float | None, high: float | None, least: float, most: float) -> dict[str, float] | None:
    if at is None or low is None or high is None:
        return None
    return {"at": _place(at, least, most), "low": _place(low, least, most), "high": _place(high, least, most)}


def _pair(found: Ranking, pair: Pair) -> dict[str, Any]:
    names = found.comparison.candidates
    return {
        "a": one_line(names[pair.a]),
        "b": one_line(names[pair.b]),
        "place": _interval(pair.p, pair.low, pair.high, 0.0, 1.0),
        "p": _percent(pair.p),
        "reach": "–" if pair.low is None or pair.high is None else f"{pair.low:.0%} to {pair.high:.0%}",
        "p_value": "–" if pair.p_value is None else f"{pair.p_value:.3g}",
        "wins": pair.wins,
        "losses": pair.losses,
        "ties": pair.ties,
    }


def _matrix(found: Ranking) -> list[dict[str, Any]]:
    """A row a candidate, the strongest first: the share that it wins against each."""
    by_pair = {(pair.a, pair.b): pair for pair in found.table.pairs}
    order = found.order()

    def cell(row: int, column: int) -> dict[str, Any] | None:
        pair = by_pair.get((min(row, column), max(row, column)))
        if row == column or pair is None or pair.p is None:
            return None
        return {"p": pair.p if pair.a == row else 1 - pair.p, "found": pair.p_value is not None and pair.p_value < LEVEL}

    return [{"name": one_line(found.comparison.candidates[row]), "cells": [cell(row, column) for column in order]} for row in order]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _tau(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f}" + ("" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})")
