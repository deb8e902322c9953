"""Files that are read ahead: all of them asked for, unless memory is short or it is stopped; a missing one is nobody's failure."""

import os
from pathlib import Path

import pytest

from registry.files import read_ahead
from registry.files.read_ahead import PIECE, ReadAhead
from tests.patience import PATIENCE


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each piece that the kernel was asked for begins."""
    pieces: list[int] = []
    own = os.posix_fadvise

    def advise(descriptor: int, begin: int, size: int, advice: int) -> None:
        assert (size, advice) == (PIECE, os.POSIX_FADV_WILLNEED)
        pieces.append(begin)
        own(descriptor, begin, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return pieces


def large(folder: Path) -> Path:
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(2 * PIECE + 1)
    return path


def test_every_piece_of_every_file_is_asked_for(tmp_path: Path, asked: list[int]) -> None:
    reading = ReadAhead([tmp_path / "missing", large(tmp_path)])
    reading.start()
    reading._thread.join(PATIENCE)
    reading.stop()
    assert asked == [0, PIECE, 2 * PIECE] and reading.bytes == 3 * PIECE


@pytest.mark.parametrize("free", [4 * PIECE, None])
def test_nothing_is_read_where_memory_is_short_or_not_known(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    monkeypatch.setattr(read_ahead, "available_bytes", lambda: free)
    reading = ReadAhead([large(tmp_path)])
    reading.start()
    reading.stop()
    assert asked == [] and reading.bytes == 0
