"""The index under several processes, kills and migrations."""

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
from sqlalchemy import text

from registry.errors import IndexDamaged, Refused
from registry.home import index_place
from registry.index.catalogue.selection import Selection
from registry.index.database import TABLES, database_of
from registry.index.migrations import migrations
from registry.store import Store
from tests.patience import PATIENCE
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


@pytest.mark.slow
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
    said = [process.communicate(timeout=PATIENCE)[1] for process in running]
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


@pytest.mark.slow
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
    assert not list((tmp_path / "home").glob("index.damaged-*"))


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
        facts = {"rank": 16, "licence": "mit", "warnings": [{"code": "pickle", "message": "It's one."}]}
        data = json.dumps({"name": "old", "kind": "adapter", "files": [{"path": "/m/old.safetensors", "bytes": 7}], **facts})
        row = {"id": "a1", "kind": "adapter", "stem": "old", "data": data, "created": "2026-01-01T00:00:00Z"}
        connection.execute(text("INSERT INTO record (id, kind, stem, data, created) VALUES (:id, :kind, :stem, :data, :created)"), row)
        connection.exec_driver_sql("INSERT INTO given (record_id, notes, family) VALUES ('a1', 'kept', 'sdxl')")
        connection.exec_driver_sql("INSERT INTO label VALUES ('a1', 'tag', 'good')")
    engine.dispose()
    record = store.find("old")
    assert (record.notes, record.family, record.tags) == ("kept", "sdxl", ("good",))
    with store.browse(Selection(rank="16", licence="mit", warning="pickle"), sort="size") as found:
        assert [one.id for one in found.part(0, 9)] == ["a1"] and found.facets["warning"] == {"missing": 1, "pickle": 1}
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


def test_a_locked_index_and_one_that_cannot_be_read_are_refused_and_not_called_damaged(tmp_path: Path) -> None:
    Store(tmp_path).records()
    (tmp_path / "index.sqlite-wal").unlink(missing_ok=True)
    (tmp_path / "index.sqlite").unlink()
    (tmp_path / "index.sqlite").mkdir()
    with pytest.raises(Refused, match=r"cannot be used.*permissions") as caught:
        Store(tmp_path).records()
    assert not isinstance(caught.value, IndexDamaged)
