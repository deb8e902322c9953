"""The index: a SQLite file, or a PostgreSQL server for a team; safe for several processes at once, kept up to date by migrations."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import BigInteger, Column, Connection, Engine, MetaData, SmallInteger, Table, Text
from sqlalchemy.exc import DatabaseError, IntegrityError

from registry.errors import IndexRecovered, Refused
from registry.index.migrations import migrations
from registry.index.postgres import SCHEMES, PostgresServer
from registry.index.sqlite import SqliteFile

logger = logging.getLogger(__name__)
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
    Column("prediction", Text),
    Column("variant", Text),
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


class Database(Protocol):
    """What an index needs of the database it lies in."""

    shown: str
    recoverable: bool

    def engine(self) -> Engine: ...
    def version(self, connection: Connection) -> int: ...
    def put_version(self, connection: Connection, number: int) -> None: ...
    def columns(self, connection: Connection) -> set[tuple[str, str]]: ...
    def is_empty(self) -> bool: ...
    def is_damage(self, error: DatabaseError) -> bool: ...
    def explain(self, error: DatabaseError) -> str: ...


class Damaged(Exception):
    """The index cannot be read as one."""


class Index:
    """An open index: `place` is a file, or a URL. Made and brought up to date at the first use.

    A damaged file is kept aside, and what can be read of it goes into a new one: see registry/salvage.
    """

    def __init__(self, place: Path | str) -> None:
        self._database = database_of(place)
        self._engine: Engine | None = None

    @property
    def shown(self) -> str:
        """What people are told of where it lies."""
        return self._database.shown

    def is_there(self) -> bool:
        """Whether there is one; a server's is taken to be."""
        return not isinstance(self._database, SqliteFile) or self._database.path.exists()

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

    def recover(self, reason: str | None = None) -> str | None:
        """Make a damaged index anew; gives what was done, None when nothing was damaged. A server has its own means."""
        from registry.index.salvage import recover

        self.close()
        return recover(self._database, reason) if isinstance(self._database, SqliteFile) else None

    def _open(self) -> Engine:
        if self._engine is None:
            try:
                self._engine = open_index(self._database)
            except Damaged as error:
                logger.warning(self.recover(str(error)) or f"The index {self.shown} was damaged, and is whole again.")
                self._engine = open_index(self._database)
        return self._engine

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The database's own errors, said for a person."""
        try:
            yield
        except IntegrityError:  # a fault of ours, not of the index
            raise
        except DatabaseError as error:
            if self._database.is_damage(error):
                told = self.recover(str(error.orig)) or f"The index {self.shown} was damaged, and is whole again."
                raise IndexRecovered(f"{told} Run the command again.") from error
            raise Refused(self._database.explain(error)) from error


def database_of(place: Path | str) -> Database:
    """The database of a path or a URL. Raises Refused for a URL of another kind."""
    scheme, separator, rest = str(place).partition("://")
    if not separator or isinstance(place, Path):
        return SqliteFile(Path(place))
    if scheme == "sqlite":
        return SqliteFile(Path(rest.removeprefix("/")))
    if scheme in SCHEMES:
        return PostgresServer(str(place))
    raise Refused(
        f"LORALOOM_INDEX={scheme}://... is no index. Write postgresql://user:password@host/database, or the path of a SQLite file."
    )


def open_index(database: Database) -> Engine:
    """The engine of an index that is up to date. Raises Damaged, Refused for one of a newer LoRA Loom."""
    engine = database.engine()
    try:
        if database.is_empty():
            raise Damaged("the file is empty")
        _migrate(database, engine)
        with engine.connect() as connection, connection.begin():
            lacking = _COLUMNS - database.columns(connection)
        if lacking:
            raise Damaged(f"it lacks {', '.join(sorted(f'{table}.{column}' for table, column in lacking)[:3])}")
    except DatabaseError as error:
        engine.dispose()
        if database.is_damage(error):
            raise Damaged(str(error.orig)) from error
        raise Refused(database.explain(error)) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _migrate(database: Database, engine: Engine) -> None:
    """Run the migrations this index has not seen; several processes may come here at once."""
    steps = migrations()
    newest = steps[-1][0]
    with engine.connect() as connection, connection.begin():
        if database.version(connection) == newest:
            return
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        version = database.version(connection)
        if version > newest:
            raise Refused(
                f"The index {database.shown} was made by a newer LoRA Loom: it has format {version}, this one knows {newest}. "
                "Update this one; the index is as it was."
            )
        for number, step in steps:
            if number > version:
                step.up(connection)
                database.put_version(connection, number)


_COLUMNS = {(table.name, column.name) for table in TABLES.sorted_tables for column in table.columns}
