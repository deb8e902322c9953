"""Unfinished files: `.tmp-<name of the output>-<16 hex digits>`, locked while they are written, and outputs that one process writes.

A process that is killed leaves its temporary file without a lock; the next writer of that output and `registry gc` remove it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import Refused
from registry.files.locks import is_at, locked_while_it_lasts, take
from registry.files.write_failure import explained, make_folder

TEMPORARY = ".tmp-"  # how the name of everything unfinished begins
NAMED = re.compile(re.escape(TEMPORARY) + r"(?P<label>.+)-(?:[0-9a-f]{16}|lock)", re.DOTALL)
LONGEST = 100  # bytes of the output's name: eCryptfs takes names of 143
WRITING = "is being written by another process. Wait for it, or choose another output."


def label_of(output: Path) -> str:
    """The output's name as its temporary files carry it; a long one is cut, with a hash in place of the rest."""
    name = os.fsencode(output.name)
    if len(name) <= LONGEST:
        return output.name
    return f"{os.fsdecode(name[: LONGEST - 9])}~{hashlib.sha256(name).hexdigest()[:8]}"


def open_temporary(output: Path) -> tuple[Path, int]:
    """(path, descriptor) of a new temporary file beside an output, locked."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        path = _new(output)
        descriptor = os.open(path, flags, 0o666)
        if take(descriptor) is not False and (os.name == "nt" or is_at(descriptor, path)):
            return path, descriptor
        os.close(descriptor)  # taken for a leftover in the moment before it was locked


@contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """A new temporary folder beside an output, locked, and removed with what is in it unless it was renamed."""
    while True:
        path = _new(output)
        path.mkdir()
        descriptor = None if os.name == "nt" else os.open(path, os.O_RDONLY)
        if descriptor is None or (take(descriptor) is not False and is_at(descriptor, path)):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _new(output: Path) -> Path:
    return output.with_name(f"{TEMPORARY}{label_of(output)}-{secrets.token_hex(8)}")


# --- one writer an output


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """The output kept for this process until the block ends; what killed processes left of it is removed.

    Raises Refused when another process is writing it or has written it since, WriteFailed where its folder takes no file.
    """
    make_folder(output.parent)
    lock = _lock_of(output)
    with explained(output):
        holding = locked_while_it_lasts(lock, wait=False)
        granted = holding.__enter__()
    try:
        if not granted:
            raise Refused(f"{output} {WRITING}")
        remove_leftovers(output)
        if output.exists() or output.is_symlink():
            raise Refused(f"{output} exists already: another process has written it since. Choose another path or remove it.")
        yield
    finally:
        holding.__exit__(None, None, None)


def is_being_written(output: Path) -> bool:
    """Whether another process writes this output now."""
    return is_in_use(_lock_of(output))


def _lock_of(output: Path) -> Path:
    return output.with_name(f"{TEMPORARY}{label_of(output)}-lock")


# --- leftovers


def leftovers(folder: Path) -> list[Path]:
    """The temporary files and folders of killed processes in a folder, by name."""
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if NAMED.fullmatch(entry.name)]
    except OSError:
        return []
    return [path for path in sorted(found) if not is_in_use(path)]


def remove_leftovers(output: Path) -> None:
    """Remove what killed processes left of this output."""
    for path in leftovers(output.parent):
        named = NAMED.fullmatch(path.name)
        if named is not None and named["label"] == label_of(output):
            remove_leftover(path)


def is_in_use(path: Path) -> bool:
    """Whether a temporary file or folder is locked by a process; True also where that cannot be known."""
    descriptor = _opened(path)
    if descriptor is None:
        return path.exists() or path.is_symlink()
    try:
        return take(descriptor) is not True
    finally:
        os.close(descriptor)


def remove_leftover(path: Path) -> bool:
    """Remove a temporary file or folder unless a process has locked it; gives whether it is gone."""
    descriptor = _opened(path)
    if descriptor is None:
        return not path.exists()
    try:
        if take(descriptor) is not True or not is_at(descriptor, path):
            return False
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return not path.exists()


def _opened(path: Path) -> int | None:
    """A descriptor of what is there; None for a link, and where it cannot be opened."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
