"""`loraloom vote GRID`: a blind vote on a finished grid, on a local page or on a static one that is sent to others."""

import argparse
import os
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loraloom import console
from loraloom.commands.rank import add_grids, read_grids
from loraloom.output_files import html_path, output_path
from registry.errors import Refused
from registry.home import expanded
from registry.printable import counted

HELP = "vote blindly on the images of a grid, pair by pair, on a local page"
ABOUT = """\
Shows pairs of images of the same prompt and seed: blind, sides balanced, in random order, some of them twice. Votes lie in votes.jsonl of
the grid's folder, each on the disk before it is confirmed; `loraloom rank` shows what they say. The page has an address of this machine
with a random token in it, for nobody else. --html writes a page for other people instead, whose file of votes --import reads."""
MOST = 10_000

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infer.vote.finished import FinishedGrid


def add_parser(subparsers: Any) -> None:
    """Add `vote` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("vote", help=HELP, description=ABOUT)
    add_grids(parser)
    add_page(parser)
    parser.add_argument("--import", metavar="FILE", dest="returned", help="add the votes of such a file to the grid's, and end")
    parser.add_argument("--export", metavar="FILE.parquet", help="write the votes with their images as a preference data set, and end")
    parser.set_defaults(run=run)


def add_page(parser: argparse.ArgumentParser) -> None:
    """The settings of a page that votes are cast on."""
    parser.add_argument("--voter", metavar="NAME", help="who votes; default: the page asks")
    parser.add_argument("--count", type=int, default=60, metavar="N", help="votes to ask of a voter, a tenth of them repeats; default: 60")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the sides; default: 0")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--html", metavar="FILE.html", help="write a static page instead: its votes come back as a JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, write it, or read its votes."""
    from infer.vote.comparison import choose_axes
    from infer.vote.finished import read_grid

    _check(arguments)
    output = html_path(arguments.html, "--html", "page") if arguments.html is not None else None
    folders, axes = read_grids(arguments)
    grids = [read_grid(folder) for folder in folders]
    if arguments.returned is not None:
        return _import(grids, arguments.returned)
    if arguments.export is not None:
        return _export(grids, arguments.export)
    chosen = choose_axes(grids, axes)
    if output is not None:
        write_page(grids, chosen, output, arguments)
        console.answer(str(output))
        return 0
    serve(grids, chosen, arguments)
    return 0


def write_page(grids: "list[FinishedGrid]", axes: tuple[str, ...], output: "Path", arguments: argparse.Namespace) -> None:
    """Write the static page."""
    from infer.vote.comparison import compare
    from infer.vote.page.page import write_static

    found = compare(grids, axes)
    for note in write_static(output, found, asked=arguments.count, seed=arguments.seed, voter=arguments.voter):
        console.say(f"note: {note}")


def _check(arguments: argparse.Namespace) -> None:
    check_page(arguments)
    if sum(option is not None for option in (arguments.html, arguments.returned, arguments.export)) > 1:
        raise Refused("--html writes a page, --import reads votes and --export writes them: give one of them.")


def check_page(arguments: argparse.Namespace) -> None:
    """Raise Refused for settings of a page that are out of range."""
    if not 1 <= arguments.count <= MOST:
        raise Refused(f"--count {arguments.count}: expected 1 to {MOST:,} votes.")
    if not 0 <= arguments.port < 1 << 16:
        raise Refused(f"--port {arguments.port}: expected 1 to 65535, or 0 for a free one.")
    if arguments.voter is not None:
        from infer.vote.page.session import check_voter

        check_voter(arguments.voter)


def _import(grids: "list[FinishedGrid]", given: str) -> int:
    """The votes of a file, into the votes.jsonl of their grids."""
    from infer.vote.returned import read_returned
    from infer.vote.votes import VotesFile

    votes, notes = read_returned(expanded(given), grids)
    for note in notes:
        console.say(f"note: {note}")
    added = sum(VotesFile(grid.folder).add([vote for at, vote in votes if at == number]) for number, grid in enumerate(grids))
    console.answer(f"{counted(added, 'vote')} added, {len(votes) - added} were there already")
    return 0


def _export(grids: "list[FinishedGrid]", given: str) -> int:
    """The votes of the grids with their images, into a parquet file."""
    from infer.vote.preferences import write_preferences
    from infer.vote.votes import NAME, read_votes

    path = output_path(given, "--export", "data set", (".parquet",))
    placed = []
    for number, grid in enumerate(grids):
        found, known = read_votes(grid.folder / NAME), {cell.key for cell in grid.cells}
        for note in found.notes:
            console.say(f"note: {note}")
        own = [vote for vote in found.votes if vote.left in known and vote.right in known]
        if len(own) < len(found.votes):
            console.say(
                f"note: of {grid.folder}, {counted(len(found.votes) - len(own), 'vote is', 'votes are')} left out: on images "
                "that it has no longer"
            )
        placed += [(number, vote) for vote in own]
    count = write_preferences(path, grids, placed)
    console.say(f"{counted(count, 'vote')} with their images")
    console.answer(str(path))
    return 0


def serve(
    grids: "list[FinishedGrid]",
    axes: tuple[str, ...],
    arguments: argparse.Namespace,
    *,
    address: "Callable[[str], None]" = console.answer,
    after: str = " loraloom rank shows what they say.",
) -> None:
    """Serve the page until Ctrl-C. `address` prints where it is."""
    from infer.vote.page.page import server_page
    from infer.vote.page.server import VotingServer
    from infer.vote.page.session import Session

    if sealed := [grid.folder for grid in grids if not os.access(grid.folder, os.W_OK)]:
        raise Refused(f"{sealed[0]} cannot be written to, and votes are kept there. Copy the grid, or write a page: --html FILE.html.")
    session = Session(grids, axes, asked=arguments.count, seed=arguments.seed, voter=arguments.voter)
    page = server_page(session)
    try:
        server = VotingServer(session, page, port=arguments.port)
    except OSError as error:
        raise Refused(f"--port {arguments.port}: {error.strerror}. Give another, or none for a free one.") from error
    before = session.counted()
    with server:
        console.say(
            f"{counted(len(session.comparison.candidates), 'candidate')} by {','.join(axes)}, "
            f"{counted(session.pairs, 'pair')} of images. {session.preview()}"
        )
        for note in session.notes():
            console.say(f"note: {note}")
        address(server.address)
        console.say("Open this address; Ctrl-C ends.")
        if arguments.open:
            webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    console.say(f"{counted(session.counted() - before, 'vote was', 'votes were')} cast.{after}")
