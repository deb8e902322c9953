"""Overrides of detected facts (kind, family, variant, prediction, triggers) by a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, update

from registry.errors import Refused
from registry.index import database as tables
from registry.index import rows
from registry.names import suggest
from registry.record import KINDS, OVERRIDDEN, PREDICTIONS, Prediction, Record


def families() -> list[str]:
    """Names of all families: those that load, and those that are only detected."""
    from registry.detect.other_families import DETECT_ONLY
    from registry.families import FAMILIES

    return sorted({*FAMILIES, *(row.family for row in DETECT_ONLY)})


def validate_overrides(values: Mapping[str, Any]) -> None:
    """Raise Refused for an unknown kind, family or prediction."""
    known = {"kind": KINDS, "prediction": PREDICTIONS, "family": families() if values.get("family") else ()}
    for name, words in known.items():
        if values.get(name) is not None and values[name] not in words:
            raise Refused(f"Unknown {name} {values[name]!r}. {suggest(str(values[name]), words)}")


def write_overrides(
    connection: Connection, record_id: str, values: Mapping[str, Any], triggers: Iterable[str], forget: Iterable[str]
) -> None:
    """Write overrides, after those in `forget` are removed."""
    table, label = tables.given, tables.label
    for name in forget:
        if name == "triggers":
            connection.execute(delete(label).where(label.c.record_id == record_id, label.c.kind == "trigger"))
        else:
            connection.execute(update(table).where(table.c.record_id == record_id).values({name: None}))
    rows.put_given(connection, record_id, values)
    rows.put_labels(connection, record_id, "trigger", triggers)


def apply_overrides(record: Record, given: Row[Any] | None, triggers: Iterable[str]) -> dict[str, Any]:
    """The overridden fields of a record, with their evidence."""
    overrides: dict[str, Any] = {}
    evidence = list(record.evidence)
    for name in ("kind", "family", "variant", "prediction"):
        value = getattr(given, name) if given is not None else None
        shown = record.prediction.value if name == "prediction" else getattr(record, name)
        if value is not None and value != shown:
            overrides[name] = Prediction(value=value, source=OVERRIDDEN) if name == "prediction" else value
            evidence.append(f"{name} {value}: override; the files show {shown or 'nothing'}")
    evidence += [f"trigger {word}: override" for word in triggers]
    if "family" in overrides:
        overrides["candidates"] = ()
    return {**overrides, "evidence": tuple(evidence)} if len(evidence) > len(record.evidence) else {}
