"""Kinds of names: the same answers as the function itself, which is asked once a name."""

from __future__ import annotations

from registry.detect.name_kinds import NameKinds

NAMES = ["down.1", "up.1", "down.2", "mid", "up.2", "down.1"]


def test_the_kinds_are_the_results_of_the_function_in_the_order_of_the_names() -> None:
    asked: list[str] = []

    def side(name: str) -> str:
        asked.append(name)
        return name.partition(".")[0]

    kinds = NameKinds(side)
    assert [kind.value for kind in kinds.of(NAMES)] == ["down", "up", "down", "mid", "up", "down"]
    assert kinds.distinct(NAMES) == ["down", "up", "mid"] and len({*kinds.of(NAMES)}) == 3
    assert asked == ["down.1", "up.1", "down.2", "mid", "up.2"]  # each once


def test_more_names_than_are_kept_give_the_same_and_a_changed_function_other_ones() -> None:
    endings = ["1"]
    kinds = NameKinds(lambda name: name.endswith(endings[0]), most=2)
    assert [kind.value for kind in kinds.of(NAMES)] == [name.endswith("1") for name in NAMES] and len(kinds) <= 2
    kinds.of(["mid", "up.2"])
    endings[0] = "2"
    kinds.forget()
    assert [kind.value for kind in kinds.of(["mid", "up.2"])] == [False, True]
