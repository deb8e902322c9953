"""`loraloom score GRID`: scores of a finished grid's images, and what each value of its axes does to them."""

import argparse
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.home import expanded
from registry.printable import counted

HELP = "score the images of a finished grid: nothing is drawn; differences along each axis with intervals"

if TYPE_CHECKING:
    from infer.score.finished import ScoredGrid


def add_parser(subparsers: Any) -> None:
    """Add `score` to the command line."""
    about = f"{HELP.capitalize()}. The numbers go into cells.jsonl and result.json of the grid's folder."
    parser: argparse.ArgumentParser = subparsers.add_parser("score", help=HELP, description=about)
    parser.add_argument("grid", nargs="?", metavar="GRID", help="the folder of a finished grid, runs/<name>/<stamp>")
    parser.add_argument(
        "--score",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a score: sharpness, clip=/models/clip, 'clip={model: /models/clip, name: clip-l}'; several times for several;"
        " default: those of the grid's own settings, else those that need nothing",
    )
    parser.add_argument("--list", action="store_true", help="list the scores with their options, and stop")
    parser.add_argument("--device", default="cpu", help="for models: auto, cpu, mps, cuda, cuda:NUMBER; default: cpu")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score, write, and show."""
    from infer.score.finished import score_finished
    from registry.names import DEVICE, DEVICES
    from registry.store import Store

    if arguments.list:
        return _list(as_json=arguments.json)
    if arguments.grid is None:
        raise Refused("No grid is given. Give the folder that `loraloom grid` printed, runs/<name>/<stamp>; --list shows the scores.")
    if not DEVICE.fullmatch(arguments.device):
        raise Refused(f"--device {arguments.device}: expected {DEVICES}.")
    with console.progress() as report:
        found = score_finished(expanded(arguments.grid).absolute(), arguments.score, Store(), device=arguments.device, report=report)
    for note in found.scores.notes:
        console.say(f"note: {note}")
    if arguments.json:
        console.answer_json(found.to_json())
    else:
        show(found)
    return 1 if found.scores.failed else 0


def show(found: "ScoredGrid") -> None:
    """Tables on the console."""
    scores = found.scores
    means = scores.means()
    console.answer_table(
        ("score", "mean", "unit", "better"), [(one.name, _number(means[one.name]), one.unit, one.better or "") for one in scores.scorers]
    )
    if scores.differences:
        console.answer("")
        console.answer_table(
            ("score", "axis", "value", "against", "mean difference", "95%", "pairs", "over", ""),
            [
                (
                    one.score,
                    one.axis,
                    one.value,
                    one.first,
                    f"{one.mean:+.4g}",
                    "" if one.low is None or one.high is None else f"{one.low:+.4g} to {one.high:+.4g}",
                    one.pairs,
                    counted(one.groups, one.over) if one.over else "",
                    one.verdict,
                )
                for one in scores.differences
            ],
        )
    console.say(f"plots: {found.page}")
    if not found.in_report:
        console.say(
            "note: report.html does not show them. The same `loraloom grid` with score=[...] writes one that does, and draws nothing again."
        )
    console.say(f"{scores.computed} numbers computed, {scores.kept} kept from before, {scores.failed} failed")


def _list(*, as_json: bool) -> int:
    from infer.score.kinds import SCORES

    rows = [
        {"score": name, "summary": entry.summary, "options": {option.name: option.meaning for option in entry.options.values()}}
        for name, entry in sorted(SCORES.items())
    ]
    if as_json:
        console.answer_json(rows)
    else:
        console.answer_table(("score", "", "options"), [(row["score"], row["summary"], ", ".join(row["options"])) for row in rows])
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
