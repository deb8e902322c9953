"""Disks that take no more, for tests: a small tmpfs where this process may mount one, else writes that fail below the same seam."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.files import write_failure


@contextmanager
def small_disk(folder: Path, *, size_kib: int = 1024) -> Iterator[bool]:
    """A file system of this size at the folder; gives False where none can be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextmanager
def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, *, free_kib: int = 0) -> Iterator[Path]:
    """A folder on a disk with this much room left."""
    with small_disk(folder) as mounted:
        if mounted:
            fill(folder, leave_kib=free_kib)
        else:
            refuse_writes(folder, monkeypatch, free_kib=free_kib)
        yield folder


def fill(folder: Path, *, leave_kib: int = 0) -> None:
    """Fill a small disk with one file, up to the room that is left."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)) == 1 << 16:
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - (leave_kib << 10)))


def refuse_writes(folder: Path, monkeypatch: pytest.MonkeyPatch, *, free_kib: int) -> None:
    """Let every file below the folder fail like a full disk, where its system call would be."""
    left, original = free_kib << 10, write_failure.Output.write

    def write(self: write_failure.Output, data: Any) -> int:
        nonlocal left
        if self.path.is_relative_to(folder):
            left -= len(data)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return original(self, data)

    monkeypatch.setattr(write_failure.Output, "write", write)


def close_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be made in the folder, as on a read-only disk; permissions would not keep root out."""
    make, enter = os.mkdir, os.open

    def refuse(path: Any) -> None:
        if Path(os.fsdecode(path)).is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def mkdir(path: Any, *arguments: Any, **named: Any) -> None:
        refuse(path)
        make(path, *arguments, **named)

    def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            refuse(path)
        return enter(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", opened)
