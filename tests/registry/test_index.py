"""The index under several processes, kills and damage."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry.errors import Refused
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


def test_eight_processes_add_and_scan_at_once_and_no_row_is_lost(tmp_path: Path, pocket: Path) -> None:
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
"""


def test_a_kill_during_an_add_leaves_an_index_that_opens(tmp_path: Path, pocket: Path) -> None:
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
    with sqlite3.connect(tmp_path / "home" / "index.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_journal_is_ahead_and_the_format_is_numbered(store: Store) -> None:
    store.records()
    with sqlite3.connect(store.home / "index.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone()[0] >= 1


def test_a_damaged_index_is_said_and_kept(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(Refused, match="damaged"):
        Store(tmp_path).records()
    assert (tmp_path / "index.sqlite").read_bytes().startswith(b"no database")


def test_an_index_of_a_newer_format_is_refused(store: Store) -> None:
    store.records()
    store.close()
    with sqlite3.connect(store.home / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(Refused, match="newer"):
        Store(store.home).records()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="LORALOOM_HOME"):
        Store(tmp_path / "file" / "home").records()
