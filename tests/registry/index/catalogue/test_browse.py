"""A selection by columns is the one that composed records show, in every order, with the counts of each value."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Faults
from registry.index.catalogue.selection import NONE, SORTS, Selection
from registry.record import Record
from registry.store import Store
from tests.registry.made import lora, sd1_attention


@pytest.fixture
def store(tmp_path: Path, pocket: Path, database: str) -> Store:
    """The embedded base and adapters of several ranks: named, tagged, licensed, of other families, one zero, one gone, two the same."""
    store = Store(tmp_path / "home")
    chance = random.Random(3)
    for number in range(14):
        modules = sd1_attention(128, channels=48, blocks=(0,))
        lora(tmp_path / "m" / f"Set{chance.randrange(99):02d}-{number}.safetensors", modules, rank=(2, 4, 8)[number % 3], seed=str(number))
    twin = tmp_path / "m" / "twin.safetensors"
    lora(twin, sd1_attention(128, channels=48, blocks=(0,)), rank=2, seed="0", dialect="peft")
    store.scan(tmp_path / "m", hash=True)
    for number, record in enumerate(sorted(store.records(kind="adapter"), key=lambda one: one.name)):
        if number % 3 == 0:
            store.add(str(record.path), name=f"name-{number % 4}", licence="cc0-1.0" if number % 2 else None)
        if number % 4 == 0:
            store.tag(record.id, ["kept", f"of {number}"])
        if number % 5 == 0:
            store.override(record.id, family="sdxl")
    Path(str(store.records(kind="adapter")[5].path)).unlink()
    store.scan(tmp_path / "m")
    return store


def composed(store: Store) -> list[Record]:
    return store.records()


def matching(record: Record, selection: Selection) -> bool:
    codes = {warning.code for warning in record.warnings}
    wanted = [(selection.family, record.family), (selection.rank, record.rank), (selection.licence, record.licence)]
    return (
        all(value is None or (one is None if value == NONE else str(one) == value) for value, one in wanted)
        and selection.kind in (None, record.kind)
        and set(selection.tags) <= set(record.tags)
        and (selection.warning is None or selection.warning in codes)
        and (not selection.missing or "missing" in codes)
    )


SELECTIONS = [
    Selection(),
    Selection(kind="adapter"),
    Selection(family="sdxl", kind="adapter"),
    Selection(rank="4"),
    Selection(rank=NONE),
    Selection(licence="cc0-1.0"),
    Selection(licence=NONE, tags=("kept",)),
    Selection(tags=("kept", "of 4")),
    Selection(warning="duplicate"),
    Selection(warning="missing"),
    Selection(missing=True),
    Selection(kind="adapter", rank="2", family="sd1"),
]


def test_it_is_what_composed_records_show(store: Store) -> None:
    everything = composed(store)
    for selection in SELECTIONS:
        wanted = [record for record in everything if matching(record, selection)]
        with store.browse(selection) as found:
            assert list(found.part(0, 100)) == wanted, selection
            assert list(found.part(1, 2)) == wanted[1:3] and len(found) == len(wanted) and found.everything == len(everything)
            assert found.missing == 1
    assert any(matching(record, Selection(warning="duplicate")) for record in everything)
    assert [matching(record, Selection(missing=True)) for record in everything].count(True) == 1


def test_the_orders(store: Store) -> None:
    everything = composed(store)
    keys: dict[str, Callable[[Record], Any]] = {
        "name": lambda one: one.name.casefold(),
        "size": lambda one: -sum(file.bytes for file in one.files),
    }
    for sort, key in keys.items():
        with store.browse(Selection(), sort=sort) as found:
            assert [key(one) for one in found.part(0, 100)] == sorted(map(key, everything)), sort
    with store.browse(Selection(), sort="newest") as newest, store.browse(Selection(), sort="oldest") as oldest:
        assert list(newest.ids) == list(reversed(oldest.ids)) and len(SORTS) == 4


def test_a_facet_is_counted_as_if_it_were_not_filtered_by(store: Store) -> None:
    everything = composed(store)
    with store.browse(Selection(kind="adapter", rank="4")) as found:
        ranks = Counter(NONE if one.rank is None else str(one.rank) for one in everything if one.kind == "adapter")
        kinds = Counter(one.kind for one in everything if one.rank == 4)
        tags = Counter(tag for one in everything if one.kind == "adapter" and one.rank == 4 for tag in one.tags)
        assert found.facets["rank"] == ranks and found.facets["kind"] == kinds and found.facets["tag"] == tags
        assert found.facets["licence"] == Counter(one.licence or NONE for one in everything if one.kind == "adapter" and one.rank == 4)


def test_words_are_those_of_find(store: Store) -> None:
    for words in (("set",), ("kept", "name"), ("sd1",), ("nothing at all",)):
        with store.browse(Selection(words=words)) as found:
            assert [one.id for one in found.part(0, 100)] == [one.id for one in store.search(words)], words
        with store.browse(Selection(words=words, rank="2"), sort="name") as narrowed:
            assert {one.id for one in narrowed.part(0, 100)} == {one.id for one in store.search(words) if one.rank == 2}


def test_everything_that_is_unknown_is_refused_at_once(store: Store) -> None:
    with pytest.raises(Faults) as refused, store.browse(Selection(kind="adaptr", family="sdlx", rank="big"), sort="nmae"):
        pass
    assert len(refused.value.faults) == 4 and "Did you mean 'adapter'" in refused.value.faults[0]
