"""`loraloom rank GRID`: the ranking that the votes on a grid give, with intervals, or that nobody can tell."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.output_files import html_path
from registry.errors import Refused
from registry.home import expanded
from registry.printable import counted

HELP = "rank what was voted on: strengths with intervals, every pair, and a verdict"

if TYPE_CHECKING:
    from infer.vote.ranking.rank import Ranking


def add_parser(subparsers: Any) -> None:
    """Add `rank` to the command line."""
    about = f"{HELP.capitalize()}. Reads votes.jsonl in each grid's folder, as `loraloom vote` writes it."
    parser: argparse.ArgumentParser = subparsers.add_parser("rank", help=HELP, description=about)
    add_grids(parser)
    parser.add_argument("--votes", metavar="FILE", help="read these votes instead: a votes.jsonl, or the JSON that a static page saved")
    parser.add_argument("--seed", type=int, default=0, help="of the draws behind the chance of being the best; default: 0")
    parser.add_argument("--html", metavar="FILE.html", help="write the ranking as one HTML file, with plots")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def add_grids(parser: argparse.ArgumentParser) -> None:
    """The grids, and what is compared in them."""
    parser.add_argument("grids", nargs="+", metavar="GRID", help="folders of finished grids, runs/<name>/<stamp>")
    parser.add_argument(
        "--compare",
        metavar="AXIS[,AXIS]",
        help="what is compared, also written compare=AXIS: one axis, or several together; default: the only one beside prompt and seed",
    )


def read_grids(arguments: argparse.Namespace) -> tuple[list[Path], tuple[str, ...] | None]:
    """The folders, and the axes to compare. Raises Refused for two answers to one question."""
    from infer.vote.comparison import read_axes

    words = [word.removeprefix("compare=") for word in arguments.grids if word.startswith("compare=")]
    given = [*words, *([arguments.compare] if arguments.compare is not None else [])]
    folders = [expanded(word).absolute() for word in arguments.grids if not word.startswith("compare=")]
    if len(given) > 1:
        raise Refused(f"compare is given {len(given)} times: {', '.join(given)}. Give it once, several axes with commas between them.")
    if not folders:
        raise Refused("No grid is given. Give the folder that `loraloom grid` printed, runs/<name>/<stamp>.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise Refused("A grid is given twice. Give each folder once.")
    return folders, read_axes(given[0] if given else None)


def run(arguments: argparse.Namespace) -> int:
    """Rank, and show it."""
    from infer.vote.finished import read_grid
    from infer.vote.ranking.rank import rank_grids, read_ballots

    output = html_path(arguments.html, "--html", "ranking") if arguments.html is not None else None
    if arguments.seed < 0:
        raise Refused(f"--seed {arguments.seed}: expected 0 or more.")
    folders, axes = read_grids(arguments)
    grids = [read_grid(folder) for folder in folders]
    ballots, notes = read_ballots(grids, expanded(arguments.votes) if arguments.votes is not None else None)
    found = rank_grids(grids, ballots, axes=axes, seed=arguments.seed, notes=notes)
    if output is not None:
        from infer.vote.ranking.page import write_ranking

        write_ranking(output, found)
        console.say(f"ranking: {output}")
    if arguments.json:
        console.answer_json(found.to_json())
    else:
        show(found)
    return 0


def show(found: "Ranking") -> None:
    """Tables and sentences on the console."""
    rows = [found.table.candidates[number] for number in found.order()]
    console.answer_table(
        (found.axis, "strength", "95%", "best", "wins", "losses", "ties", "both bad"),
        [
            (
                one.value,
                _number(one.strength),
                "" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}",
                "" if one.p_best is None else f"{one.p_best:.0%}",
                one.wins,
                one.losses,
                one.ties,
                one.both_bad,
            )
            for one in rows
        ],
    )
    names = found.comparison.candidates
    console.answer("")
    console.answer_table(
        ("A", "B", "A wins", "95%", "p", "votes", "ties"),
        [
            (
                names[pair.a],
                names[pair.b],
                "" if pair.p is None else f"{pair.p:.0%}",
                "" if pair.low is None or pair.high is None else f"{pair.low:.0%} to {pair.high:.0%}",
                "" if pair.p_value is None else f"{pair.p_value:.3g}",
                f"{pair.wins} : {pair.losses}",
                pair.ties,
            )
            for pair in found.table.pairs
        ],
    )
    console.answer("")
    for line in sentences(found):
        console.answer(line)
    console.answer("")
    console.answer(found.verdict)
    console.answer(found.worth)
    for note in found.notes:
        console.say(f"note: {note}")


def sentences(found: "Ranking") -> list[str]:
    """What stands between the tables and the verdict."""
    again = f", {counted(found.repeats, 'repeat')} beside them" if found.repeats else ""
    effect = f"; votes on one {found.comparison.grouped_by} depend on one another (design effect {found.table.effect:.2f})"
    groups = counted(found.table.groups, found.comparison.grouped_by)
    cast = f"{counted(found.votes, 'vote')} on {groups}{again}{effect if found.table.effect > 1 else ''}"
    halves = [pair.halves for pair in found.table.pairs if pair.halves is not None and pair.ties]
    half = [f"with ties as half a win: {halves[0][0]:.0%}, {halves[0][1]:.0%} to {halves[0][2]:.0%}"] if halves else []
    votes = [*(found.voters.sentences() if found.votes else [])]
    return [cast, *half, *votes, *(f"score {one.sentence}" for one in found.scores)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
