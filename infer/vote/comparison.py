"""What is compared: the values of one axis, or of several together, as candidates; and the votes as outcomes between them.

Two cells are a fair pair where every axis that is not compared is equal: the same prompt, the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from infer.vote.finished import FinishedGrid, GridCell
from infer.vote.votes import Vote
from registry.errors import Refused
from registry.names import suggest
from registry.printable import one_line, some

FIXED = ("prompt", "negative", "seed")  # axes that nobody compares without asking for it

MOST = 100  # candidates: every pair of them is a row

Block = tuple[int, tuple[tuple[str, str], ...]]  # number of the grid, and the values of every axis that is not compared


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidates over blocks: `cells[block][candidate]` is the cell of a candidate, `prompts[block]` the group that its votes belong to."""

    axes: tuple[str, ...]
    candidates: tuple[str, ...]
    cells: Mapping[Block, Mapping[int, GridCell]]
    prompts: Mapping[Block, str]
    grouped_by: str  # "prompt", or what stands in for it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A vote between two candidates. `winner` is one of them, or None: a tie, or both bad."""

    vote: Vote
    left: int
    right: int
    winner: int | None
    prompt: str
    block: Block


def read_axes(given: str | None) -> tuple[str, ...] | None:
    """The axes of `adapter,weight`; None where none were given. Raises Refused for an empty or repeated name."""
    if given is None:
        return None
    names = tuple(name.strip() for name in given.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise Refused(f"compare={given}: give axes of the grid, each once, with commas between them: compare=adapter,weight.")
    return names


def choose_axes(grids: Sequence[FinishedGrid], given: tuple[str, ...] | None, votes: Iterable[Vote] = ()) -> tuple[str, ...]:
    """The axes to compare: as given, else the only one beside prompt and seed, else those in which voted pairs differ. Raises Refused."""
    varied = list(dict.fromkeys(name for grid in grids for name in grid.axes))
    if given is not None:
        for name in given:
            if name not in varied:
                raise Refused(f"compare={','.join(given)}: {one_line(name)!r} is no axis that this grid varies. {suggest(name, varied)}")
        return given
    free = [name for name in varied if name not in FIXED]
    if len(free) > 1:
        voted = _voted_axes(grids, votes)
        free = [name for name in varied if name in voted] or free
        if voted:
            return tuple(free)
    if len(free) != 1:
        found = f"varies {some(varied, 8)}" if varied else "varies nothing"
        raise Refused(f"This grid {found}. Say what to compare: compare=AXIS, or compare=AXIS,AXIS for several together.")
    return tuple(free)


def _voted_axes(grids: Sequence[FinishedGrid], votes: Iterable[Vote]) -> set[str]:
    values = {cell.key: cell.values for grid in grids for cell in grid.cells}
    found: set[str] = set()
    for vote in votes:
        left, right = values.get(vote.left, {}), values.get(vote.right, {})
        found |= {name for name in left.keys() & right.keys() if left[name] != right[name]}
    return found


def compare(grids: Sequence[FinishedGrid], axes: tuple[str, ...]) -> Comparison:
    """The candidates of these axes, and their cells. Raises Refused where there are not two, or a name is of different files."""
    names: dict[tuple[str, ...], int] = {}
    cells: dict[Block, dict[int, GridCell]] = {}
    files: dict[int, tuple[str, ...]] = {}
    for number, grid in enumerate(grids):
        for cell in grid.cells:
            if any(axis not in cell.values for axis in axes) or _is_reference(cell, axes):
                continue
            candidate = names.setdefault(tuple(cell.values[axis] for axis in axes), len(names))
            block = (number, tuple((name, value) for name, value in cell.values.items() if name not in axes))
            cells.setdefault(block, {})[candidate] = cell
            if "adapter" in axes and files.setdefault(candidate, cell.files) != cell.files:
                name = _spelt(axes, next(value for value, at in names.items() if at == candidate))
                raise Refused(f"{one_line(name)} is not the same file in each of these grids. Rank them one by one.")
    spelling = {number: _spelt(axes, value) for value, number in names.items()}
    _add_outside(grids, axes, names, cells, spelling)
    merged, notes = _merge_equal(spelling, cells)
    spelt = tuple(merged.values())
    if len(spelt) < 2:
        raise Refused(f"compare={','.join(axes)}: there are not two different candidates in this grid.")
    if len(spelt) > MOST:
        raise Refused(f"compare={','.join(axes)}: {len(spelt)} candidates are more than {MOST}, the most that are ranked.")
    by_prompt, grouped_by = _groups(cells, axes)
    return Comparison(axes=axes, candidates=spelt, cells=cells, prompts=by_prompt, grouped_by=grouped_by, notes=tuple(notes))


def _is_reference(cell: GridCell, axes: tuple[str, ...]) -> bool:
    """Whether the cell is an image made elsewhere, in a comparison of an axis that it has no value of: it is a candidate by its name."""
    return cell.outside is not None and any(axis == cell.outside.column or axis not in cell.values for axis in axes)


def _add_outside(
    grids: Sequence[FinishedGrid],
    axes: tuple[str, ...],
    names: dict[tuple[str, ...], int],
    cells: dict[Block, dict[int, GridCell]],
    spelling: dict[int, str],
) -> None:
    """Images made elsewhere beside the drawn ones of their prompt and seed, whatever else those were drawn with."""
    for number, grid in enumerate(grids):
        blocks = [block for block in cells if block[0] == number]
        for cell in grid.cells:
            if cell.outside is None or cell.image is None or not _is_reference(cell, axes):
                continue
            asked = {name: value for name, value in cell.values.items() if name != cell.outside.column}
            value = tuple(asked.get(axis, f"outside {cell.outside.name}") for axis in axes)
            candidate = names.setdefault(value, len(names))
            spelling[candidate] = ", ".join([f"{axis} {asked[axis]}" for axis in axes if axis in asked] + [cell.outside.name])
            wanted = {name: text for name, text in asked.items() if name not in axes}
            for block in blocks:
                if wanted.items() <= dict(block[1]).items():
                    cells[block][candidate] = cell


def _spelt(axes: tuple[str, ...], values: tuple[str, ...]) -> str:
    """'ink', or 'adapter ink, weight 0.5' for several axes."""
    return values[0] if len(axes) == 1 else ", ".join(f"{axis} {value}" for axis, value in zip(axes, values, strict=True))


def _merge_equal(spelt: Mapping[int, str], cells: dict[Block, dict[int, GridCell]]) -> tuple[dict[int, str], list[str]]:
    """Candidates by their number, those whose images are the very same in every block as one (an adapter at weight 0 is none)."""
    same: dict[tuple[tuple[Block, str], ...], list[int]] = {}
    for number in spelt:
        keys = tuple((block, row[number].key) for block, row in cells.items() if number in row)
        same.setdefault(keys, []).append(number)
    first = {number: group[0] for group in same.values() for number in group}
    kept = {number: place for place, number in enumerate(dict.fromkeys(first.values()))}
    for block, row in cells.items():
        cells[block] = {kept[number]: cell for number, cell in row.items() if number in kept}
    joined = {kept[group[0]]: " = ".join(spelt[number] for number in group) for group in same.values()}
    notes = [f"{one_line(joined[kept[group[0]]])}: the very same images, one candidate." for group in same.values() if len(group) > 1]
    return dict(sorted(joined.items())), notes


def _groups(cells: Mapping[Block, object], axes: tuple[str, ...]) -> tuple[dict[Block, str], str]:
    """The group of each block: its prompt where prompts differ, else the block itself."""
    prompts = {block: dict(block[1]).get("prompt") for block in cells}
    if "prompt" not in axes and len({*prompts.values()} - {None}) > 1:
        return {block: str(prompt) for block, prompt in prompts.items()}, "prompt"
    label = {block: ", ".join(f"{name} {value}" for name, value in block[1]) or f"grid {block[0] + 1}" for block in cells}
    return label, "seed" if any(name == "seed" for block in cells for name, _ in block[1]) else "cell"


def outcomes(found: Comparison, votes: Iterable[tuple[int, Vote]]) -> tuple[list[Outcome], int]:
    """The votes, each with the number of its grid, as outcomes; and how many are between cells that are no fair pair here."""
    places: dict[tuple[int, str], list[tuple[Block, int]]] = {}
    for block, row in found.cells.items():
        for candidate, cell in row.items():
            places.setdefault((block[0], cell.key), []).append((block, candidate))
    made, apart = [], 0
    for grid, vote in votes:
        rights = dict(reversed(places.get((grid, vote.right), [])))
        pair = next(
            ((block, left, rights[block]) for block, left in places.get((grid, vote.left), []) if rights.get(block, left) != left), None
        )
        if pair is None:
            apart += 1
            continue
        block, left, right = pair
        winner = {"left": left, "right": right}.get(vote.choice)
        made.append(Outcome(vote=vote, left=left, right=right, winner=winner, prompt=found.prompts[block], block=block))
    return made, apart


def first_of_each(found: Iterable[Outcome]) -> list[Outcome]:
    """Each voter's first vote on each pair of images: a repeat measures the voter, not the candidates."""
    seen: dict[tuple[str, frozenset[str]], Outcome] = {}
    for one in found:
        seen.setdefault((one.vote.voter, frozenset((one.vote.left, one.vote.right))), one)
    return list(seen.values())
