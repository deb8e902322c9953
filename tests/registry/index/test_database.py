"""The index under several processes, kills and damage."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry.errors import JobFailed, Refused
from registry.home import index_place
from registry.index.database import TABLES, database_of
from registry.index.migrations import migrations
from registry.store import Store
from tests.registry.made import lora, sd1_attention

ADDER = """
import sys
from pathlib import Path
from registry.store import Store
home, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
store = Store(home)
for path in sorted(folder.glob(f"{number}-*.safetensors")):
    store.add(path, name=path.stem, tags=[f"by {number}"])
store.add(folder / "shared.safetensors", name="shared")
store.scan(folder)
print(len(store.records()))
"""


def test_eight_processes_add_and_scan_at_once_and_no_row_is_lost(tmp_path: Path, pocket: Path, database: str) -> None:
    folder = tmp_path / "models"
    for number in range(8):
        for one in range(3):
            lora(folder / f"{number}-{one}.safetensors", sd1_attention(blocks=(0,)), seed=f"{number} {one}")
    lora(folder / "shared.safetensors", sd1_attention(), seed="shared")
    command = [sys.executable, "-c", ADDER, str(tmp_path / "home"), str(folder)]
    running = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for number in range(8)
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, said
    store = Store(tmp_path / "home")
    adapters = store.records(kind="adapter")
    assert sorted(record.name for record in adapters) == sorted([*(f"{n}-{i}" for n in range(8) for i in range(3)), "shared"])
    assert all(record.tags == (f"by {record.name[0]}",) for record in adapters if record.name != "shared")
    assert all(record.hashes.sha256 for record in adapters)


KILLED = """
import sys
from pathlib import Path
from registry.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    for path in sorted(Path(sys.argv[2]).glob("*.safetensors")):
        number += 1
        store.add(path, name=f"n{number}", tags=["t"])
    store.scan(sys.argv[2])
"""


def test_a_kill_during_an_add_leaves_an_index_that_opens(tmp_path: Path, pocket: Path, database: str) -> None:
    folder = tmp_path / "models"
    for one in range(3):
        lora(folder / f"{one}.safetensors", sd1_attention(blocks=(0,)), seed=str(one))
    for delay in (0.0, 0.03, 0.11):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "home"), str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = Store(tmp_path / "home")
    for record in store.records(kind="adapter"):
        assert record.tags == ("t",) and record.hashes.sha256 and record.path and os.path.exists(record.path)
    store.add(folder / "0.safetensors", name="after")
    if database == "sqlite":
        with contextlib.closing(sqlite3.connect(tmp_path / "home" / "index.sqlite")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not _kept_aside(tmp_path / "home")


def test_the_journal_is_ahead_and_the_format_is_numbered(tmp_path: Path) -> None:
    Store(tmp_path).records()
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (migrations()[-1][0],)


def test_an_index_of_the_first_format_is_brought_to_the_newest(store: Store, tmp_path: Path) -> None:
    database = database_of(index_place(store.home))
    first_number, first = migrations()[0]
    engine = database.engine()
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        first.up(connection)
        database.put_version(connection, first_number)
        data = json.dumps({"name": "old", "kind": "adapter", "files": [{"path": "/m/old.safetensors", "bytes": 7}]})
        rows = ("('a1', 'adapter', NULL, 'old', '" + data + "', '2026-01-01T00:00:00Z')",)
        connection.exec_driver_sql("INSERT INTO record VALUES " + rows[0])
        connection.exec_driver_sql("INSERT INTO given (record_id, notes, family) VALUES ('a1', 'kept', 'sdxl')")
        connection.exec_driver_sql("INSERT INTO label VALUES ('a1', 'tag', 'good')")
    engine.dispose()
    record = store.find("old")
    assert (record.notes, record.family, record.tags) == ("kept", "sdxl", ("good",))
    with database.engine().connect() as connection:
        assert database.version(connection) == migrations()[-1][0]
        assert {(table.name, column.name) for table in TABLES.tables.values() for column in table.columns} <= database.columns(connection)


def test_an_index_of_a_newer_format_is_refused_and_left_as_it_is(store: Store) -> None:
    store.records()
    store.close()
    database = database_of(index_place(store.home))
    engine = database.engine()
    with engine.connect().execution_options(loom_writes=True) as connection, connection.begin():
        database.put_version(connection, 999)
    with pytest.raises(Refused, match=r"newer.*999"):
        Store(store.home).records()
    with engine.connect() as connection:
        assert database.version(connection) == 999
    engine.dispose()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="LORALOOM_HOME"):
        Store(tmp_path / "file" / "home").records()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("mysql://host/db", "mysql"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"postgresql\+psycopg://user:\*\*\*@127.0.0.1:1/db cannot be used"),
        ("postgresql://user:secret@:port/db", "no URL"),
    ],
)
def test_an_index_that_cannot_be_reached_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, expected: str) -> None:
    monkeypatch.setenv("LORALOOM_INDEX", place)
    with pytest.raises(Refused, match=expected) as caught:
        Store(tmp_path).records()
    assert "secret" not in str(caught.value)


def test_the_index_may_be_any_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pocket: Path) -> None:
    monkeypatch.setenv("LORALOOM_INDEX", str(tmp_path / "else" / "my index.db"))
    Store(tmp_path / "home").tag("pocket", ["seen"])
    assert (tmp_path / "else" / "my index.db").is_file() and not (tmp_path / "home").exists()


# --- damage


def _filled(home: Path, count: int = 60) -> Store:
    """A store with records of which something was said."""
    store = Store(home)
    path = home / "m" / "a.safetensors"
    lora(path, sd1_attention(blocks=(0,)))
    store.add(path, name="ink", tags=["black", "line"], notes="kept through damage", triggers=["inkstyle"])
    store.alias("ink", "best")
    for number in range(count):
        (home / f"set-{number}").mkdir()
        store.add_dataset(home / f"set-{number}", name=f"set-{number}", sha256=f"{number:064d}", metadata={"text": "x" * 500})
        store.note(f"set-{number}", f"note {number}")
    store.close()
    with contextlib.closing(sqlite3.connect(home / "index.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


def _kept_aside(home: Path) -> list[Path]:
    return sorted(home.glob("index.damaged-*.sqlite"))


@pytest.mark.parametrize("damage", ["garbage", "empty"])
def test_an_unreadable_index_is_said_kept_aside_and_made_anew(
    tmp_path: Path, pocket: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    _filled(tmp_path, 2)
    file = tmp_path / "index.sqlite"
    broken = {"garbage": b"no database at all" * 400, "empty": b""}[damage]
    file.write_bytes(broken)
    store = Store(tmp_path)
    assert [record.name for record in store.records()] == ["pocket"]
    (kept,) = _kept_aside(tmp_path)
    assert kept.read_bytes() == broken and "damaged" in caplog.text and kept.name in caplog.text
    store.scan(tmp_path / "m")
    assert store.find("a").kind == "adapter" and _kept_aside(tmp_path) == [kept]


@pytest.mark.parametrize("lost", [16, 100, 4096])
def test_an_index_that_lost_its_beginning_keeps_the_rest(tmp_path: Path, pocket: Path, lost: int) -> None:
    _filled(tmp_path, 30)
    with (tmp_path / "index.sqlite").open("r+b") as raw:
        raw.write(b"\x5a" * lost)
    store = Store(tmp_path)
    assert store.find("ink@best").tags == ("black", "line") and store.find("ink").hashes.sha256
    assert {record.name: record.notes for record in store.records()}["set-29"] == "note 29" and len(store.records()) == 32
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_can_be_read_of_a_cut_index_is_kept(tmp_path: Path, pocket: Path, caplog: pytest.LogCaptureFixture) -> None:
    _filled(tmp_path)
    file = tmp_path / "index.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3 // 4096 * 4096])
    store = Store(tmp_path)
    with contextlib.suppress(JobFailed):
        store.records()
    found = {record.name: record for record in store.records()}
    assert store.find("ink@best").notes == "kept through damage" and store.find("ink@best").tags == ("black", "line")
    notes = {name: record.notes for name, record in found.items() if name.startswith("set-") and record.notes}
    assert len(notes) > 20 and all(note == f"note {name[4:]}" for name, note in notes.items())
    assert "could not" in caplog.text and len(_kept_aside(tmp_path)) == 1
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_page_of_garbage_met_later_is_reported_and_the_next_command_works(tmp_path: Path, pocket: Path) -> None:
    _filled(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'location_fingerprint'").fetchone()
        (data_page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'content'").fetchone()
    for number in (page, data_page):
        with (tmp_path / "index.sqlite").open("r+b") as raw:
            raw.seek((number - 1) * 4096)
            raw.write(b"\xff" * 4096)
    with pytest.raises(JobFailed, match=r"damaged.*Run the command again"):
        Store(tmp_path).records()
    again = Store(tmp_path)
    assert len(again.records()) == 62 and again.find("ink").tags == ("black", "line")
    assert again.find("ink").hashes.sha256 is None  # it stood on the damaged page
    assert again.scan(tmp_path / "m", hash=True).records()[0].hashes.sha256


def test_a_database_of_something_else_is_kept_aside(tmp_path: Path, pocket: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        connection.execute("CREATE TABLE record (song TEXT)")
        connection.commit()
    assert [record.name for record in Store(tmp_path).records()] == ["pocket"]
    with contextlib.closing(sqlite3.connect(_kept_aside(tmp_path)[0])) as connection:
        assert connection.execute("SELECT count(*) FROM record").fetchone() == (0,)


def test_an_index_that_lost_a_table_keeps_the_others(tmp_path: Path, pocket: Path) -> None:
    _filled(tmp_path, 3)
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        connection.execute("DROP TABLE record")
        connection.commit()
    store = Store(tmp_path)
    assert store.find("ink").tags == ("black", "line") and store.find("ink").kind == "adapter"  # its file was inspected again
    assert store.find("set-1").notes == "note 1"


TAGGER = """
import sys
from pathlib import Path
from registry.store import Store
Store(Path(sys.argv[1])).tag("pocket", [sys.argv[2]])
"""


def test_processes_that_meet_a_damaged_index_make_one_new(tmp_path: Path, pocket: Path) -> None:
    _filled(tmp_path, 1)
    (tmp_path / "index.sqlite").write_bytes(b"garbage" * 999)
    command = [sys.executable, "-c", TAGGER]
    running = [subprocess.Popen([*command, str(tmp_path), f"t{number}"], stderr=subprocess.PIPE, text=True) for number in range(4)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert Store(tmp_path).find("pocket").tags == tuple(f"t{number}" for number in range(4))
    assert len(_kept_aside(tmp_path)) == 1
