"""After damage of every kind, a rebuild and a scan: each file has one row, and notes and tags are those of the backup."""

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from registry.errors import IndexDamaged
from registry.index import backups
from registry.store import Store
from tests.registry.made import lora, sd1_attention

FILES = 12
STATEMENTS = {
    "rows": "DROP TABLE location",
    "text": "UPDATE location SET fingerprint = CAST(x'ff80fe' AS TEXT) WHERE path = (SELECT max(path) FROM location)",
    "json": "UPDATE record SET data = '{half'",
    "blob": "UPDATE record SET stem = x'00ff'",
}
FORMS = {  # JSON that can be read, of another form
    "list": "UPDATE record SET data = '[]'",
    "key": """UPDATE record SET data = replace(data, '"bytes"', '"bytez"')""",
    "files": """UPDATE record SET data = replace(data, '"files": [', '"files": [3, ')""",
    "rank": """UPDATE record SET data = replace(data, '"rank": ', '"rank": "x", "y": ')""",
    "root": """UPDATE record SET data = replace(data, '"metadata": {', '"metadata": {"root": 5')""",
    "hashes": """UPDATE content SET hashes = replace(hashes, 'sha256', 'sha25x')""",
    "learned": "UPDATE content SET learned = '[]'",
    "given": "UPDATE given SET parents = '5'",
}
# In a process of its own: SQLite's locks and its view of a file belong to the process.
DAMAGE = """
import random, sqlite3, sys
path, kind, seed, statement = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
chance = random.Random(seed)
connection = sqlite3.connect(path)
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.close()
if statement:
    connection = sqlite3.connect(path)
    assert connection.execute(statement).rowcount != 0
    connection.commit()
    connection.close()
else:
    data = bytearray(open(path, "rb").read())
    if kind == "cut":
        del data[chance.randrange(1, len(data)):]
    elif kind == "empty":
        data.clear()
    elif kind == "header":
        data[:100] = bytes(100)
    elif kind == "page":
        at = 4096 * chance.randrange(len(data) // 4096)
        data[at:at + 4096] = chance.randbytes(4096)
    elif kind == "zeros":
        at = 4096 * chance.randrange(len(data) // 4096)
        data[at:at + 4096] = bytes(4096)
    with open(path, "wb") as file:
        file.write(data)
"""
KINDS = [(kind, 0) for kind in (*STATEMENTS, *FORMS, "empty", "header")]
KINDS += [(kind, seed) for kind in ("cut", "page", "zeros") for seed in range(3)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with adapters, and home/ with an index of them that has tags, notes, an alias, and its day's backup."""
    folder = tmp_path_factory.mktemp("damage")
    for number in range(FILES):
        modules = sd1_attention(128, channels=48, blocks=(0,))
        lora(folder / "models" / f"m{number:02d}.safetensors", modules, rank=number + 1, metadata={})
    store = Store(folder / "home")
    store.scan(folder / "models")
    store.tag("m03", ["line"])
    store.note("m03", "kept")
    store.alias("m03", "best")
    store.close()
    backups.back_up(folder / "home" / "index.sqlite")
    return folder


def damaged(shelf: Path, tmp_path: Path, kind: str, seed: int) -> Store:
    """A copy of the home whose index was damaged in another process."""
    shutil.copytree(shelf / "home", tmp_path / "home")
    command = [
        sys.executable,
        "-c",
        DAMAGE,
        str(tmp_path / "home" / "index.sqlite"),
        kind,
        str(seed),
        {**STATEMENTS, **FORMS}.get(kind, ""),
    ]
    subprocess.run(command, check=True)
    return Store(tmp_path / "home")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), KINDS)
@pytest.mark.parametrize("later", [False, True])
def test_each_file_has_one_row_with_its_notes(kind: str, seed: int, later: bool, shelf: Path, tmp_path: Path, pocket: Path) -> None:
    """`later`: a scan between the damage and the rebuild, and files that the backup does not know."""
    store = damaged(shelf, tmp_path, kind, seed)
    if later:
        with contextlib.suppress(IndexDamaged):  # a page of free space is no damage
            store.scan(shelf / "models")
    with contextlib.suppress(IndexDamaged):
        store.records()
    store.rebuild()
    store.scan(shelf / "models")
    store.scan(shelf / "models", hash=True)
    found = [record for record in store.records() if record.name != "pocket"]
    assert Counter(record.path for record in found) == dict.fromkeys([str(path) for path in (shelf / "models").iterdir()], 1)
    assert all(store.find(record.name).id == record.id for record in found)
    assert (store.find("m03@best").tags, store.find("m03").notes) == (("line",), "kept")
    store.close()


def test_without_a_backup_a_scan_gives_each_file_one_row(shelf: Path, tmp_path: Path, pocket: Path) -> None:
    store = damaged(shelf, tmp_path, "header", 0)
    for backup in (tmp_path / "home").glob("index.backup-*"):
        backup.unlink()
    with pytest.raises(IndexDamaged, match=r"registry rebuild.*of which there is none yet"):
        store.records()
    assert "names, tags, notes and aliases are lost" in str(store.rebuild().recovered)
    store.scan(shelf / "models")
    store.scan(shelf / "models")
    assert len([record for record in store.records() if record.name != "pocket"]) == FILES
    store.close()


@pytest.mark.parametrize("form", FORMS)
def test_json_of_another_form_is_damage(form: str, shelf: Path, tmp_path: Path, pocket: Path) -> None:
    """A bit of a text that is changed leaves the file whole to SQLite, and to JSON."""
    store = damaged(shelf, tmp_path, form, 0)
    with contextlib.suppress(IndexDamaged):  # not each value is read by a listing
        store.records()
    assert "holds garbage" in str(store.rebuild().recovered)
    store.close()


def test_a_backup_that_cannot_be_read_is_passed_over(shelf: Path, tmp_path: Path, pocket: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = damaged(shelf, tmp_path, "header", 0)
    for stamp in ("20991231-235958", "20991231-235959"):  # newer ones: a folder, and a file without tables
        backup = tmp_path / "home" / f"index.backup-{stamp}.sqlite"
        backup.mkdir() if stamp.endswith("9") else backup.touch()
    store.rebuild()
    assert store.find("m03").notes == "kept" and len(caplog.messages) == 2
    store.close()


def test_a_row_that_is_there_twice_is_damage_only_where_the_file_is_damaged(shelf: Path, tmp_path: Path, pocket: Path) -> None:
    """A damaged B-tree does not find the row that is to be replaced."""
    twice = "INSERT INTO location SELECT * FROM location"
    (tmp_path / "sound").mkdir()
    for folder, kind, error in ((tmp_path / "sound", "", IntegrityError), (tmp_path, "given", IndexDamaged)):
        store = damaged(shelf, folder, kind, 0) if kind else Store(shutil.copytree(shelf / "home", folder / "home"))
        with pytest.raises(error), store._index.writing() as connection:
            connection.exec_driver_sql(twice)
        store.close()
