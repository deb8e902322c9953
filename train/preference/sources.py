"""Where votes are read from: the folder of a grid with its votes.jsonl, or a preference data set in Pick-a-Pic's columns (parquet)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from infer.vote.finished import read_grid
from infer.vote.preferences import LABELS, VOTE
from infer.vote.votes import NAME, read_vote, read_votes
from registry.errors import Faults, Refused
from registry.home import expanded
from registry.printable import counted, one_line, shell_line, some
from registry.progress import Report, Tick
from train.preference.ballots import Ballot, Ballots, at_most, once, plain
from train.settings.preferences import WHERE

NEEDED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
BATCH = 16  # rows whose images are in memory at a time


def read_ballots(given: Sequence[str], *, setting: str, report: Report) -> Ballots:
    """The votes of all sources, each id once. Raises Faults with everything that is wrong with them."""
    found = Ballots()
    paths = [expanded(one).absolute() for one in given]
    if len({path.resolve() for path in paths}) < len(paths):
        found.faults.append(f"{setting} names a source twice")
    for number, path in enumerate(dict.fromkeys(paths)):
        prefix = f"{number + 1} " if len(paths) > 1 else ""
        try:
            _source(path)(path, prefix, found, report)
        except Faults as error:
            found.faults += [f"{str(error).splitlines()[0]} {fault}" for fault in error.faults]
        except Refused as error:
            found.faults.append(str(error))
    found.votes, twice = once(found.votes)
    found.faults += at_most(twice)
    if found.faults:
        raise Faults(f"{setting}: these votes cannot be learned from:", found.faults)
    return found


def _source(path: Path) -> Callable[[Path, str, Ballots, Report], None]:
    if path.is_dir():
        return _read_grid
    if path.is_file() and path.suffix.lower() == ".parquet":
        return _read_table
    what = "is no folder of a grid and no .parquet file" if path.exists() else "is not there"
    raise Refused(f"{one_line(path)} {what}. Expected {WHERE}.")


def _read_grid(folder: Path, prefix: str, found: Ballots, report: Report) -> None:
    """The votes of a grid's votes.jsonl, its own images, and their prompts."""
    grid, votes = read_grid(folder), read_votes(folder / NAME).votes
    if not votes:
        raise Refused(f"{one_line(folder)} has no votes. Vote first: {shell_line('loraloom', 'vote', folder)}")
    cells = {cell.key: cell for cell in grid.cells}
    known = [vote for vote in votes if vote.left in cells and vote.right in cells]
    found.gone += len(votes) - len(known)
    hashes: dict[str, str] = {}
    missing = []
    voted = dict.fromkeys(key for vote in known for key in (vote.left, vote.right))
    for done, key in enumerate(voted, 1):
        image = cells[key].image
        if image is None or not image.is_file():
            missing.append(one_line(image.relative_to(folder) if image else key))
            continue
        hashes[key] = hashlib.sha256(image.read_bytes()).hexdigest()
        found.images.setdefault(hashes[key], (prefix + image.relative_to(folder).as_posix(), image.read_bytes))
        report(Tick("read voted images", done, len(voted), image.name))
    if missing:
        found.faults.append(
            f"{one_line(folder)}: {counted(len(missing), 'voted image is', 'voted images are')} not "
            f"there: {some(missing, 4)}. Draw the grid again"
        )
        return
    for vote in known:
        prompts = {plain(cells[key].prompt) for key in (vote.left, vote.right)}
        found.votes.append(
            Ballot(
                id=vote.id,
                voter=vote.voter,
                prompt=prompts.pop() if len(prompts) == 1 else None,
                left=hashes[vote.left],
                right=hashes[vote.right],
                choice=vote.choice,
            )
        )


# --- a preference data set


def _read_table(path: Path, prefix: str, found: Ballots, report: Report) -> None:
    """The rows of a parquet file as votes; without the columns of a vote each row is a voter of its own."""
    votes, faults = 0, []
    for number, total, place, row in _rows(path):
        votes += 1
        try:
            found.votes.append(_ballot(row, f"{prefix}row {number}"))
        except ValueError as error:
            faults.append(f"row {number}: {error}")
            continue
        for column, digest in (("jpg_0", found.votes[-1].left), ("jpg_1", found.votes[-1].right)):
            found.images.setdefault(digest, (f"{prefix}{digest[:16]}", partial(_image, path, *place, column, digest)))
        report(Tick("read votes", number, total, path.name))
    found.faults += [f"{one_line(path)}, {fault}" for fault in at_most(faults)]
    if not votes:
        raise Refused(f"{one_line(path)} has no rows. Expected {WHERE}.")


def _ballot(row: Mapping[str, Any], name: str) -> Ballot:
    """The vote of a row. Raises ValueError with what is wrong."""
    labels = row["label_0"], row["label_1"]
    if labels not in LABELS.values():
        raise ValueError(f"label_0 and label_1 are {labels[0]!r} and {labels[1]!r}, not 1 and 0, 0 and 1, or 0.5 and 0.5")
    choice = next(choice for choice, own in LABELS.items() if own == labels)
    images = [_bytes_of(row[f"jpg_{place}"], place) for place in range(2)]
    digests = [hashlib.sha256(data).hexdigest() for data in images]
    for side, digest in zip(("left", "right"), digests, strict=True):
        if row.get(f"{side}_sha256") not in (None, digest):
            raise ValueError(f"its {side} image is not the file that was voted on: its sha256 is another than {side}_sha256")
    identity, voter = name, name
    if all(row.get(column) is not None for column in VOTE):
        vote = read_vote({column: row[column] for column in VOTE})
        if LABELS[vote.choice] != labels:
            raise ValueError(f"its choice is {vote.choice}, and its labels are {labels[0]:g} and {labels[1]:g}")
        identity, voter, choice = vote.id, vote.voter, vote.choice
    return Ballot(id=identity, voter=voter, prompt=plain(row["caption"]), left=digests[0], right=digests[1], choice=choice)


def _bytes_of(value: Any, place: int) -> bytes:
    """The file in a column: bytes, or what `datasets` makes of an image."""
    value = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(value, bytes) or not value:
        raise ValueError(f"jpg_{place} holds no image")
    return value


def _rows(path: Path) -> Iterator[tuple[int, int, tuple[int, int], dict[str, Any]]]:
    """(number from 1, how many there are, (row group, place in it), columns) of each row. Raises Refused for what is no such file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in NEEDED if name not in names]:
                raise Refused(f"{one_line(path)} has no column {', '.join(missing)}. Expected {WHERE}.")
            columns = [name for name in (*NEEDED, *VOTE, "left_sha256", "right_sha256") if name in names]
            number, total = 0, file.metadata.num_rows
            for group in range(file.num_row_groups):
                place = 0
                for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, total, (group, place), row
                        place += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise Refused(f"{one_line(path)} is no parquet file that can be read ({one_line(error)[:100]}).") from error


def _image(path: Path, group: int, place: int, column: str, digest: str) -> bytes:
    """One image of the file. Raises OSError where the file is another one by now."""
    import pyarrow

    try:
        data = _bytes_of(_group(path, group, column)[place].as_py(), 0)
    except (pyarrow.ArrowException, IndexError, KeyError, ValueError) as error:
        raise OSError(f"{path.name} changed while it was read") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise OSError(f"{path.name} changed while it was read")
    return data


@lru_cache(maxsize=2)  # images are read in the order of their rows
def _group(path: Path, group: int, column: str) -> Any:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)
