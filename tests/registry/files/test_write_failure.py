"""A disk that is full, read-only or closed to us, at every seam that writes: one error with the path and the room, and nothing left."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import JobFailed, WriteFailed
from registry.files.locks import held
from registry.files.unfinished import only_writer
from registry.formats.atomic_file import RawTensor, atomic_file, atomic_folder, proven_file, write_raw, write_text
from tests.disks import close_folder, full_disk, small_disk

MIB = 1 << 20


def proven(path: Path) -> None:
    with proven_file(path) as temporary:
        write_raw(temporary, {"a": RawTensor("U8", (2 * MIB,), bytes(2 * MIB))}, metadata={})


def copied_into_a_folder(path: Path) -> None:
    with atomic_folder(path) as folder:
        shutil.copyfile(path.parent.parent / "source.bin", folder / "copy.bin")


def opened(path: Path) -> None:
    with atomic_file(path) as file:
        for _ in range(200):
            file.write(bytes(1 << 14))


def safetensors(path: Path) -> None:
    write_raw(path, {"a": RawTensor("U8", (2 * MIB,), bytes(2 * MIB))}, metadata={})


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "text": (lambda path: write_text(path, "x" * (2 * MIB)), r"needs 2\.0 MiB"),
    "safetensors": (safetensors, r"needs 2\.0 MiB"),
    "proven file": (proven, r"needs 2\.0 MiB"),
    "file of unknown size": (opened, r"needs more than [\d,.]+ (bytes|MiB)"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_names_the_path_and_the_room(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = WRITERS[what]
    with full_disk(tmp_path / "disk", monkeypatch, free_kib=64) as disk:
        before = sorted(os.listdir(disk))
        with pytest.raises(JobFailed, match=rf"disk/out\.safetensors cannot be written: the disk is full\. It {room}") as caught:
            write(disk / "out.safetensors")
        assert caught.value.exit_code == 1 and isinstance(caught.value, OSError) and caught.value.errno == errno.ENOSPC
        assert sorted(os.listdir(disk)) == before


@pytest.mark.parametrize("what", [*WRITERS, "folder of copies"])
def test_a_file_too_large_for_the_file_system_or_a_limit(what: str, tmp_path: Path) -> None:
    write = {**{name: one for name, (one, _) in WRITERS.items()}, "folder of copies": copied_into_a_folder}[what]
    (tmp_path / "out").mkdir()
    (tmp_path / "source.bin").write_bytes(bytes(2 * MIB))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
        with pytest.raises(WriteFailed, match=r"out/m\.safetensors cannot be written: the file is larger") as caught:
            write(tmp_path / "out" / "m.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG and os.listdir(tmp_path / "out") == []


def test_a_read_only_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk) as mounted:
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            close_folder(disk, monkeypatch)
        locks = (lambda path: only_writer(path).__enter__(), lambda path: held(path).__enter__())
        for write in (opened, proven, lambda path: write_text(path, "x"), *locks):
            with pytest.raises(WriteFailed, match=r"disk/out.* cannot be written: (the disk is read-only|permission is denied)"):
                write(disk / "out.safetensors")
        with pytest.raises(WriteFailed, match="disk/out"), atomic_folder(disk / "out"):
            pass


def test_an_error_of_a_file_that_is_read_meanwhile_is_not_called_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-source"), atomic_file(tmp_path / "x") as file:
        file.write((tmp_path / "no-such-source").read_bytes())
    with pytest.raises(FileNotFoundError, match="no-such-source"), atomic_folder(tmp_path / "y"):
        (tmp_path / "no-such-source").read_bytes()
    with pytest.raises(WriteFailed, match="no/such/x cannot be written"), atomic_file(tmp_path / "no" / "such" / "x"):
        pass
    assert os.listdir(tmp_path) == []
