"""Overrides of the prediction type and the variant."""

from sqlalchemy import Connection


def up(connection: Connection) -> None:
    """Add two columns to `given`."""
    for name in ("prediction", "variant"):
        connection.exec_driver_sql(f"ALTER TABLE given ADD COLUMN {name} VARCHAR(40)")
