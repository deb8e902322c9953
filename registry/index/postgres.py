"""The index on a PostgreSQL server, for a team: one writer at a time as on SQLite, readers see one state.

Paths must be the same on every machine: a team shares its models' file system. `LORALOOM_INDEX` selects the server.
"""

from __future__ import annotations

import contextlib

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from registry.errors import LoomError, Refused

WAIT_SECONDS = 60  # how long a writer waits for another
REACH_SECONDS = 10  # how long a server may take to answer
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


class PostgresServer:
    """An index in the current schema of a URL's user."""

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError) as error:
            raise Refused(f"LORALOOM_INDEX is no URL: {error}. Write postgresql://user:password@host:5432/database.") from error
        self.shown = self._url.render_as_string(hide_password=True)

    def engine(self) -> Engine:
        """The engine. Raises Refused where the driver is missing."""
        try:
            engine = sqlalchemy.create_engine(
                self._url, pool_pre_ping=True, connect_args={"connect_timeout": REACH_SECONDS, "application_name": "loraloom"}
            )
        except ModuleNotFoundError as error:
            raise Refused(f"The index {self.shown} needs PostgreSQL's driver: pip install 'loraloom[postgres]'.") from error
        sqlalchemy.event.listen(engine, "begin", _begin)
        return engine

    def version(self, connection: Connection) -> int:
        """The number of the last migration; 0 before the first."""
        # pg_tables, not to_regclass: a table made by another process while we waited for the lock is not in this session's name cache
        there = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'loraloom_format'"
        if connection.exec_driver_sql(there).first() is None:
            return 0
        return int(connection.exec_driver_sql("SELECT coalesce(max(version), 0) FROM loraloom_format").scalar_one())

    def put_version(self, connection: Connection, number: int) -> None:
        """Store the number of the last migration, in its transaction."""
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS loraloom_format (version INTEGER NOT NULL)")
        connection.exec_driver_sql("DELETE FROM loraloom_format")
        connection.exec_driver_sql(f"INSERT INTO loraloom_format VALUES ({number:d})")

    def columns(self, connection: Connection) -> set[tuple[str, str]]:
        """(table, column) of every column."""
        found = connection.exec_driver_sql(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        )
        return {(str(table), str(column)) for table, column in found}

    def fault(self) -> str | None:
        """The server checks its own files."""
        return None

    def is_damage(self, error: DatabaseError) -> bool:
        """Damage of a server is mended by its administrator."""
        return False

    def damaged(self, reason: str) -> LoomError:
        """The error of a schema that is not an index."""
        return Refused(f"The index {self.shown} is damaged: {reason}. Restore the database from a backup of the server.")

    def back_up(self) -> None:
        """Backups are the server's."""

    def back_up_daily(self) -> None:
        """Backups are the server's."""

    def restore(self, reason: str) -> str:
        """Raises Refused: backups are the server's."""
        raise self.damaged(reason)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """No lock: nothing is restored here."""
        return contextlib.nullcontext()

    def explain(self, error: DatabaseError) -> LoomError:
        """The error for a person."""
        reason = " ".join(str(error.orig).split()).removesuffix(" Is the server running on that host and accepting TCP/IP connections?")
        return Refused(f"The index {self.shown} cannot be used: {reason}. Check that the server runs, and the URL in LORALOOM_INDEX.")


def _begin(connection: Connection) -> None:
    """One writer at a time, held to the end of its transaction; a reader's queries see one state."""
    if connection.get_execution_options().get("loom_writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('loraloom ' || current_schema()))")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
