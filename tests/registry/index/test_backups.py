"""Backups of the index, every kind of damage, and what `registry rebuild` restores."""

import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.errors import IndexDamaged, Refused
from registry.index import backups
from registry.index.migrations import migrations
from registry.index.sqlite import SqliteFile
from registry.store import Store
from tests.patience import PATIENCE
from tests.registry.made import lora, sd1_attention

PAGE = 4096


def filled(home: Path) -> Path:
    """An index with an adapter and datasets that have names, tags, notes and an alias, and a backup of it; gives the index file."""
    store = Store(home)
    lora(home / "m" / "a.safetensors", sd1_attention(blocks=(0,)))
    store.add(home / "m" / "a.safetensors", name="ink", tags=["black", "line"], notes="kept")
    store.alias("ink", "best")
    store.override("ink", variant="special")
    for number in range(12):
        (home / f"set-{number}").mkdir()
        store.add_dataset(home / f"set-{number}", name=f"set-{number}", sha256=f"{number:064d}", metadata={"text": "x" * 900})
        store.note(f"set-{number}", f"note {number}")
    store.close()
    with contextlib.closing(sqlite3.connect(home / "index.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backups.back_up(home / "index.sqlite")
    return home / "index.sqlite"


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as raw:
        raw.seek(offset)
        raw.write(data)


def page_of(file: Path, name: str) -> int:
    """The number of the root page of a table or an index, from 0."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]) - 1


def foreign(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE record (song TEXT)")
        connection.commit()


def drop_table(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE record")
        connection.commit()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the first page zeroed": lambda file: overwrite(file, 0, bytes(PAGE)),
    "the first 16 bytes lost": lambda file: overwrite(file, 0, b"\x5a" * 16),
    "cut to two thirds": lambda file: os.truncate(file, file.stat().st_size * 2 // 3),
    "cut to nothing": lambda file: os.truncate(file, 0),
    "no database": lambda file: file.write_bytes(b"no database at all" * 400),
    "a page of a table": lambda file: overwrite(file, page_of(file, "content") * PAGE, b"\xff" * PAGE),
    "a page of an index": lambda file: overwrite(file, page_of(file, "location_record") * PAGE, b"\xff" * PAGE),
    "JSON that is none": lambda file: file.write_bytes(file.read_bytes().replace(b'{"text": "xx', b'{"text"? "xx')),
    "another program's database": foreign,
    "a table lost": drop_table,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_names_the_rebuild_and_the_rebuild_restores_the_backup(tmp_path: Path, pocket: Path, damage: str) -> None:
    file = filled(tmp_path)
    DAMAGES[damage](file)
    broken = file.read_bytes()
    store = Store(tmp_path)
    with pytest.raises(IndexDamaged, match=r"is damaged.*loraloom registry rebuild.*made .* ago"):
        store.records()
    done = store.rebuild()
    assert done.recovered is not None and re.search(
        r"was damaged.*kept as index\.damaged-.*The backup index\.backup-.* ago", done.recovered
    )
    (kept,) = tmp_path.glob("index.damaged-*.sqlite")
    assert kept.name in str(done.recovered) and kept.read_bytes()[100:] == broken[100:]  # SQLite notes in the header that it opened it
    ink = store.find("ink@best")
    assert (ink.tags, ink.notes, ink.variant, bool(ink.hashes.sha256)) == (("black", "line"), "kept", "special", True)
    assert {record.name: record.notes for record in store.records(kind="dataset")} == {f"set-{n}": f"note {n}" for n in range(12)}
    assert store.rebuild().recovered is None and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.slow
def test_garbage_anywhere_in_the_file_is_refused_or_read_and_never_a_traceback(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    whole, draw = file.read_bytes(), random.Random(7)
    refused: list[str] = []
    for offset in range(0, len(whole), PAGE // 2):
        file.write_bytes(whole)
        overwrite(file, offset, draw.randbytes(PAGE // 4))
        store = Store(tmp_path)
        try:
            store.records()
            store.search(["ink"])
            store.tag("pocket", ["seen"])
        except IndexDamaged as error:
            refused.append(str(error))
        finally:
            store.close()
            for ending in ("-wal", "-shm"):
                file.with_name(file.name + ending).unlink(missing_ok=True)
    assert len(refused) > len(whole) // PAGE // 2 and all("loraloom registry rebuild" in message for message in refused)


def test_garbage_that_sqlite_quotes_in_its_message_is_damage(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET name = CAST(x'ff80fe' AS TEXT), sql = 'garbage' WHERE name = 'record'")
        connection.commit()
    assert "decode" in str(backups.fault(file)) and backups.holds_anything(file)
    store = Store(tmp_path)
    with pytest.raises(IndexDamaged, match="loraloom registry rebuild"):
        store.records()
    assert store.rebuild().recovered is not None and store.find("ink@best").notes == "kept"


def test_after_a_rebuild_a_scan_gives_each_file_one_row_and_keeps_what_the_backup_had(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    store = Store(tmp_path)
    lora(tmp_path / "m" / "b.safetensors", sd1_attention(blocks=(1,)))
    store.add(tmp_path / "m" / "b.safetensors", name="later", tags=["lost"])
    (tmp_path / "m" / "a.safetensors").rename(tmp_path / "m" / "moved.safetensors")
    store.close()
    overwrite(file, 0, bytes(PAGE))
    store.rebuild()
    store.scan(tmp_path / "m")
    found = {record.path: record for record in store.records(kind="adapter")}
    assert sorted(Path(str(path)).name for path in found) == ["b.safetensors", "moved.safetensors"]
    assert store.find("ink").path == str(tmp_path / "m" / "moved.safetensors") and store.find("b").tags == ()


def test_a_rebuild_without_a_backup_says_what_is_lost(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    for backup in backups.backups_of(file):
        backup.unlink()
    overwrite(file, 0, bytes(PAGE))
    with pytest.raises(IndexDamaged, match="there is none yet"):
        Store(tmp_path).records()
    store = Store(tmp_path)
    done = store.rebuild()
    assert done.recovered is not None and "no sound backup" in done.recovered
    assert [record.name for record in store.records()] == ["pocket"]


def test_a_damaged_backup_is_passed_over_for_an_older_one(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    (newest,) = backups.backups_of(file)
    older = file.with_name("index.backup-20200101-000000.sqlite")
    older.write_bytes(newest.read_bytes())
    overwrite(newest, PAGE, b"\xff" * PAGE)
    overwrite(file, 0, bytes(PAGE))
    done = Store(tmp_path).rebuild()
    assert done.recovered is not None and older.name in done.recovered and "days ago" in done.recovered


def test_a_backup_is_made_once_a_day_and_five_are_kept(tmp_path: Path, pocket: Path) -> None:
    first = Store(tmp_path)
    first.tag("pocket", ["one"])
    assert backups.backups_of(tmp_path / "index.sqlite") == []  # there was nothing to keep before this write
    for days in range(1, 8):
        made = datetime.now(UTC) - timedelta(days=days)
        (tmp_path / f"index.backup-{made:%Y%m%d-%H%M%S}.sqlite").write_bytes(b"")
    Store(tmp_path).tag("pocket", ["two"])
    Store(tmp_path).tag("pocket", ["three"])
    made_now, *rest = backups.backups_of(tmp_path / "index.sqlite")
    assert len(rest) == backups.KEPT - 1 and made_now.stat().st_size > 0 and all(one.stat().st_size == 0 for one in rest)
    with contextlib.closing(sqlite3.connect(made_now)) as connection:
        assert connection.execute("SELECT value FROM label").fetchall() == [("one",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_backup_is_made_before_a_migration(tmp_path: Path, pocket: Path) -> None:
    database = SqliteFile(tmp_path / "index.sqlite")
    number, first = migrations()[0]
    engine = database.engine()
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        first.up(connection)
        database.put_version(connection, number)
        connection.exec_driver_sql("INSERT INTO label VALUES ('pocket', 'tag', 'good')")
    engine.dispose()
    assert Store(tmp_path).find("pocket").tags == ("good",)
    (backup,) = backups.backups_of(database.path)
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (number,)
        assert copy.execute("SELECT value FROM label").fetchall() == [("good",)]


def test_a_damaged_index_is_no_backup(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    (sound,) = backups.backups_of(file)
    overwrite(file, page_of(file, "location_record") * PAGE, b"\xff" * PAGE)
    with pytest.raises(IndexDamaged):
        backups.back_up(file)
    assert backups.backups_of(file) == [sound] and not list(tmp_path.glob(".tmp-*"))


def test_a_daily_backup_that_cannot_be_written_is_a_warning(
    tmp_path: Path, pocket: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Store(tmp_path).tag("pocket", ["one"])

    def full(path: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "back_up", full)
    assert Store(tmp_path).tag("pocket", ["two"]).tags == ("one", "two")
    assert "No space left" in caplog.text
    with pytest.raises(Refused, match="No space left"):
        SqliteFile(tmp_path / "index.sqlite").back_up()


REBUILD = """
import sys
from pathlib import Path
from registry.store import Store
print(Store(Path(sys.argv[1])).rebuild().recovered)
"""


@pytest.mark.slow
def test_of_processes_that_rebuild_at_once_one_restores(tmp_path: Path, pocket: Path) -> None:
    file = filled(tmp_path)
    overwrite(file, 0, bytes(PAGE))
    running = [subprocess.Popen([sys.executable, "-c", REBUILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=PATIENCE)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0] * 3 and said.count("None") == 2
    assert len(list(tmp_path.glob("index.damaged-*.sqlite"))) == 1 and Store(tmp_path).find("ink").tags == ("black", "line")
