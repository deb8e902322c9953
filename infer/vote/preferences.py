"""Votes as a preference data set: a parquet file that `datasets.load_dataset("parquet", data_files=FILE)` opens.

`caption jpg_0 jpg_1 label_0 label_1` are the columns of Pick-a-Pic (Kirstain et al. 2023), which diffusers' Diffusion-DPO script reads:
the images' files (PNG), and 1 for the preferred one, 0 for the other, 0.5 for both of a tie and of two bad ones. The other columns are the
vote itself, so that it comes back, and what each image was drawn with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infer.vote.finished import FinishedGrid, GridCell
from infer.vote.votes import Vote, read_vote
from registry.errors import BadFile, Faults, Refused
from registry.formats.atomic_file import atomic_file
from registry.printable import counted, one_line, some

VOTE = ("id", "left", "right", "choice", "voter", "seconds", "at")
LABELS = {"left": (1.0, 0.0), "right": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5)}
ROWS = 64  # votes, whose images are in memory at a time
MOST_FAULTS = 10


def write_preferences(path: Path, grids: Sequence[FinishedGrid], votes: Sequence[tuple[int, Vote]]) -> int:
    """Write the votes, each with the number of its grid; gives how many. Raises Refused: there is none, or images are gone."""
    import pyarrow
    import pyarrow.parquet

    if not votes:
        raise Refused("There are no votes to export. Vote first: loraloom vote GRID.")
    cells = {(number, cell.key): cell for number, grid in enumerate(grids) for cell in grid.cells}
    missing = sorted({str(cell.image) for number, vote in votes for cell in _pair(cells, number, vote) if not _is_there(cell)})
    if missing:
        raise Refused(
            f"{counted(len(missing), 'image')} of the votes {'is' if len(missing) == 1 else 'are'} not "
            f"there: {some(missing, 4)}. Draw the grid again."
        )
    schema = _schema()
    with atomic_file(path) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="none") as writer:  # PNG is packed already
        for start in range(0, len(votes), ROWS):
            rows = [_row(vote, *_pair(cells, number, vote)) for number, vote in votes[start : start + ROWS]]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return len(votes)


def _pair(cells: Mapping[tuple[int, str], GridCell], number: int, vote: Vote) -> tuple[GridCell, GridCell]:
    return cells[number, vote.left], cells[number, vote.right]


def _is_there(cell: GridCell) -> bool:
    return cell.image is not None and cell.image.is_file()


def _schema() -> Any:
    import pyarrow

    text, number, image = pyarrow.string(), pyarrow.float64(), pyarrow.binary()
    columns = {"caption": text, "jpg_0": image, "jpg_1": image, "label_0": number, "label_1": number}
    columns |= {name: number if name == "seconds" else text for name in VOTE}
    columns |= {f"{side}_{what}": text for side in ("left", "right") for what in ("sha256", "values", "settings")}
    return pyarrow.schema([*columns.items()])


def _row(vote: Vote, left: GridCell, right: GridCell) -> dict[str, Any]:
    row: dict[str, Any] = {"caption": left.prompt or ""}
    row |= dict(zip(("label_0", "label_1"), LABELS[vote.choice], strict=True))
    row |= {name: getattr(vote, name) for name in VOTE}
    for place, (side, cell) in enumerate((("left", left), ("right", right))):
        assert cell.image is not None
        data = cell.image.read_bytes()
        row |= {f"jpg_{place}": data, f"{side}_sha256": hashlib.sha256(data).hexdigest()}
        row |= {f"{side}_values": _json(cell.values), f"{side}_settings": _json(cell.render)}
    return row


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def read_preferences(path: Path) -> list[Vote]:
    """The votes of such a file, each id once. Raises BadFile for what is none, Faults with the rows that are no votes."""
    votes: dict[str, Vote] = {}
    faults = []
    for number, row in enumerate(_rows(path), 1):
        try:
            vote = read_vote(row)
            if votes.setdefault(vote.id, vote) != vote:
                raise ValueError(f"its id {vote.id} is that of another vote")
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise Faults(f"{one_line(path)} has votes that cannot be read:", [*faults[:MOST_FAULTS], *more])
    return list(votes.values())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        missing = [name for name in VOTE if name not in file.schema_arrow.names]
        if missing:
            raise BadFile(path, "no-votes", f"has no column {', '.join(missing)}. Expected what `loraloom vote GRID --export FILE` writes.")
        for batch in file.iter_batches(batch_size=1024, columns=list(VOTE)):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadFile(path, "no-votes", f"is no parquet file that can be read ({one_line(error)[:100]}).") from error
