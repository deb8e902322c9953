"""Removing and collecting: what is ours may go, what is a person's stays."""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from registry.errors import NotFound, Refused
from registry.formats.atomic_file import atomic_file
from registry.index import database as tables
from registry.index.storage.gc import Garbage
from registry.store import Store
from tests.registry.made import diffusers_folder, lora, sd1_attention
from tests.registry.server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def make(path: Path, seed: str = "") -> Path:
    lora(path, sd1_attention(blocks=(0,)), seed=seed)
    return path


def downloaded(store: Store, server: Server, path: Path) -> Path:
    data = path.read_bytes()
    server.files[f"/{path.name}"] = data
    return Path(str(store.add(f"{server.url}/{path.name}", sha256=hashlib.sha256(data).hexdigest(), name="web").path))


def whys(found: Garbage) -> list[str]:
    return sorted(item.why for item in found.items)


def test_files_of_a_person_are_not_deleted(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    store.add(path)
    with pytest.raises(Refused, match="was not written or downloaded by LoRA Loom"):
        store.remove("ink", delete_files=True)
    assert store.find("ink").path == str(path) and path.is_file()
    done = store.remove("ink")
    assert done.deleted == () and path.is_file()


def test_what_a_job_made_is_deleted_unless_it_was_written_to_or_moved(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "made.safetensors")
    store.add(path, name="made", recipe={"tool": "merge"})
    copy = tmp_path / "mine" / "copy.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    store.add(copy)
    done = store.remove("made", delete_files=True)
    assert done.deleted == (str(path),) and not path.exists() and copy.is_file()
    other = make(tmp_path / "other.safetensors", "other")
    store.add(other, recipe={"tool": "merge"})
    make(other, "written to")
    with pytest.raises(Refused, match="stays"):
        store.remove("other", delete_files=True)
    folder = diffusers_folder(tmp_path / "fused", width=256)
    store.add(folder, recipe={"tool": "fuse"}, name="fused")
    store.remove("fused", delete_files=True)
    assert not folder.exists()


def test_who_depends_on_it_is_reported(store: Store, tmp_path: Path) -> None:
    base = store.add(make(tmp_path / "base.safetensors"))
    store.add(make(tmp_path / "child.safetensors", "child"), parents=[{"role": "source", "ref": "base", "sha256": base.hashes.sha256}])
    assert store.remove("base").derived == ("child",)
    with pytest.raises(Refused, match="part of LoRA Loom"):
        store.remove("pocket", delete_files=True)
    (tmp_path / "run").mkdir()
    store.add_run(tmp_path / "run", name="ink", parents=[], recipe={})
    with pytest.raises(Refused, match="is a run"):
        store.remove("ink", delete_files=True)


def test_gc_lists_and_only_deletes_when_reported(store: Store, server: Server, tmp_path: Path) -> None:
    blob = downloaded(store, server, make(tmp_path / "a.safetensors", "a"))
    keep = downloaded(store, server, make(tmp_path / "b.safetensors", "b"))
    store.remove(str(blob))
    (store.home / "quarantine" / "half.part").write_bytes(b"x" * 10)
    old = store.home / "cells" / "ab" / ".tmp-1234"
    young = store.home / "cache" / ".tmp-5678"
    for path in (old, young):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    found = store.garbage()
    assert whys(found) == ["orphan-blob", "quarantine", "unfinished"] and not found.applied and "younger" in found.left[0]
    assert found.bytes == blob.stat().st_size + 10 + 4
    assert blob.exists() and old.exists()
    done = store.garbage(apply=True)
    assert done.applied and done.bytes == found.bytes and set(done.to_json()) == {"applied", "bytes", "items", "left"}
    assert not blob.exists() and not old.exists() and young.exists() and keep.exists()
    assert store.garbage().items == []
    assert (tmp_path / "a.safetensors").is_file()


def test_what_a_killed_process_left_in_the_home_goes_and_what_is_written_stays(store: Store) -> None:
    store.records()
    cell = store.home / "cells" / "ab" / "x.png"
    cell.parent.mkdir(parents=True)
    left = cell.with_name(".tmp-x.png-0123456789abcdef")
    left.write_bytes(b"half")
    with atomic_file(cell) as file:
        file.write(b"whole")
        assert [item.path for item in store.garbage(apply=True).items] == [str(left)]
    assert cell.read_bytes() == b"whole" and not left.exists()


def test_rows_of_missing_files_and_caches_go_only_on_request(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    store.add(path, tags=["said"])
    path.unlink()
    (store.home / "cells" / "ab").mkdir(parents=True)
    (store.home / "cells" / "ab" / "x.png").write_bytes(b"png")
    assert store.garbage(apply=True).items == [] and store.find("ink").tags == ("said",)
    assert whys(store.garbage(missing=True, caches=True)) == ["cache", "missing-row"]
    store.garbage(apply=True, missing=True, caches=True)
    with pytest.raises(NotFound):
        store.find("ink")
    assert not (store.home / "cells").exists()


def test_blobs_stay_while_another_process_brings_one(store: Store, server: Server, tmp_path: Path) -> None:
    blob = downloaded(store, server, make(tmp_path / "a.safetensors"))
    store.remove("web")
    with store.blobs.downloading():
        done = store.garbage(apply=True)
        assert done.items == [] and "Another process" in done.left[0] and blob.exists()
    store.garbage(apply=True)
    assert not blob.exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_kept_model_is_fetched_after_its_file_is_gone(
    tmp_path: Path, pocket: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    if elsewhere:
        monkeypatch.setenv("LORALOOM_BLOBS", f"memory://{secrets.token_hex(4)}/models")
    store = Store(tmp_path / "home")
    path = make(tmp_path / "ink.safetensors")
    record = store.add(path, tags=["x"])
    store.keep("ink")
    assert store.garbage().items == [] and store.garbage(elsewhere=True).items == []
    path.unlink()
    found = store.fetch("ink")
    assert found.id == record.id and found.name == "ink" and found.tags == ("x",)
    assert hashlib.sha256(Path(str(found.path)).read_bytes()).hexdigest() == record.hashes.sha256
    store.remove("ink")
    assert whys(store.garbage(elsewhere=True)) == ["orphan-blob"] * (2 if elsewhere else 1)
    assert whys(store.garbage()) == ["orphan-blob"]


def test_a_model_of_the_web_is_fetched_again_from_there(store: Store, server: Server, tmp_path: Path) -> None:
    blob = downloaded(store, server, make(tmp_path / "a.safetensors"))
    blob.unlink()
    assert store.fetch("web").path == str(blob) and blob.is_file()
    store.add(make(tmp_path / "lost.safetensors", "lost"))
    (tmp_path / "lost.safetensors").unlink()
    with pytest.raises(NotFound, match="no source to download it from"):
        store.fetch("lost")


def test_bytes_that_changed_though_nobody_wrote_are_rotten(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "a.safetensors")
    record = store.add(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    seen = path.stat()
    with store._index.writing() as connection:  # as though the disk had changed it: the system's times are those of before
        for table in (tables.file_hash, tables.location):
            connection.execute(update(table).values(inode=str(seen.st_ino), mtime_ns=seen.st_mtime_ns, ctime_ns=seen.st_ctime_ns))
    check = store.verify(store.find(record.id))
    assert (check.status, check.files, check.good) == ("rotten", (str(path),), False) and "size and times did not" in check.message


def test_verify_names_the_files_that_differ(store: Store, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "base", width=256)
    store.add(folder, name="base")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    check = store.verify(store.find("base"))
    assert (check.status, check.files, check.good) == ("changed", (str(weights),), False)
    path = make(tmp_path / "a.safetensors")
    copy = tmp_path / "b.safetensors"
    copy.write_bytes(path.read_bytes())
    store.add(copy)
    record = store.add(path)
    assert store.verify(record).status == "ok"
    copy.write_bytes(copy.read_bytes()[:-1] + b"\0")
    check = store.verify(store.find(record.id, fresh=False))
    assert (check.status, check.files) == ("changed", (str(copy),))
