"""The axes of a finished grid as its cells have them: those that go side by side (zip) are one, its values in the order of the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SETTING = ("prompt", "negative", "seed")  # what cells that are compared have in common


@dataclass(frozen=True)
class Dimension:
    """One axis, or several of which each value of one goes with one of the other."""

    axes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        return " + ".join(self.axes)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(", ".join(value) for value in self.values)

    def of(self, cell: Mapping[str, str]) -> tuple[str, ...] | None:
        """The value of a cell; None where it lacks one of the axes."""
        return tuple(cell[axis] for axis in self.axes) if all(axis in cell for axis in self.axes) else None


def dimensions(cells: Sequence[Mapping[str, str]]) -> tuple[Dimension, ...]:
    """The dimensions of cells by their values on each axis, of the axes with two values or more."""
    names = dict.fromkeys(name for cell in cells for name in cell)
    varied = [name for name in names if len({cell.get(name) for cell in cells}) > 1]
    groups: list[list[str]] = []
    for name in varied:
        beside = next((group for group in groups if _side_by_side(group[0], name, cells)), None)
        beside.append(name) if beside is not None else groups.append([name])
    found = []
    for group in groups:
        values = dict.fromkeys(tuple(cell[axis] for axis in group) for cell in cells if all(axis in cell for axis in group))
        found.append(Dimension(tuple(group), tuple(values)))
    return tuple(found)


def _side_by_side(one: str, other: str, cells: Sequence[Mapping[str, str]]) -> bool:
    """Whether each value of one goes with one of the other; prompt and seed stay by themselves."""
    if one in SETTING or other in SETTING:
        return False
    pairs = {(cell.get(one), cell.get(other)) for cell in cells}
    return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})
