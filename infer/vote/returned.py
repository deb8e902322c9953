"""Files of votes from elsewhere: another votes.jsonl, the JSON that the static page gives back, an exported preference data set.

A page holds no key of a cell: it names images by a keyed hash of the key, under a salt of its own, which its file of votes repeats.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from infer.vote.finished import FinishedGrid
from infer.vote.preferences import read_preferences
from infer.vote.votes import LARGEST, MOST_FAULTS, Vote, read_vote, read_votes
from registry.errors import BadFile, Faults, NotFound, Refused
from registry.plain_values import from_json
from registry.printable import counted, one_line

FORMAT = "loraloom votes 1"


def image_id(salt: str, key: str) -> str:
    """The name of a cell's image in a page: nobody finds the cell by it without the grid."""
    return hmac.new(salt.encode(), key.encode(), sha256).hexdigest()[:32]


def read_returned(path: Path, grids: Sequence[FinishedGrid]) -> tuple[list[tuple[int, Vote]], list[str]]:
    """The votes of a file, each with the number of its grid, and notes. Raises NotFound, BadFile, Faults, and Refused: no vote on them."""
    if not path.is_file():
        raise NotFound(f"{one_line(path)}: there is no such file of votes.")
    if path.suffix == ".jsonl":
        found = read_votes(path)
        votes, notes = list(found.votes), list(found.notes)
    elif path.suffix == ".parquet":
        votes, notes = read_preferences(path), []
    else:
        votes, notes = _page_votes(path, grids), []
    keys = [{cell.key for cell in grid.cells} for grid in grids]
    placed = [(number, vote) for vote in votes if (number := _grid_of(vote, keys)) is not None]
    if votes and not placed:
        raise Refused(
            f"{one_line(path)} has {counted(len(votes), 'vote')}, none of them on images of "
            f"{_folders(grids)}. Give the grid that was voted on."
        )
    if len(placed) < len(votes):
        notes.append(
            f"Of {one_line(path.name)}, {counted(len(votes) - len(placed), 'vote is', 'votes are')} on "
            "images of other grids, which do not count here."
        )
    return placed, notes


def _folders(grids: Sequence[FinishedGrid]) -> str:
    return ", ".join(one_line(grid.folder) for grid in grids)


def _grid_of(vote: Vote, keys: Sequence[set[str]]) -> int | None:
    return next((number for number, known in enumerate(keys) if vote.left in known and vote.right in known), None)


def _page_votes(path: Path, grids: Sequence[FinishedGrid]) -> list[Vote]:
    if path.stat().st_size > LARGEST:
        raise BadFile(path, "no-votes", f"is larger than {LARGEST:,} bytes, the most that is read as votes.")
    try:
        document = from_json(path.read_bytes())
    except ValueError as error:
        raise BadFile(
            path, "no-votes", f"is no JSON ({one_line(error)[:100]}). Expected the file that the page saved, or a votes.jsonl."
        ) from error
    expected = f'{{"format": "{FORMAT}", "salt": ..., "votes": [...]}}'
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadFile(path, "no-votes", f"is no file of votes. Expected {expected}, as the page saves it, or a votes.jsonl.")
    salt, rows = document.get("salt"), document.get("votes")
    if not isinstance(salt, str) or not isinstance(rows, list):
        raise BadFile(path, "no-votes", f"is no whole file of votes. Expected {expected}.")
    names = {image_id(salt, cell.key): cell.key for grid in grids for cell in grid.cells}
    votes: dict[str, Vote] = {}
    faults = []
    for number, row in enumerate(rows, 1):
        try:
            vote = _resolved(read_vote(row), names)
            if votes.setdefault(vote.id, vote) != vote:
                raise ValueError(f"its id {vote.id} is that of another vote")
        except ValueError as error:
            faults.append(f"vote {number}: {error}")
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise Faults(f"{one_line(path)} has votes that cannot be read:", [*faults[:MOST_FAULTS], *more])
    return list(votes.values())


def _resolved(vote: Vote, names: dict[str, str]) -> Vote:
    """The vote with the cells' own keys; those of other grids stay as they are."""
    return replace(vote, left=names.get(vote.left, vote.left), right=names.get(vote.right, vote.right))
