"""The index on the disk: SQLite in WAL mode, safe for several processes at once, brought up to date by numbered migrations."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Connection, Engine, MetaData, SmallInteger, Table, Text
from sqlalchemy.exc import DatabaseError, OperationalError

from registry.errors import Refused
from registry.migrations import migrations

BUSY_SECONDS = 60  # how long a writer waits for another process
TABLES = MetaData()

record = Table(
    "record",
    TABLES,
    Column("id", Text, primary_key=True),
    Column("kind", Text),
    Column("family", Text),
    Column("stem", Text),
    Column("data", Text),
    Column("created", Text),
)
location = Table(
    "location",
    TABLES,
    Column("path", Text, primary_key=True),
    Column("record_id", Text),
    Column("bytes", BigInteger),
    Column("device", Text),
    Column("inode", Text),
    Column("mtime_ns", BigInteger),
    Column("ctime_ns", BigInteger),
    Column("fingerprint", Text),
    Column("missing", SmallInteger),
    Column("turn", BigInteger),
)
content = Table(
    "content",
    TABLES,
    Column("record_id", Text, primary_key=True),
    Column("sha256", Text),
    Column("tensors_sha256", Text),
    Column("content_sha256", Text),
    Column("hashes", Text),
    Column("learned", Text),
)
file_hash = Table(
    "file_hash",
    TABLES,
    Column("device", Text, primary_key=True),
    Column("inode", Text, primary_key=True),
    Column("bytes", BigInteger, primary_key=True),
    Column("mtime_ns", BigInteger, primary_key=True),
    Column("ctime_ns", BigInteger, primary_key=True),
    Column("hashes", Text),
    Column("learned", Text),
)
given = Table(
    "given",
    TABLES,
    Column("record_id", Text, primary_key=True),
    Column("kind", Text),
    Column("family", Text),
    Column("licence", Text),
    Column("notes", Text),
    Column("parents", Text),
    Column("recipe", Text),
    Column("metadata", Text),
)
given_name = Table(
    "given_name",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("record_id", Text, primary_key=True),
    Column("shelf", Text),
    Column("current", SmallInteger),
    Column("turn", BigInteger),
)
alias = Table(
    "alias",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("record_id", Text),
)
label = Table(
    "label",
    TABLES,
    Column("record_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("value", Text, primary_key=True),
)
OF_A_RECORD = (location, content, given, given_name, alias, label)  # tables with a record_id


class Index:
    """An open index. Made and brought up to date at the first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: Engine | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the index."""
        with self._told(), self._open().connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that is the only writer until the block ends; everything in it is kept, or nothing."""
        with self._told(), self._open().connect().execution_options(loom_writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Let go of the file."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _open(self) -> Engine:
        if self._engine is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Refused(
                    f"The home {self.path.parent} cannot be made ({error.strerror}). Set LORALOOM_HOME to a folder of yours."
                ) from error
            engine = sqlalchemy.create_engine(f"sqlite:///{self.path}", connect_args={"timeout": BUSY_SECONDS})
            sqlalchemy.event.listen(engine, "connect", _prepare)
            sqlalchemy.event.listen(engine, "begin", _begin)
            _migrate(engine)
            self._engine = engine
        return self._engine

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The database's own errors, said for a person."""
        try:
            yield
        except OperationalError as error:
            reason = str(error.orig)
            raise Refused(f"The index {self.path} cannot be used: {reason}. Check the folder's permissions and free space.") from error
        except DatabaseError as error:
            if "malformed" in str(error.orig) or "not a database" in str(error.orig):
                raise Refused(
                    f"The index {self.path} is damaged ({error.orig}). Move it aside and scan your folders again; the models are untouched."
                ) from error
            raise


def _prepare(connection: Any, _record: Any) -> None:
    """A new SQLite connection: transactions are ours to begin, writers wait for each other."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL a crash cannot damage the file
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """WAL mode, once for the file. The switch does not wait for others by itself, so it is tried again."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            if cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
            return  # a file system without shared memory: the rollback journal is slower, and as safe
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("loom_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine) -> None:
    """Run the migrations this file has not seen; several processes may come here at once."""
    steps = migrations()
    with engine.connect() as connection, connection.begin():
        if _version(connection) == steps[-1][0]:
            return
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        version = _version(connection)
        if version > steps[-1][0]:
            raise Refused(f"The index {engine.url.database} was made by a newer LoRA Loom (format {version}). Update this one.")
        for number, step in steps:
            if number > version:
                step.up(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
