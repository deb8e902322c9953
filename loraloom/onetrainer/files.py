"""OneTrainer's JSON: a configuration or a preset, with the concepts and samples that it names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from loraloom.onetrainer.names import CONCEPT, EMBEDDING, GROUPS, IMAGE, OPTIMIZER, PART, PARTS, SAMPLES, TEXT, TRAIN
from registry.errors import Refused
from registry.home import expanded
from registry.names import suggest

LARGEST = 50_000_000  # bytes
OF_GROUPS: dict[str, dict[str, Any]] = {"optimizer": dict.fromkeys(OPTIMIZER), "embedding": EMBEDDING}
COUNTS = ("epochs", "batch_size", "gradient_accumulation_steps", "ema_update_step_interval", "lora_rank")
NUMBERS = (  # whose default is null, or the optimizer's
    "learning_rate", "stop_training_after", "embedding_learning_rate", "token_count", "weight_decay", "beta1", "beta2", "eps", "eps2",
)  # fmt: skip


@dataclass
class Values:
    """The settings that a file gives, the defaults of all others. `read` holds the names that were asked for."""

    given: Mapping[str, Any]
    read: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        value = self.given.get(name)
        return TRAIN[name] if value is None else value

    def gives(self, name: str) -> bool:
        """Whether the file itself has the setting, with another value than its default."""
        self.read.add(name)
        return name in self.given and self.given[name] not in (None, TRAIN[name])

    def part(self, name: str) -> dict[str, Any]:
        """A group such as text_encoder, defaults filled."""
        self.read.add(name)
        return PART | {key: value for key, value in (self.given.get(name) or {}).items() if value is not None}


@dataclass
class Files:
    """What the file holds, and what it names."""

    values: Values
    concepts: list[dict[str, Any]] | None = None
    samples: list[dict[str, Any]] | None = None
    faults: list[str] = field(default_factory=list)


def read_files(path: Path) -> Files:
    """The configuration with its concepts and samples, wrong values left out. Raises Refused for what is no JSON object."""
    content = parsed(path)
    if not isinstance(content, dict):
        raise Refused(f"--from-onetrainer {path}: a JSON object is expected, as OneTrainer saves its configuration.")
    found = Files(Values({}))
    own = {name: value for name, value in content.items() if name != "__version"}
    given = _checked("", own, TRAIN | dict.fromkeys(GROUPS), found.faults)
    for name in GROUPS:
        known = PART if name in PARTS else OF_GROUPS.get(name)
        group = _group(name, given, found.faults)
        if group is not None and known is not None:
            given[name] = _checked(f"{name}.", group, known, found.faults)
    found.values.given = given
    _embeddings(given, found.faults)
    found.concepts = _listed(path, found, "concepts", "concept_file_name")
    found.samples = _listed(path, found, "samples", "sample_definition_file_name")
    for number, concept in enumerate(found.concepts or [], 1):
        where = f"concept {number}: "
        row = _checked(where, concept, {**CONCEPT, "image": None, "text": None}, found.faults)
        for name, known in (("image", IMAGE), ("text", TEXT)):
            row[name] = _checked(f"{where}{name}.", _group(f"{where}{name}", row, found.faults, name) or {}, known, found.faults)
        concept.clear()
        concept.update(row)
    for number, sample in enumerate(found.samples or [], 1):
        _checked(f"sample {number}: ", sample, dict.fromkeys(SAMPLES), found.faults)
    _ranges(found)
    return found


def _embeddings(given: dict[str, Any], faults: list[str]) -> None:
    """The rows of additional_embeddings, each checked."""
    rows = given.get("additional_embeddings")
    if rows is None:
        return
    if any(not isinstance(row, dict) for row in rows):
        faults.append("additional_embeddings is a list of groups: [{...}].")
    checked = enumerate((row for row in rows if isinstance(row, dict)), 1)
    given["additional_embeddings"] = [_checked(f"additional_embeddings {number}: ", row, EMBEDDING, faults) for number, row in checked]


def _group(where: str, row: dict[str, Any], faults: list[str], name: str | None = None) -> dict[str, Any] | None:
    """The group of this name, taken out of the row where it is none."""
    group = row.get(name or where)
    if group is None or isinstance(group, dict):
        return group
    faults.append(f"{where}={group!r} is a group of settings: {{...}}.")
    del row[name or where]
    return None


def _ranges(found: Files) -> None:
    """Values out of range, which are left out."""
    values, given = found.values, dict(found.values.given)
    rules = [(name, float(values[name]) >= 1, "1 or more") for name in COUNTS]
    rules += [("ema_decay", 0 < float(values["ema_decay"]) < 1, "above 0 and below 1")]
    rules += [("timestep_shift", float(values["timestep_shift"]) > 0, "above 0")]
    rules += [(name, 0 <= float(values[name]) <= 1, "in 0 .. 1") for name in ("min_noising_strength", "max_noising_strength")]
    for name, good, must in rules:
        if not good:
            found.faults.append(f"{name}={float(given.pop(name)):g} must be {must}.")
    values.given = given
    values.read -= {name for name, _, _ in rules}


def _listed(path: Path, found: Files, name: str, file_name: str) -> list[dict[str, Any]] | None:
    """The list in the configuration, else in the file that it names; None where there is neither."""
    rows: Any = found.values.given.get(name)
    found.values.read |= {name, file_name}
    if rows is None and (given := found.values.given.get(file_name)):
        beside = [expanded(str(given)), path.parent / str(given)]
        there = [place for place in beside if place.is_file()]
        if not there:
            if name == "concepts":
                found.faults.append(f"{file_name}={given}: there is no such file. Give the path from here, or data.path=FOLDER.")
            return None
        rows = parsed(there[0])
    if rows is None:
        return None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        found.faults.append(f"{name} is a list of groups: [{{...}}].")
        return None
    return rows


def parsed(path: Path) -> Any:
    """The value of a JSON file. Raises Refused."""
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"--from-onetrainer {path} has {path.stat().st_size:,} bytes. Give OneTrainer's configuration.")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--from-onetrainer {path} cannot be read: {error.strerror}. Give OneTrainer's JSON file.") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"--from-onetrainer {path} is no JSON: {error}.") from error


def _checked(where: str, given: Mapping[str, Any], known: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """What is known and of the type of its default, numbers in texts as numbers; all else is a fault."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            faults.append(f"{where}{name} is no setting of OneTrainer, which ignores it unseen. {suggest(name, list(known))}")
            continue
        default = 0.0 if name in NUMBERS else known[name]
        fitted = value if value is None or default is None else _fitted(value, default)
        if fitted is None and value is not None:
            shown = "" if known[name] is None else f"; OneTrainer prints that and takes {known[name]!r}"
            faults.append(f"{where}{name}={value!r} is {_kind(default)}{shown}.")
        else:
            kept[name] = fitted
    return kept


def _fitted(value: Any, default: Any) -> Any:
    """The value where it is of the default's type; None where it is not."""
    if isinstance(default, bool) or isinstance(value, bool):
        return value if isinstance(default, bool) and isinstance(value, bool) else None
    if isinstance(default, (int, float)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
        return (value if isinstance(value, (int, float)) else number) if isfinite(number) else None
    if isinstance(default, str) and isinstance(value, (int, float)):
        return str(value)
    return value if isinstance(value, type(default)) else None


def _kind(default: Any) -> str:
    if isinstance(default, bool):
        return "true or false"
    return (
        "a number"
        if isinstance(default, (int, float))
        else "a list"
        if isinstance(default, list)
        else "a group"
        if isinstance(default, dict)
        else "a text"
    )
