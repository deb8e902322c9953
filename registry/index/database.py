"""The index: a SQLite file, or a PostgreSQL server for a team. Safe for concurrent processes; the schema is migrated on opening."""

import contextlib
import errno
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import BigInteger, Column, Connection, Engine, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy.exc import DatabaseError, IntegrityError

from registry.errors import IndexDamaged, LoomError, Refused, WriteFailed
from registry.index.migrations import migrations
from registry.index.postgres import SCHEMES, PostgresServer
from registry.index.sqlite import SqliteFile

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
    Column("rank", Integer),
    Column("licence", Text),
    Column("codes", Text),
    Column("bytes", BigInteger),
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
    Column("image", Text),
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
    """The database that holds an index."""

    shown: str

    def engine(self) -> Engine: ...
    def version(self, connection: Connection) -> int: ...
    def put_version(self, connection: Connection, number: int) -> None: ...
    def columns(self, connection: Connection) -> set[tuple[str, str]]: ...
    def fault(self) -> str | None: ...
    def is_damage(self, error: DatabaseError) -> bool: ...
    def damaged(self, reason: str) -> LoomError: ...
    def explain(self, error: DatabaseError) -> LoomError: ...
    def back_up(self) -> None: ...
    def back_up_daily(self) -> None: ...
    def restore(self, reason: str) -> str: ...
    def alone(self) -> contextlib.AbstractContextManager[None]: ...


class Index:
    """An open index: `place` is a file, or a URL. Created and migrated at the first use.

    A damaged file raises IndexDamaged until `restore` puts its last backup in its place.
    """

    def __init__(self, place: Path | str, *, read_only: bool = False) -> None:
        self._database = database_of(place)
        self._read_only = read_only
        self._engine: Engine | None = None

    @property
    def shown(self) -> str:
        """Its path or URL, without a password."""
        return self._database.shown

    def is_there(self) -> bool:
        """Whether the index exists; a server's index is assumed to."""
        return not isinstance(self._database, SqliteFile) or self._database.path.exists()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction: sees one state of the index."""
        with self._explained(), self._open().connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction: the only writer until the block ends, committed as a whole or not at all. Raises WriteFailed."""
        if self._read_only:
            message = f"The index {self.shown} is opened for reading alone: nothing in it is changed."
            raise WriteFailed(message, reason=OSError(errno.EROFS, os.strerror(errno.EROFS)))
        with self._explained(), self._open().connect().execution_options(loom_writes=True) as connection, connection.begin():
            self._database.back_up_daily()  # the state before this write
            yield connection

    def close(self) -> None:
        """Close the file."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def restore(self) -> str | None:
        """Put the last sound backup in the place of a damaged index; gives what was done, None when nothing was damaged."""
        self.close()
        if not self.is_there():
            return None
        with self._database.alone():
            try:
                self._open()
                reason = self._database.fault()
            except IndexDamaged as error:
                reason = error.reason
            self.close()
            return None if reason is None else self._database.restore(reason)

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine = open_index(self._database)
            weakref.finalize(self, self._engine.dispose)  # at the latest when the process ends: SQLite puts its log into the file then
        return self._engine

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises errors of the database as LoomErrors. An exception that a damaged value caused is reported as damage."""
        try:
            yield
        except LoomError:
            raise
        except (IntegrityError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = self._database.fault()
            if reason is None:
                raise
            raise self._database.damaged(reason) from error
        except DatabaseError as error:
            if self._database.is_damage(error):
                raise self._database.damaged(str(error.orig)) from error
            raise self._database.explain(error) from error


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
    """The engine of a migrated index. Raises IndexDamaged, Refused for one of a newer LoRA Loom."""
    engine = database.engine()
    try:
        _migrate(database, engine)
        with engine.connect() as connection, connection.begin():
            lacking = _COLUMNS - database.columns(connection)
        if lacking:
            raise database.damaged(f"it lacks {', '.join(sorted(f'{table}.{column}' for table, column in lacking)[:3])}")
    except DatabaseError as error:
        engine.dispose()
        if database.is_damage(error):
            raise database.damaged(str(error.orig)) from error
        raise database.explain(error) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes garbage
        engine.dispose()
        raise database.damaged(str(error)) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


ABSURD = 1 << 16  # no index ever has a format of that number


def _migrate(database: Database, engine: Engine) -> None:
    """Run the missing migrations; several processes may do so at once."""
    steps = migrations()
    newest = steps[-1][0]
    with engine.connect() as connection, connection.begin():
        if database.version(connection) == newest:
            return
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        version = database.version(connection)
        if not 0 <= version < ABSURD:
            raise database.damaged(f"its format has the number {version}")
        if version > newest:
            raise Refused(
                f"The index {database.shown} was made by a newer LoRA Loom: it has format {version}, this one knows {newest}. "
                "Update this one; the index is as it was."
            )
        if 0 < version < newest:
            database.back_up()
        for number, step in steps:
            if number > version:
                step.up(connection)
                database.put_version(connection, number)


_COLUMNS = {(table.name, column.name) for table in TABLES.sorted_tables for column in table.columns}
