"""What listings filter and sort by, as columns of `record`; and the image that a person chose."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

COLUMNS = {"rank": "INTEGER", "licence": "TEXT", "codes": "TEXT", "bytes": "BIGINT"}
MANY = 500  # rows of one statement


def up(connection: Connection) -> None:
    """Add the columns and fill them from the facts that are there."""
    for name, kind in COLUMNS.items():
        connection.exec_driver_sql(f"ALTER TABLE record ADD COLUMN {name} {kind}")
    connection.exec_driver_sql("ALTER TABLE given ADD COLUMN image TEXT")
    ids = [row[0] for row in connection.execute(text("SELECT id FROM record"))]
    change = text("UPDATE record SET rank = :rank, licence = :licence, codes = :codes, bytes = :bytes WHERE id = :id")
    for begin in range(0, len(ids), MANY):
        wanted = ids[begin : begin + MANY]
        names = ", ".join(f":id{number}" for number in range(len(wanted)))
        found = connection.execute(
            text(f"SELECT id, data FROM record WHERE id IN ({names})"), {f"id{number}": one for number, one in enumerate(wanted)}
        )
        connection.execute(change, [{"id": row[0], **catalogued(json.loads(row[1]))} for row in found])


def catalogued(data: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a record's facts, as registry/index/rows writes them too."""
    return {
        "rank": data.get("rank"),
        "licence": data.get("licence"),
        "codes": " ".join(sorted({str(warning["code"]) for warning in data.get("warnings") or ()})),
        "bytes": sum(int(entry["bytes"]) for entry in data.get("files") or ()),
    }
