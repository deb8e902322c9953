"""Large files written past the page cache: the same bytes whatever the sizes, and wherever O_DIRECT is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from pathlib import Path

import pytest

from registry.errors import WriteFailed
from registry.files import direct_output
from registry.files.direct_output import BUFFER, FLAG, PAGE, DirectWriter, set_direct, sink_of
from registry.files.write_failure import Output
from registry.formats.atomic_file import RawTensor, atomic_file, write_raw

SIZES = (0, 1, PAGE - 1, PAGE, PAGE + 1, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 3 * PAGE + 5)
PIECES = (7, PAGE, BUFFER // 3 + 1, 3 * BUFFER)


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_output, "LEAST", 0)


def write(path: Path, data: bytes, piece: int, seen: list[bool]) -> None:
    """The data in pieces; `seen` gets whether O_DIRECT is on after each."""
    with atomic_file(path, needed=len(data)) as file:
        sink = DirectWriter(file.raw)
        for begin in range(0, len(data), piece):
            sink.write(memoryview(data)[begin : begin + piece])
            seen.append(bool(fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & FLAG))
        sink.flush()
        assert not fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & FLAG
        os.pwrite(file.fileno(), b"!", 0)  # as a merge writes the length of its header


def expected(data: bytes) -> bytes:
    return b"!" + data[1:]


def takes_direct(folder: Path) -> bool:
    descriptor = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT)
    try:
        return set_direct(descriptor, True)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_are_those_that_were_given(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    for piece in PIECES if size > PAGE else (7,):
        if size // piece > 2000:
            continue
        seen: list[bool] = []
        write(tmp_path / "x", data, piece, seen)
        assert (tmp_path / "x").read_bytes() == expected(data)
        if seen and takes_direct(tmp_path):
            assert all(seen)


def test_a_file_system_that_refuses_the_flag_gets_the_bytes_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_output, "FLAG", 0)
    data = os.urandom(SIZES[-1])
    with atomic_file(tmp_path / "x") as file:
        sink = DirectWriter(file.raw)
        sink.write(memoryview(data))
        sink.flush()
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_file_system_that_takes_the_flag_and_refuses_a_write_gets_them_too(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, real = 0, Output.write

    def refusing(self: Output, data: memoryview) -> int:
        nonlocal count
        count += 1
        if count >= fails_at and fcntl.fcntl(self.fileno(), fcntl.F_GETFL) & FLAG:
            self.failure = OSError(errno.EINVAL, "Invalid argument")
            raise self.failure
        return real(self, data)

    monkeypatch.setattr(Output, "write", refusing)
    data = os.urandom(SIZES[-1])
    write(tmp_path / "x", data, 3 * BUFFER, [])
    assert (tmp_path / "x").read_bytes() == expected(data)


def test_a_write_that_takes_a_part_of_a_page_goes_on_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first = Output.write, True

    def half(self: Output, data: memoryview) -> int:
        nonlocal first
        if first:
            first = False
            set_direct(self.fileno(), False)
            count = real(self, data[: PAGE + 11])
            set_direct(self.fileno(), True)
            return count
        return real(self, data)

    monkeypatch.setattr(Output, "write", half)
    data = os.urandom(SIZES[-1])
    write(tmp_path / "x", data, BUFFER, [])
    assert (tmp_path / "x").read_bytes() == expected(data)


def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BUFFER + PAGE, hard))
    try:
        with pytest.raises(WriteFailed, match=r"needs 3\.0 MiB"):
            write_raw(tmp_path / "x", {"a": RawTensor("U8", (3 * BUFFER,), bytes(3 * BUFFER))}, metadata={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_small_files_go_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_output, "LEAST", 100)
    with atomic_file(tmp_path / "x") as file:
        assert sink_of(file, 99) is file and isinstance(sink_of(file, 100), DirectWriter) is bool(FLAG)
