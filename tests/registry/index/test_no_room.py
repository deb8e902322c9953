"""An index on a disk that is read-only or full: it is read, and a write is an error with its path."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from registry.errors import WriteFailed
from registry.store import Store
from tests.disks import fill, small_disk
from tests.registry.made import lora, sd1_attention


def elsewhere(home: Path) -> Path:
    """A model on a disk that can be written."""
    return home.parent.parent / "hat.safetensors"


def filled(home: Path) -> Store:
    store = Store(home)
    lora(elsewhere(home), sd1_attention(128, channels=48, blocks=(0,)), seed="hat")
    store.add(elsewhere(home), name="hat")
    lora(home / "m" / "ink.safetensors", sd1_attention(128, channels=48, blocks=(0,)))
    store.add(home / "m" / "ink.safetensors", tags=["line"], notes="kept")
    return store


def check(home: Path, number: int, message: str) -> None:
    store = Store(home)
    ink = store.find("ink")
    assert (ink.tags, ink.notes) == (("line",), "kept") and [record.name for record in store.search(["line"])] == ["ink"]
    assert store.sha256(ink) == ink.hashes.sha256
    os.chmod(elsewhere(home), 0o600)  # its ctime is another one: what is cached of it is not used
    assert store.find("hat").hashes.sha256 and store.hashed(store.find("hat")).hashes.sha256 != ink.hashes.sha256
    with pytest.raises(WriteFailed, match=message) as caught:
        store.tag("ink", ["new"])
    assert caught.value.errno == number and str(home / "index.sqlite") in str(caught.value)
    store.close()


@pytest.mark.parametrize("closed", [True, False])
def test_a_read_only_disk(closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pocket: Path) -> None:
    """`closed` False: the journal still holds what was written last, as a machine that lost its power leaves it."""
    disk = tmp_path / "disk"
    with small_disk(disk, size_kib=4096) as mounted:
        store = filled(disk / "home")
        if closed:
            store.close()
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True)
        if not mounted or os.access(disk, os.W_OK):  # files open for writing keep a disk from being remounted
            monkeypatch.setattr("registry.index.sqlite.os.access", lambda *_: False)
        check(disk / "home", errno.EROFS, "on a read-only disk.*It can be read")
        store.close()


def test_a_full_disk(tmp_path: Path, pocket: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=4096) as mounted:
        filled(tmp_path / "disk" / "home").close()
        if mounted:
            fill(tmp_path / "disk")
            check(tmp_path / "disk" / "home", errno.ENOSPC, "the disk is full. 0 bytes are free there")
            with pytest.raises(WriteFailed):  # SQLite leaves a shared memory of a few bytes
                Store(tmp_path / "disk" / "home").rebuild()
            check(tmp_path / "disk" / "home", errno.ENOSPC, "the disk is full. 0 bytes are free there")
            return
        with pytest.raises(WriteFailed, match="the disk is full"):
            grow(Store(tmp_path / "disk" / "home"))


def grow(store: Store) -> None:
    """Write more pages than the file may have: SQLite's own error of a full disk."""
    with store._index.writing() as connection:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {size}")
        connection.exec_driver_sql("CREATE TABLE more AS SELECT randomblob(100000)")
