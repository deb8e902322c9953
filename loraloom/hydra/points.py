"""The values of a sweep's overrides: every combination, the corners of a search, and the label of one run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from loraloom.hydra.bridge import parse

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Options = Mapping[str, Iterable[str]]  # group -> its presets, for glob(...)

UNSAFE = re.compile(r"[@:/\\,=*?\"<>|\s\x00-\x1f]+")  # what references and file names give a meaning to
LONGEST = 100  # characters of a label; a file's name has at most 255 bytes


def sweep_values(override: "Override", options: Options) -> list[Any]:
    """The single values of a sweep; of an interval its two ends."""
    from hydra.core.override_parser.types import Glob, IntervalSweep, Transformer

    value: Any = override._value
    if isinstance(value, Glob):
        return list(value.filter(sorted(options.get(override.key_or_group, ()))))
    if isinstance(value, IntervalSweep):
        ends = (float(value.start or 0), float(value.end or 0))
        return [int(end) for end in ends] if all(end.is_integer() for end in ends) else [*ends]
    return list(override.sweep_iterator(Transformer.identity))


def sweep_points(overrides: Sequence[str], options: Options) -> list[list[str]]:
    """The single runs of a sweep, each as overrides, in the order in which Hydra's own sweeper takes them."""
    return [list(point) for point in product(*_spelled(overrides, options).values())]


def corner_points(overrides: Sequence[str], options: Options) -> list[list[str]]:
    """Two points of a search: every setting at its first value, and every setting at its last."""
    found = [[values[end] for values in _spelled(overrides, options).values()] for end in (0, -1)]
    return found[:1] if found[0] == found[1] else found


def _spelled(overrides: Sequence[str], options: Options) -> dict[str, list[str]]:
    """Key -> its overrides with single values; a later override of a key replaces an earlier one."""
    from hydra.core.override_parser.types import Transformer

    choices: dict[str, list[str]] = {}
    for override in map(parse, overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            values = [Transformer.str(value) for value in sweep_values(override, options)]
        else:
            values = [override.get_value_element_as_str()]
        choices[key] = [key if override.is_delete() and not value else f"{key}={value}" for value in values]
    return choices


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The settings and groups that a sweep varies; not `name`, which names the runs by itself."""
    parsed = [parse(override) for override in overrides]
    return list(dict.fromkeys(one.key_or_group for one in parsed if one.is_sweep_override() and one.key_or_group != "name"))


def run_label(point: Sequence[str], keys: Sequence[str]) -> str:
    """`lora.rank=4,seed=1`: what one run of a sweep has of its own, fit for a reference and a file's name; "" for nothing."""
    values = {one.key_or_group: one.value() for one in map(parse, point) if not one.is_delete()}
    label = ",".join(f"{key.replace('/', '.')}={_safe(values[key])}" for key in keys if key in values)
    if len(label) <= LONGEST:
        return label
    from hashlib import sha256

    return f"{label[:LONGEST].rstrip(' .')}-{sha256(label.encode()).hexdigest()[:8]}"


def _safe(value: Any) -> str:
    """A value as part of a name: null, true, 1e-4, 0.0001235, and texts with `-` for what a name cannot hold."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return "-".join(map(_safe, value))
    text = str(value)
    if isinstance(value, float) and len(text) > 8:
        text = f"{value:.4g}"
    return UNSAFE.sub("-", text.replace("+", "")).strip() or "-"
