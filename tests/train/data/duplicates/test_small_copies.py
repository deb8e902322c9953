"""Small copies come back as they were appended, from memory and from the file."""

import gc
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from train.data.duplicates.small_copies import BYTES, PIECE, SmallCopies

COUNT = 2 * PIECE + 5


def small(place: int) -> bytes:
    return place.to_bytes(3, "big") * (BYTES // 3)


def test_copies_of_a_large_set_are_read_back_by_several_threads() -> None:
    copies = SmallCopies()
    for place in range(COUNT):
        copies.append(small(place))
        assert copies[place] == small(place)
    assert len(copies) == COUNT and len(copies._last) == 5 * BYTES
    places = [place * 7 % COUNT for place in range(COUNT)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copies.__getitem__, places)) == [small(place) for place in places]


def test_they_stay_in_memory_where_no_file_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    copies = SmallCopies()
    for place in range(COUNT):
        copies.append(small(place))
    assert copies._file is None and len(copies) == COUNT
    assert [copies[place] for place in (0, PIECE, COUNT - 1)] == [small(place) for place in (0, PIECE, COUNT - 1)]


def test_the_file_is_closed_with_the_copies() -> None:
    copies = SmallCopies()
    for place in range(PIECE):
        copies.append(small(place))
    file = copies._file
    assert file is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del copies
        gc.collect()
    assert file.closed and not caught
