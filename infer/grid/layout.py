"""From settings to cells: the values of every axis, the dimensions they span, and one Render a cell. Nothing here touches a model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from infer.draw.files import read_adapters
from infer.draw.render import SETTINGS, Render
from infer.draw.setting import Setting
from infer.draw.values import every, member_name
from infer.grid.axes import AXES, applied, axis_of
from infer.grid.config import GridConfig, axis_settings
from infer.grid.where import Where
from infer.prompt.wildcards import Lines, chosen, read_wildcards
from registry.errors import LoomError, Refused
from registry.home import expanded
from registry.names import suggest
from registry.printable import some

if TYPE_CHECKING:
    from registry.store import Store

MOST_CELLS = 100_000  # more is a typing mistake more often than intended


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One side of the grid: an axis, or several that go side by side; one tuple of values and one label a place."""

    axes: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return " + ".join(self.axes)

    @property
    def across(self) -> int:
        return min(axis_of(name).across for name in self.axes)  # one long label makes the whole side long

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A Render in a grid: its place on each dimension, and its axis values."""

    place: tuple[int, ...]
    values: Mapping[str, Any]
    render: Render


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The dimensions of a grid, and which of them goes down and which across (None: one line)."""

    dimensions: tuple[Dimension, ...]
    rows: int | None
    columns: int | None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The dimensions beyond two: each of their combinations is a sheet of its own."""
        return tuple(index for index in range(len(self.dimensions)) if index not in (self.rows, self.columns))


Gather = Callable[[str], None]  # takes one fault


def expand(config: GridConfig, store: "Store", gather: Gather) -> tuple[Layout, list[Cell]]:
    """The layout and the cells of a grid. Every fault goes to `gather`; with one, the cells may be fewer."""
    base = _base_render(config, gather)
    values = _axis_values(config, store, gather)
    for fault in _replaced(config):
        gather(fault)
    dimensions = _dimensions(values, _zipped(config, values, gather))
    layout = _layout(config, dimensions, gather)
    if prod(map(len, dimensions)) > MOST_CELLS:
        gather(
            f"The axes span {prod(map(len, dimensions)):,} cells; at most {MOST_CELLS:,} make a grid. Give fewer values, or several grids."
        )
        return layout, []
    if config.prompt is None and "prompt" not in values and config.axes.prompt is None:
        gather("No prompt is given. Expected prompt='...' or 'axes.prompt=[\"...\", \"...\"]'; an empty one is prompt=''.")
    return layout, _cells(base, dimensions, _where(config, values, gather), _wildcards(config, gather), gather)


def _base_render(config: GridConfig, gather: Gather) -> Render:
    """The Render that every cell starts from."""
    given: dict[str, Any] = {}
    for one in (one for one in SETTINGS.values() if one.help):
        try:
            given |= one.fill(getattr(config, one.name))
        except LoomError as error:
            gather(f"{one.name}: {error}")
            given |= one.fill(one.default)
    return Render(**given)


# what keeps a setting beside its axis, where there is a way
BESIDE = {
    "adapters": "An adapter that stays in every cell is given as always=NAME:1",
    "controls": 'A ControlNet that stays in every cell is joined to each value: "canny:a.png+depth:b.png"',
    "embeddings": 'An embedding that stays in every cell is joined to each value: "badhands+goodhands"',
}


def _replaced(config: GridConfig) -> Iterator[str]:
    """A fault for each setting that its own axis would replace in every cell."""
    varied = axis_settings(config)
    for one in (one for one in SETTINGS.values() if one.help):
        axis = one.axis.name or one.name if one.axis is not None else one.name
        given = getattr(config, one.name)
        if axis in varied and _filled(one, given) != _filled(one, one.default):
            advice = f" {BESIDE[one.name]}." if one.name in BESIDE else ""
            yield (
                f"{one.name}={member_name(given)} and axes.{axis} are both given, and the axis would replace it in every cell. "
                f"Leave out {one.name}, or put its value into axes.{axis}.{advice}"
            )


# axis -> (setting, what it replaces of its files, the value that nobody gave)
REPLACES: Mapping[str, tuple[str, str, Any]] = {
    "weight": ("adapters", "weight", 1.0),
    "textweight": ("adapters", "text_weight", None),
    "adapterstart": ("adapters", "start", 0.0),
    "adapterend": ("adapters", "end", 1.0),
    "blocks": ("adapters", "blocks", None),
    "scale": ("controls", "scale", 1.0),
}


def shared_adapters(cells: Sequence[Cell]) -> dict[str, str]:
    """The adapters that all cells have as a person reads them, by their setting's label, each without what an axis such as weight varies.

    Nothing where the cells have other adapters, or none at all.
    """
    parts = {part: plain for setting, part, plain in REPLACES.values() if setting == "adapters"}
    shown: dict[str, str] = {}
    for setting in (SETTINGS["adapters"], SETTINGS["always"]):
        first, *others = (setting.value(cell.render) for cell in cells)
        columns = list(zip(first, *others, strict=False))
        varied = [{part for part in parts if any(getattr(one, part) != getattr(same[0], part) for one in same)} for same in columns]
        kept = [replace(same[0], **{part: parts[part] for part in which}) for same, which in zip(columns, varied, strict=True)]
        bare = [[replace(one, **parts) for one in adapters] for adapters in (kept, first, *others)]
        if kept and all(one == bare[0] for one in bare):
            shown[setting.label] = setting.show(tuple(kept)) or ""
    return shown


def replaced_weights(config: GridConfig) -> Iterator[str]:
    """A note for each weight of an adapter, and scale of a ControlNet, that is given with it and replaced by its axis in every cell."""
    varied = axis_settings(config)
    for axis, (name, part, plain) in ((axis, of) for axis, of in REPLACES.items() if axis in varied):
        one = SETTINGS[name]
        values = [getattr(config, name), *every(varied.get(one.axis.name if one.axis is not None else name, ()))]
        filled = [file for given in values if isinstance(value := _filled(one, given), dict) for file in value[name]]
        if isinstance(named := varied[axis], Mapping):
            filled = [file for file in (*filled, *read_adapters(config.always)) if file.reference in named]
        files = [file for file in filled if getattr(file, part) != plain]
        if files:
            yield f"axes.{axis} replaces the {part} given with {some(dict.fromkeys(map(str, files)))}: it has no effect."


def _filled(one: Setting, given: Any) -> Any:
    """What a setting puts into a Render; a value that it refuses as it is."""
    try:
        return one.fill(given)
    except LoomError:
        return given


def _axis_values(config: GridConfig, store: "Store", gather: Gather) -> dict[str, list[Any]]:
    """Axis name -> its values, ranges and `@step-*` spelt out."""
    settings = axis_settings(config)
    if config.repeats > 1:
        if "seed" in settings:
            gather(
                f"repeats={config.repeats} and axes.seed are both given. repeats=N is short for N seeds from `seed` on: give one of them."
            )
        else:
            settings["seed"] = list(range(config.seed, config.seed + config.repeats))
    found: dict[str, list[Any]] = {}
    for name, given in _by_adapter(settings, gather):
        values = _read_axis(name, given, store, gather)
        if twice := sorted({axis_of(name).spell(value) for value in values if values.count(value) > 1}):
            gather(f"axes.{name} holds {', '.join(twice)} more than once. Each value makes one row, column or sheet: give it once.")
        elif values:
            found[name] = values
        elif not every(given):
            gather(f"axes.{name} is an empty list. Give its values, or leave the axis out.")
    return found


def _by_adapter(settings: Mapping[str, object], gather: Gather) -> Iterator[tuple[str, object]]:
    """(name of a dimension, its values) in the order of the axes: `{hat: [0,1]}` of weight is the dimension weight.hat."""
    for name in (name for name in AXES if name in settings):
        given = settings[name]
        if AXES[name].apply_to is None or not isinstance(given, Mapping):
            yield name, given
            continue
        if not given:
            gather(f"axes.{name} names no adapter. Expected {{hat: [...]}}, or the values alone.")
        for reference, values in given.items():
            if isinstance(reference, str) and reference:
                yield f"{name}.{reference}", values
            else:
                gather(f"axes.{name} has {reference!r} for the name of an adapter. Expected {{hat: [...]}}.")


def _read_axis(name: str, given: object, store: "Store", gather: Gather) -> list[Any]:
    one, values = axis_of(name), []
    for item in every(given):
        try:
            values += [wide for value in one.read(item) for wide in one.widen(value, store)]
        except LoomError as error:
            gather(f"axes.{name}: {error}")
    return values


def _zipped(config: GridConfig, values: Mapping[str, Sequence[Any]], gather: Gather) -> list[tuple[str, ...]]:
    """The groups of axes that go side by side."""
    given = every(config.zip) if config.zip is not None else []
    groups = [tuple(map(str, every(group))) for group in (given if any(not isinstance(item, str) for item in given) else [given]) if group]
    good: list[tuple[str, ...]] = []
    for group in groups:
        shown = f"zip=[{','.join(group)}]"
        faults = [f"{shown} names {name!r}, which this grid does not vary. {suggest(name, values)}" for name in group if name not in values]
        if len(group) < 2:
            faults.append(f"{shown} names one axis; at least two go side by side.")
        if taken := [name for name in group if sum(name in other for other in groups) > 1 or group.count(name) > 1]:
            faults.append(f"{shown} names {taken[0]!r}, which is zipped twice.")
        if not faults and len({len(values[name]) for name in group}) > 1:
            counts = ", ".join(f"{name} has {len(values[name])}" for name in group)
            faults.append(f"{shown} needs as many values on each axis, but {counts}.")
        for fault in faults:
            gather(fault)
        good += [] if faults else [group]
    return good


def _dimensions(values: Mapping[str, Sequence[Any]], zipped: Sequence[tuple[str, ...]]) -> tuple[Dimension, ...]:
    groups: list[tuple[str, ...]] = []
    for name in values:
        group = next((group for group in zipped if name in group), (name,))
        if group not in groups:
            groups.append(group)
    dimensions = []
    for group in groups:
        together = tuple(zip(*(values[name] for name in group), strict=True))
        labels = tuple(" · ".join(axis_of(name).spell(value) for name, value in zip(group, place, strict=True)) for place in together)
        dimensions.append(Dimension(axes=group, values=together, labels=labels))
    return tuple(dimensions)


def _layout(config: GridConfig, dimensions: tuple[Dimension, ...], gather: Gather) -> Layout:
    """Which axis goes down and which across: as configured, else prompts down and the finest comparison across."""
    sides: dict[str, int | None] = {"rows": None, "columns": None}
    for side in sides:
        name = getattr(config, side)
        if name is not None:
            sides[side] = next((index for index, one in enumerate(dimensions) if name in one.axes), None)
            if sides[side] is None:
                varied = [axis for one in dimensions for axis in one.axes]
                gather(f"{side}={name} is not an axis that this grid varies. {suggest(name, varied)}")
    rows, columns = sides["rows"], sides["columns"]
    if rows is not None and rows == columns:
        gather(f"rows and columns both name {dimensions[rows].name}. Give two different axes.")
        columns = None
    return choose_sides(dimensions, rows, columns)


def choose_sides(dimensions: tuple[Dimension, ...], rows: int | None = None, columns: int | None = None) -> Layout:
    """The Layout with the sides that are given, and the others chosen by the axes' own rank."""
    free = sorted((index for index in range(len(dimensions)) if index not in (rows, columns)), key=lambda index: dimensions[index].across)
    if len(dimensions) == 1 and rows is None and columns is None:
        return Layout(
            dimensions=dimensions,
            rows=free[0] if dimensions[0].across == 0 else None,
            columns=None if dimensions[0].across == 0 else free[0],
        )
    if columns is None and free:
        columns = free.pop()
    if rows is None and free:
        rows = free.pop(0)
    return Layout(dimensions=dimensions, rows=rows, columns=columns)


def _where(config: GridConfig, values: Mapping[str, object], gather: Gather) -> Where | None:
    if config.where is None:
        return None
    try:
        return Where(config.where, values)
    except Refused as error:
        gather(str(error))
        return None


def _wildcards(config: GridConfig, gather: Gather) -> Lines | None:
    """The lines of the files of wildcards; None where prompts have no choices."""
    if config.wildcards is None:
        return None
    try:
        return {} if config.wildcards.lower() == "true" else read_wildcards(expanded(config.wildcards))
    except Refused as error:
        gather(str(error))
        return None


def _with_choices(render: Render, lines: Lines | None) -> Render:
    """The Render with the choices in its prompts made by its seed."""
    if lines is None:
        return render
    negative = None if render.negative is None else chosen(render.negative, render.seed, lines)
    return replace(render, prompt=chosen(render.prompt, render.seed, lines), negative=negative)


def _cells(base: Render, dimensions: Sequence[Dimension], where: Where | None, lines: Lines | None, gather: Gather) -> list[Cell]:
    cells: list[Cell] = []
    left_out = 0
    axes = list(AXES)
    ordered = sorted((name for one in dimensions for name in one.axes), key=lambda name: (axes.index(axis_of(name).name), "." in name))
    for place in product(*(range(len(one)) for one in dimensions)):
        values = {
            name: value for one, at in zip(dimensions, place, strict=True) for name, value in zip(one.axes, one.values[at], strict=True)
        }
        try:
            if where and not where(
                {name: axis_of(name).spell(value) if isinstance(value, tuple) else value for name, value in values.items()}
            ):
                left_out += 1
                continue
        except LoomError as error:  # of every cell alike
            gather(str(error))
            return cells
        try:
            render = base
            for name in ordered:
                render = applied(name, render, values[name])
            render = _with_choices(render, lines)
        except LoomError as error:
            gather(str(error))
            continue
        cells.append(Cell(place=place, values=values, render=render))
    if left_out and not cells and where:
        gather(f"where={where.text!r} leaves no cell of {left_out}.")
    return cells
