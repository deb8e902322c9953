"""The index as a SQLite file: WAL, one writer at a time, created atomically; damage is distinguished from other errors."""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import sqlite3
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DatabaseError

from registry.errors import IndexDamaged, LoomError, Refused, WriteFailed
from registry.files.locks import held
from registry.index import backups

logger = logging.getLogger(__name__)
FULL, BROKEN, READ_ONLY = "database or disk is full", "disk I/O error", "readonly database"  # as SQLite words them
LEAST_FREE = 1 << 16  # bytes; below it the shared memory of WAL cannot be made, which SQLite calls an I/O error
SHARED_MEMORY = 1 << 15  # bytes of WAL's shared memory; a disk that was full when it was made leaves a smaller file
BUSY_SECONDS = 60  # how long a writer waits for another process
CACHE_KIB = 768  # of the file in memory, a connection: what is read again comes from the system's own cache


class SqliteFile:
    """An index in a file of its own, with backups beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)
        self._reading_copy: tempfile.TemporaryDirectory[str] | None = None
        self._checked_on = ""  # the day on which the daily backup was made or found

    def engine(self) -> Engine:
        """The engine; the file is made when it is not there. Raises Refused where that cannot be, IndexDamaged for an empty file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._make()
            elif self.path.stat().st_size == 0:  # SQLite takes it for a new one
                raise self.damaged("the file is empty")
        except OSError as error:
            raise Refused(
                f"The home {self.path.parent} cannot be made ({error.strerror}). Set LORALOOM_HOME to a folder that you can write to."
            ) from error
        self._reading_copy = None
        if self._cannot_be_written():
            return self._read_only_engine()
        engine = sqlalchemy.create_engine(URL.create("sqlite", database=str(self.path)), connect_args={"timeout": BUSY_SECONDS})
        sqlalchemy.event.listen(engine, "connect", _prepare)
        sqlalchemy.event.listen(engine, "begin", _begin)
        return engine

    def _read_only_engine(self) -> Engine:
        """The engine of a file that cannot be written. SQLite reads its journal only where it can write beside it: then a copy is read."""
        path = self.path
        journal = path.with_name(f"{path.name}-wal")
        if journal.exists() and journal.stat().st_size:
            self._reading_copy = tempfile.TemporaryDirectory(prefix="loraloom-index-")
            for file in (path, journal):
                shutil.copyfile(file, Path(self._reading_copy.name, file.name))
            path = Path(self._reading_copy.name, path.name)
        query = {"uri": "true", "mode": "ro"} | ({} if self._reading_copy else {"immutable": "1"})
        url = URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        sqlalchemy.event.listen(engine, "connect", _prepare_reading)
        sqlalchemy.event.listen(engine, "begin", self._begin_reading)
        return engine

    def _begin_reading(self, connection: Connection) -> None:
        if connection.get_execution_options().get("loom_writes"):
            raise self._unusable(sqlite3.OperationalError(READ_ONLY))
        connection.exec_driver_sql("BEGIN")

    def _cannot_be_written(self) -> bool:
        """Whether the file or its folder, where SQLite keeps a journal and shared memory, cannot be written by this process."""
        if not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)):
            return True
        try:
            shared = self.path.with_name(f"{self.path.name}-shm").stat().st_size
        except FileNotFoundError:
            shared = 0
        return self._free() < LEAST_FREE and shared < SHARED_MEMORY

    def _make(self) -> None:
        """An empty database, renamed to its final name: an index of 0 bytes is damaged, never unfinished."""
        temporary = self.path.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            with contextlib.closing(sqlite3.connect(temporary)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA user_version = 0")
            _put_if_free(temporary, self.path)
        except sqlite3.Error as error:
            raise self._unusable(error, "made") from error
        finally:
            for ending in ("", "-wal", "-shm"):
                temporary.with_name(temporary.name + ending).unlink(missing_ok=True)

    def version(self, connection: Connection) -> int:
        """The number of the last migration."""
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def put_version(self, connection: Connection, number: int) -> None:
        """Store the number of the last migration, in its transaction."""
        connection.exec_driver_sql(f"PRAGMA user_version = {number:d}")

    def columns(self, connection: Connection) -> set[tuple[str, str]]:
        """(table, column) of every column."""
        found = connection.exec_driver_sql(
            "SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'"
        )
        return {(str(table), str(column)) for table, column in found}

    def is_damage(self, error: DatabaseError) -> bool:
        """Whether the error means a damaged file, or a file that is not an index."""
        return backups.is_damage(error.orig)

    def explain(self, error: DatabaseError) -> LoomError:
        """The error for a person: a failed write names the path and the free space."""
        return self._unusable(error.orig)

    def _unusable(self, error: BaseException | None, verb: str = "used") -> LoomError:
        reason = str(error)
        if FULL in reason or ((BROKEN in reason or READ_ONLY in reason) and self._free() < LEAST_FREE):
            return self._not_written(errno.ENOSPC, f"the disk is full. {self._free():,} bytes are free there, the index {self._size()}")
        if BROKEN in reason:
            return self._not_written(errno.EIO, "the disk reports an input/output error")
        if READ_ONLY in reason:
            return self._not_written(errno.EROFS, "it is on a read-only disk, or permission is denied. It can be read")
        return Refused(f"The index {self.path} cannot be {verb}: {reason}. Check the folder's permissions and free space.")

    def _not_written(self, number: int, why: str) -> WriteFailed:
        advice = "Make room, or set" if number == errno.ENOSPC else "Set"
        message = f"The index {self.path} cannot be written: {why}. {advice} LORALOOM_HOME to a folder on another disk."
        return WriteFailed(message, reason=OSError(number, os.strerror(number)))

    def _free(self) -> int:
        return shutil.disk_usage(self.path.parent).free

    def _size(self) -> str:
        size = self.path.stat().st_size if self.path.exists() else 0
        return f"has {size:,} and needs room for a journal of that size beside it"

    # --- damage and backups

    def fault(self) -> str | None:
        """What is damaged in the file; None when it is sound. Raises Refused where it cannot be read."""
        try:
            return backups.fault(self.path)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def damaged(self, reason: str) -> LoomError:
        """The error of a damaged file, which names the command that restores it."""
        return IndexDamaged(self.path, reason, backups.damage_message(self.path, reason))

    def back_up(self) -> None:
        """Make a backup now. Raises Refused where it cannot be written, IndexDamaged where there is nothing sound to copy."""
        try:
            backups.back_up(self.path)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            if backups.is_damage(error):
                raise self.damaged(str(error)) from error
            raise Refused(
                f"No backup of the index {self.path} can be made: {error}. Check the folder's permissions and free space."
            ) from error

    def back_up_daily(self) -> None:
        """Make the day's backup, unless there is one or the index is empty. A backup that cannot be written is a warning only."""
        today = f"{datetime.now(UTC):%Y%m%d}"
        if self._checked_on == today:
            return
        self._checked_on = today
        if any(f".backup-{today}" in one.name for one in backups.backups_of(self.path)) or not backups.holds_anything(self.path):
            return
        try:
            self.back_up()
        except IndexDamaged:
            raise
        except Refused as error:
            logger.warning("%s", error)

    def restore(self, reason: str) -> str:
        """Put the newest sound backup in the place of the damaged file; gives what was done."""
        return backups.restore(self.path, reason)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Held by the one process that may restore a backup."""
        return held(self.path)


def _put_if_free(temporary: Path, path: Path) -> None:
    """Rename a file, unless another process was quicker."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(temporary, path)


def _prepare(connection: Any, _record: Any) -> None:
    """Configure a connection: explicit transactions, writers wait for each other."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _write_ahead(cursor)
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL a crash cannot damage the file
    cursor.close()


def _prepare_reading(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _write_ahead(cursor: Any) -> None:
    """Switch the file to WAL mode once. The switch does not wait for locks, so it is retried."""
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
