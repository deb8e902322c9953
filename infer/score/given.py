"""The scores that are asked for: `sharpness`, `clip=/models/clip`, `{clip: {model: /models/clip, name: clip-l}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from infer.score.scorer import SCORES, Opener, Scene, Scorer
from registry.errors import Faults, LoomError, Refused
from registry.names import suggest
from registry.options import Entry, option_faults
from registry.plain_values import from_yaml
from registry.printable import one_line

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")  # of a score's key in cells.jsonl
MOST = 40  # scores of a grid
OFFLINE = ("sharpness", "saturation", "colourfulness", "contrast")  # of `loraloom score` where none is named


@dataclass(frozen=True)
class Given:
    """A score as it is asked for: its function, its options, and the name that its numbers have."""

    entry: Entry[Opener]
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def ready_scores(given: object, scene: Scene, *, try_models: bool) -> tuple[Scorer, ...]:
    """The scores of the setting `score`, one or a list: options checked, files read, and with `try_models` each model tried on an image.

    Raises Faults with everything that is wrong with them.
    """
    faults: list[str] = []
    asked = _read_all(given, faults)
    found = [scorer for one in asked if (scorer := _checked(one, scene, faults, try_models)) is not None]
    if faults:
        raise Faults("These scores cannot be computed:", list(dict.fromkeys(faults)))
    return tuple(found)


def plan_scores(given: object, scene: Scene, faults: dict[str, None]) -> tuple[Scorer, ...]:
    """The scores of a grid's plan; models are tried where there is no fault yet. What is wrong goes to `faults`."""
    try:
        return ready_scores(given, scene, try_models=not faults)
    except Faults as error:
        faults |= dict.fromkeys(error.faults)
        return ()


def _read_all(given: object, faults: list[str]) -> list[Given]:
    from infer.score import kinds  # noqa: F401  # fills the table

    items = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    found: list[Given] = []
    for item in items:
        try:
            found.append(_read(item))
        except Faults as error:
            faults += error.faults
        except Refused as error:
            faults.append(str(error))
    names = [one.name for one in found]
    for name in dict.fromkeys(one for one in names if names.count(one) > 1):
        faults.append(f"score {name} is given {names.count(name)} times. Give each a name of its own: {{{name}: {{..., name: other}}}}.")
    if len(items) > MOST:
        faults.append(f"score has {len(items)} entries; at most {MOST} are taken.")
    return found


def _checked(given: Given, scene: Scene, faults: list[str], try_models: bool) -> Scorer | None:
    try:
        scorer = given.entry.function(scene, **given.options)
        if try_models and not faults and scorer.model is not None:
            scorer.open()
        return replace(scorer, name=given.name, kind=given.entry.name)
    except Faults as error:
        faults += [f"score {given.name}: {fault}" for fault in error.faults]
    except LoomError as error:
        faults.append(f"score {given.name}: {error}")
    return None


def _read(item: object) -> Given:
    kind, value = _parts(item)
    if kind not in SCORES:
        raise Refused(f"Unknown score {one_line(repr(kind))}. {suggest(str(kind), SCORES)}")
    entry = SCORES[kind]
    options = dict(value) if isinstance(value, Mapping) else {} if value is None else _first(entry, value)
    name = options.pop("name", kind)
    faults = option_faults(f"The score {kind}", entry.options, options, where=f"{kind}.")
    needed = [option for option in entry.options.values() if option.required]
    form = ", ".join(f"{option.name}: {option.name.upper()}" for option in needed)
    form = f"{{{form}}}" if len(needed) > 1 else "".join(option.name.upper() for option in needed)
    faults += [
        f"score {kind} needs {option.name}: {option.meaning}. Give {{{kind}: {form}}}." for option in needed if option.name not in options
    ]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        faults.append(f"score {kind}: name is {one_line(repr(name))}. Expected small letters, digits, `_` `-` `.`, at most 40.")
    if faults:
        raise Faults("These scores cannot be read:", faults)
    return Given(entry, options, str(name))


def _parts(item: object) -> tuple[str, Any]:
    """(name in the table, its value) of one item."""
    if isinstance(item, Mapping):
        if len(item) != 1:
            raise Refused(
                f"score {one_line(dict(item))}: expected one score an item, {{clip: /models/clip}}, or its options in braces of their own."
            )
        ((kind, value),) = item.items()
        return str(kind), value
    if not isinstance(item, str):
        raise Refused(f"score {one_line(repr(item))}: expected a name, or {{name: value}}.")
    kind, equals, text = item.partition("=")
    if not equals:
        return kind.strip(), None
    return kind.strip(), _braces(text) if text.lstrip().startswith("{") else text


def _braces(text: str) -> Any:
    try:
        value = from_yaml(text)
    except ValueError as error:
        raise Refused(f"score {one_line(text)}: the braces cannot be read ({one_line(error)}).") from error
    if not isinstance(value, dict):
        raise Refused(f"score {one_line(text)}: expected {{option: value, ...}}.")
    return value


def _first(entry: Entry[Opener], value: object) -> dict[str, Any]:
    """The value as the score's first option."""
    if not entry.options:
        raise Refused(f"score {entry.name}={one_line(value)}: it has no options. Give {entry.name} alone.")
    return {next(iter(entry.options)): value}
