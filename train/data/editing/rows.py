"""Rows of metadata.jsonl, changed one line each: all other lines stay as they are, byte by byte."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from registry.errors import Refused
from registry.formats.atomic_file import write_text

BOM = "\ufeff"


@dataclass(frozen=True)
class Row:
    """A line without its end; None is a row that is not there. `place` is its number among the lines, where it is put back."""

    before: str | None
    after: str | None
    place: int


@dataclass(frozen=True)
class Rows:
    """Rows of one metadata.jsonl. `column` holds the images' names, by which a row is found again."""

    file: str
    column: str
    rows: tuple[Row, ...]

    def state(self, root: Path) -> Literal["before", "after", "other"]:
        """Every row as after it; every row as one of the two; or one that is neither."""
        lines = lines_of(root / self.file)
        places = _places(lines, self.column)
        states = {_state(row, lines, places, self.column) for row in self.rows}
        return "other" if "other" in states else "before" if "before" in states else "after"

    def make(self, root: Path) -> None:
        """Change the rows, in one write of the file."""
        path = root / self.file
        there = lines_of(path)
        mark = BOM if there and there[0].startswith(BOM) else ""  # it stays in front, whichever row is first
        lines: list[str | None] = [*there]
        places = _places([line or "" for line in lines], self.column)
        new: list[Row] = []
        for row in self.rows:
            if _state(row, lines, places, self.column) != "before":
                continue
            at = places.get(_name_of(row, self.column))
            if at is None:
                new.append(row)
            else:
                lines[at] = None if row.after is None else (lines[at] or "").replace(row.before or "", row.after, 1)
        left = [line.removeprefix(BOM) for line in lines if line is not None]
        end = "\r\n" if any(line.endswith("\r\n") for line in left) else "\n"
        left = [line if line.endswith(("\n", "\r")) else f"{line}{end}" for line in left]
        for row in sorted(new, key=lambda row: row.place):
            left.insert(row.place, f"{row.after}{end}")
        if any(bare(line) for line in left):
            path.parent.mkdir(parents=True, exist_ok=True)
            with same_mode(path):
                write_text(path, mark + "".join(left))
        else:
            path.unlink(missing_ok=True)  # a table without rows is a fault of the set

    def reversed(self) -> Rows:
        """What takes it back."""
        return Rows(self.file, self.column, tuple(Row(row.after, row.before, row.place) for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"file": self.file, "column": self.column, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, *, file: str, column: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
        """What to_json gave."""
        return cls(file, column, tuple(Row(**row) for row in rows))


@contextmanager
def same_mode(path: Path) -> Iterator[None]:
    """Gives the file that is written in its place the permissions that it has."""
    try:
        mode: int | None = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = None
    yield
    if mode is not None and stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def lines_of(path: Path) -> list[str]:
    """The lines of a table with their ends, [] where there is no file. Raises Refused for what is no UTF-8 text."""
    try:
        data = path.read_bytes()
        data.decode("utf-8")
        return [line.decode("utf-8") for line in data.splitlines(keepends=True)]  # of bytes: not at U+2028, which a text may hold
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise Refused(f"{path.name}: is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def bare(line: str) -> str:
    """A line without its end and the byte order mark."""
    return line.removeprefix(BOM).strip()


def written(values: Mapping[str, Any], line: str) -> str:
    """A row as a line: with escapes where the line that it replaces had some, and in one line for every reader.

    Raises ValueError for numbers that JSON has no word for.
    """
    text = json.dumps(values, ensure_ascii="\\u" in line, allow_nan=False)
    return text if len(text.splitlines()) == 1 and text.isprintable() else json.dumps(values, allow_nan=False)


def _state(row: Row, lines: Sequence[str | None], places: Mapping[str, int], column: str) -> Literal["before", "after", "other"]:
    at = places.get(_name_of(row, column))
    line = None if at is None else lines[at]
    now = None if line is None else bare(line)
    return "after" if now == row.after else "before" if now == row.before else "other"


def _places(lines: Sequence[str], column: str) -> dict[str, int]:
    """The number of each image's line; lines that are no rows have none."""
    found: dict[str, int] = {}
    for number, line in enumerate(lines):
        name = _name(bare(line), column)
        if name is not None:
            found.setdefault(name, number)
    return found


def _name_of(row: Row, column: str) -> str:
    return _name((row.after if row.before is None else row.before) or "", column) or ""


def _name(text: str, column: str) -> str | None:
    try:
        value = json.loads(text).get(column) if text else None
    except (ValueError, AttributeError, RecursionError):
        return None
    return value if isinstance(value, str) else None
