"""The settings of a grid as a page edits them: a text for each setting, a list of texts for each axis; and the words of the command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import EnumType
from pathlib import Path
from typing import Any

from infer.draw.render import SETTINGS, Render
from infer.draw.samplers import SAMPLERS
from infer.grid.axes import AXES
from infer.grid.config import PROSE, GridConfig
from infer.output.command import settings_given
from infer.sampling.sigmas import SCHEDULES
from infer.vote.finished import read_grid
from loraloom.hydra.settings import read_schema
from loraloom.studio.context import Studio
from loraloom.studio.grids.listing import read_config
from loraloom.studio.planning.planner import Planned, Planner
from registry.errors import NotFound, Refused
from registry.printable import one_line
from registry.settings import spelled, spelled_inside

MOST_VALUES = 2000  # of an axis
LONGEST = 20_000  # characters of a value
PLAIN = re.compile(r"(?!none$)[\w.+/@:*-]+(?<!\.)", re.ASCII | re.IGNORECASE)  # an item of a list that Hydra's grammar takes without quotes
RECORD = re.compile(r"[\[{].*[\]}]", re.DOTALL)  # {adapter: ink, start: 0.2}: as it is
SCHEMA = read_schema(GridConfig)
LEFT_OUT = ("dry_run", "out")
OF_AXIS = {"adapter": "adapters", "embedding": "embeddings", "control": "controls"}  # axes of a setting that has another name
CHOICES: Mapping[str, Sequence[str]] = {"sampler": [*SAMPLERS], "schedule_type": [*SCHEDULES], "rows": [*AXES], "columns": [*AXES]}
KINDS = {"base": "checkpoint", "adapters": "adapter", "always": "adapter", "embeddings": "embedding", "vae": "vae"}
GROUPS: Mapping[str, Sequence[str]] = {
    "Models": ("base", "adapters", "axes.weight", "vae"),
    "Prompts": ("prompt", "negative"),
    "Sampling": ("seed", "steps", "sampler", "schedule_type", "guidance", "size"),
    "Table": ("name", "rows", "columns", "where", "zip", "repeats", "score"),
}
IN_QUOTES = ", each in quotes"  # on a command line; in a field the quotes would be part of the text
ROWS = 30  # models that are suggested for what was typed


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a page's fields hold: settings that are given, and axes by name, as they are typed."""

    values: Mapping[str, str]
    axes: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a page."""
        return {"values": dict(self.values), "axes": {name: list(texts) for name, texts in self.axes.items()}}


def read_form(given: Any) -> Form:
    """The form of a request. Raises Refused for what is none."""
    values = given.get("values") if isinstance(given, dict) else None
    axes = given.get("axes") if isinstance(given, dict) else None
    if not isinstance(values, dict) or not isinstance(axes, dict) or not all(map(_is_text, values.values())):
        raise Refused("form: expected values and axes, each by its name.")
    for name, texts in axes.items():
        if not isinstance(texts, list) or len(texts) > MOST_VALUES or not all(map(_is_text, texts)):
            raise Refused(f"axes.{one_line(name)}: expected a list of at most {MOST_VALUES:,} texts.")
    return Form(values=values, axes=axes)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST and "\0" not in value


def words_of(form: Form) -> list[str]:
    """The arguments of `loraloom grid`. Empty fields are left out; an axis of one value is that axis all the same."""
    words = [f"{name}={_spelled(name, text)}" for name, text in form.values.items() if text.strip()]
    for name, texts in form.axes.items():
        if filled := [text for text in texts if text.strip()]:
            words.append(f"axes.{name}=[{','.join(_item(name, text) for text in filled)}]")
    return words


def _spelled(name: str, text: str) -> str:
    """A value as it is typed; a text that begins and ends with quotes is quoted, so that it is read as typed."""
    setting = SCHEMA.settings.get(name)
    return spelled(text) if setting is not None and setting.is_text else text


def _item(axis: str, text: str) -> str:
    """An item of an axis' list."""
    text = text if axis in PROSE else text.strip()
    plain = axis not in PROSE and (PLAIN.fullmatch(text) or RECORD.fullmatch(text))
    return text if plain or text == "null" else spelled_inside(text)


def described(studio: Studio) -> dict[str, Any]:
    """The fields in their groups: each with its default, type, help and range, the axis that varies it, and what can be chosen."""
    rows = {row["name"]: row for row in planner(studio).describe()["settings"]}
    axis_of = {setting: name for name, setting in OF_AXIS.items()}
    axis_of |= {one.name: one.axis.name or one.name for one in SETTINGS.values() if one.axis is not None}
    axis_of |= {name: name for name in AXES if name in rows and name not in axis_of.values()}
    fields = [_field(row, axis_of.get(name), rows) for name, row in rows.items() if "." not in name and name not in LEFT_OUT]
    taken = set(axis_of.values())
    fields += [_axis_field(rows[f"axes.{name}"]) for name in AXES if name not in taken]
    group = {name: title for title, names in GROUPS.items() for name in names}
    order = {name: place for place, name in enumerate(group)}
    for field in fields:
        field["group"] = group.get(field["name"], "More")
    return {"fields": sorted(fields, key=lambda field: order.get(field["name"], len(order))), "groups": [*GROUPS, "More"]}


def _field(row: Mapping[str, Any], axis: str | None, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    name = row["name"]
    setting = next((one for one in SETTINGS.values() if one.name == name), None)
    choices: list[str] = list(CHOICES.get(name, ()))
    if setting is not None and isinstance(setting.scalar, EnumType):
        choices = list(setting.scalar.__members__)
    if row["type"].startswith("true or false"):
        choices = ["true", "false"]
    elif not choices and " or " in row["type"] and not row["type"].startswith(("a ", "a text")):
        choices = [word for word in row["type"].split(" or ") if word != "null"]
    return {
        "name": name,
        "default": "" if row["default"] is None else _typed(row["default"]),
        "type": row["type"],
        "help": row["help"],
        "range": setting.expected if setting is not None else "",
        "axis": axis,
        "axis_help": rows[f"axes.{axis}"]["help"].removesuffix(IN_QUOTES) if axis else "",
        "choices": choices,
        "kind": KINDS.get(name),
        "long": name in PROSE,
    }


def _axis_field(row: Mapping[str, Any]) -> dict[str, Any]:
    """An axis that no setting has: it is varied or left out."""
    axis = row["name"].removeprefix("axes.")
    own = {"name": row["name"], "default": "", "type": "", "help": "", "range": "", "choices": [], "kind": None, "long": False}
    return {**own, "axis": axis, "axis_help": row["help"], "only_axis": True}


def planner(studio: Studio) -> Planner:
    """The warm process that plans grids."""
    return Planner.of("grid", folder=studio.folder, home=studio.home)


def planned(studio: Studio, form: Form, *, page: str, number: int) -> Planned:
    """The plan of `loraloom grid` with these settings."""
    return planner(studio).plan(words_of(form), page=page, number=number)


def form_of_grid(studio: Studio, folder: Path) -> Form:
    """A grid's own settings, as its config.yaml has them: those that differ from the defaults. Raises NotFound."""
    config = read_config(folder)
    if not config:
        raise NotFound(f"{one_line(folder)} has no config.yaml that can be read: its settings are not known.")
    values = {}
    for field in described(studio)["fields"]:
        value = config.get(field["name"])
        if value is not None and (text := _typed(value)) != field["default"] and len(text) <= LONGEST:
            values[field["name"]] = text
    given = config.get("axes")
    axes = {str(name): [*map(_typed, listed(value))] for name, value in given.items() if name in AXES} if isinstance(given, dict) else {}
    return Form(values=values, axes=axes)


def listed(value: Any) -> list[Any]:
    """The values of an axis as a list; one alone is one."""
    return list(value) if isinstance(value, list) else [value]


def _typed(value: Any) -> str:
    """A value as a field holds it."""
    return value if isinstance(value, str) else spelled_inside(value)


def form_of_cell(folder: Path, key: str) -> Form:
    """The settings of one cell. Raises NotFound, Refused for an image made elsewhere."""
    cell = next((one for one in read_grid(folder).cells if one.key == key), None)
    if cell is None:
        raise NotFound(f"The grid has no cell {one_line(key)[:80]}.")
    try:
        render = Render.from_json(cell.render)
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(f"The settings of this cell are not known: {one_line(error)}.") from error
    return Form(values={name: _typed(value) for name, value in settings_given(render).items()}, axes={})


def models(studio: Studio, kind: str, typed: str) -> list[dict[str, Any]]:
    """Registered models of a kind whose name has what is typed, for suggestions: reference, family, trigger words."""
    words = typed.lower().split()
    found = []
    with studio.store.listing(kind=kind) as records:
        for record in records:
            if all(word in record.name.lower() for word in words):
                found.append({"name": record.name, "family": record.family, "triggers": list(record.triggers)[:5]})
                if len(found) == ROWS:
                    break
    return found
