"""A listing in parts is the one that composes everything, whatever was named, tagged and overridden since."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from registry.index import listing, records, search
from registry.record import Record
from registry.store import Store
from tests.registry.made import lora, sd1_attention


@pytest.fixture
def store(tmp_path: Path, pocket: Path) -> Store:
    """The embedded base and twenty records: some named, some named again, tagged, with another kind or family."""
    store = Store(tmp_path / "home")
    chance = random.Random(7)
    for number in range(20):
        seed = str(number % 18)  # two of them have a twin
        lora(
            tmp_path / "m" / f"set-{chance.randrange(99):02d}-{number}.safetensors", sd1_attention(128, channels=48, blocks=(0,)), seed=seed
        )
    store.scan(tmp_path / "m")
    for number, record in enumerate(sorted(store.records(kind="adapter"), key=lambda one: one.id)):
        if number % 3 == 0:
            store.add(str(record.path), name=f"name-{number % 4}")
        if number % 4 == 0:
            store.tag(record.id, ["kept"])
        if number % 5 == 0:
            store.override(record.id, family="sdxl")
        if number % 7 == 0:
            store.override(record.id, kind="embedding")
    return store


def composed(store: Store) -> list[Record]:
    """All records at once."""
    with store._index.reading() as connection:
        return [*store._embedded.records(connection), *records.load(connection)]


@pytest.mark.parametrize("part", [1, 3, 500])
def test_it_is_all_that_is_composed(part: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PART", part)
    everything = composed(store)
    assert store.records() == everything and len(everything) > 20
    for kind in (None, "adapter", "embedding", "checkpoint"):
        for family in (None, "sd1", "sdxl"):
            for tag in (None, "kept"):
                wanted = [
                    one
                    for one in everything
                    if kind in (None, one.kind) and family in (None, one.family) and (tag is None or tag in one.tags)
                ]
                assert store.records(kind=kind, family=family, tag=tag) == wanted, (kind, family, tag)


def test_parts_of_it(store: Store) -> None:
    everything = composed(store)
    with store.listing() as found:
        assert len(found) == len(everything)
        for first in (0, 1, 2, 5, len(everything) - 1, len(everything), 40):
            for count in (1, 2, 3, 21, 100):
                assert list(found.part(first, count)) == everything[first : first + count], (first, count)


def test_a_search_in_parts_finds_what_one_over_all_records_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = composed(store)
    for words in ("SET sd1", "name-1 kept", "é", "pocket", "nothing"):
        wanted = words.split()
        ranked = [(rank, one) for one in everything if (rank := search._rank(one, [word.lower() for word in wanted])) is not None]
        for part in (3, 500):
            monkeypatch.setattr(listing, "PART", part)
            assert store.search(wanted) == [one for _, one in sorted(ranked, key=lambda pair: pair[0])], (words, part)
            with store.searched(wanted) as found:
                assert len(found) == len(ranked) and list(found.part(1, 2)) == store.search(wanted)[1:3]
