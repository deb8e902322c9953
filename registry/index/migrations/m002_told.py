"""A person may say the prediction type and the variant too, where neither can be seen."""

from sqlalchemy import Connection


def up(connection: Connection) -> None:
    """Two more columns of what was said."""
    for name in ("prediction", "variant"):
        connection.exec_driver_sql(f"ALTER TABLE given ADD COLUMN {name} VARCHAR(40)")
