"""`loraloom choose RUN`: a run's checkpoints at some weights, voted on blindly; the winner becomes NAME@best with its weight."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.commands.rank import show
from loraloom.commands.vote import add_page, check_page, serve, write_page
from loraloom.output_files import html_path
from registry.errors import Refused
from registry.home import expanded
from registry.printable import counted, shell_line
from registry.references import looks_like_path

HELP = "choose a run's checkpoint and weight by blind votes, and keep the winner as NAME@best"
ABOUT = """\
Draws some of a run's kept checkpoints at a few weights, and the base, on held-out prompts at the same seeds; opens the page of `loraloom
vote`; ranks when that ends with Ctrl-C. A checkpoint to which all others are shown to be inferior becomes NAME@best: a copy of its adapter
with the recommended weight in the header, registered. Where the votes cannot tell, nothing is changed. Images and votes are kept: the same
command goes on where it was."""

if TYPE_CHECKING:
    from infer.vote.finished import FinishedGrid
    from registry.store import Store
    from train.choosing.choice import Choice
    from train.choosing.winner import ChoiceResult


def add_parser(subparsers: Any) -> None:
    """Add `choose` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("choose", help=HELP, description=ABOUT)
    parser.add_argument("folder", metavar="RUN", help="a run folder, runs/<name>/<stamp>, or the name of a registered run")
    parser.add_argument(
        "--checkpoints",
        metavar="STEP[,STEP]",
        help="steps, best, last, or all; default: three over the run, the best and the last among them",
    )
    parser.add_argument("--weights", metavar="W[,W]", help="weights of each; default: 0.7,1")
    parser.add_argument("--prompts", type=int, default=12, metavar="N", help="captions of held-out images that are drawn (12)")
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="these prompts instead, or @FILE; several by repeating"
    )
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds a prompt (2)")
    add_page(parser)
    parser.add_argument("--votes", metavar="FILE", help="add these votes, the JSON that a static page saved or a votes.jsonl, and rank")
    parser.add_argument("--no-vote", action="store_true", help="open no page: rank the votes that are there")
    parser.add_argument("--dry-run", action="store_true", help="check everything, count images and time, and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, draw, vote, rank, and keep the winner."""
    from registry.store import Store
    from train.choosing.choice import plan_choice
    from train.choosing.drawn import drawn_grid
    from train.choosing.winner import choose_winner

    page, votes = _check(arguments)
    store = Store()
    choice = plan_choice(
        run_folder(arguments.folder, store),
        store,
        checkpoints=arguments.checkpoints,
        weights=arguments.weights,
        prompts=arguments.prompts,
        given_prompts=arguments.prompt,
        seeds=arguments.seeds,
        votes=arguments.count,
    )
    if arguments.dry_run:
        console.answer_json(choice.to_json()) if arguments.json else console.answer_lines(choice.to_text())
        return 0
    with console.progress() as report:
        grid = drawn_grid(choice, store, report=report)
    if page is not None:
        return _page(choice, grid, page, arguments)
    if votes is not None:
        _add(grid, votes)
    elif not arguments.no_vote:
        from train.choosing.drawn import AXIS

        serve([grid], (AXIS,), arguments, address=console.say if arguments.json else console.answer, after="")
    _answer(choose_winner(choice, grid, store, seed=arguments.seed), json=arguments.json)
    return 0


def run_folder(given: str, store: "Store") -> Path:
    """A run folder that is there, or that of the registered run of this name. Raises Refused for another kind, NotFound."""
    path = expanded(given)
    if looks_like_path(given) or path.exists():
        return path
    return Path(str(store.find(given, kind="run").path))


def _check(arguments: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """The page to write, and the votes to read. Raises Refused for what is out of range, and for two ways at once."""
    check_page(arguments)
    for name in ("prompts", "seeds"):
        if not 1 <= getattr(arguments, name) <= 1000:
            raise Refused(f"--{name} must be from 1 to 1000, got {getattr(arguments, name)}.")
    if arguments.seed < 0:
        raise Refused(f"--seed {arguments.seed}: expected 0 or more.")
    if (arguments.html is not None) + (arguments.votes is not None) + arguments.no_vote > 1:
        raise Refused("--html writes a page, --votes reads its votes and --no-vote asks for none: give one of them.")
    votes = expanded(arguments.votes).absolute() if arguments.votes is not None else None
    if votes is not None and not votes.is_file():
        raise Refused(f"--votes {arguments.votes}: there is no such file of votes.")
    return (html_path(arguments.html, "--html", "page") if arguments.html is not None else None), votes


def _page(choice: "Choice", grid: "FinishedGrid", page: Path, arguments: argparse.Namespace) -> int:
    from train.choosing.drawn import AXIS

    write_page([grid], (AXIS,), page, arguments)
    again = shell_line("loraloom", "choose", choice.run.folder)
    console.say(f"Votes come back as a JSON file: {again} --votes FILE, with the same settings.")
    if arguments.json:
        console.answer_json({"run": str(choice.run.folder), "grid": str(grid.folder), "page": str(page)})
    else:
        console.answer(str(page))
    return 0


def _add(grid: "FinishedGrid", path: Path) -> None:
    """The votes of a file, into those of the grid."""
    from infer.vote.returned import read_returned
    from infer.vote.votes import VotesFile

    placed, notes = read_returned(path, [grid])
    for note in notes:
        console.say(f"note: {note}")
    added = VotesFile(grid.folder).add([vote for _, vote in placed])
    console.say(f"{counted(added, 'vote')} added, {len(placed) - added} were there already")


def _answer(found: "ChoiceResult", *, json: bool) -> None:
    if json:
        console.answer_json(found.to_json())
        return
    show(found.ranking)
    console.answer("")
    console.answer(found.sentence.removeprefix(found.ranking.verdict).strip())
