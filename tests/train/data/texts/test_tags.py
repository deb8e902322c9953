from collections.abc import Iterator

import pytest

from train.data.texts.tags import Tags, joined, movable, split_tags, varied
from train.settings.data import DataConfig


@pytest.mark.parametrize(
    ("caption", "settings", "tags"),
    [
        ("a, b,, c ", {}, Tags((), ("a", "b", "c"))),
        ("a, b, c", {"keep_tokens": 1}, Tags(("a",), ("b", "c"))),
        ("a, b, c", {"keep_tokens": 5}, Tags(("a", "b", "c"), ())),
        ("a, b ||| c, d", {"keep_separator": "|||", "keep_tokens": 1}, Tags(("a", "b"), ("c", "d"))),
        ("a ||| b, c ||| d", {"keep_separator": "|||"}, Tags(("a",), ("b", "c"), ("d",))),
        ("a, b, c", {"keep_separator": "|||", "keep_tokens": 1}, Tags(("a",), ("b", "c"))),
        ("a b;c", {"tag_separator": ";"}, Tags((), ("a b", "c"))),
        ("a b  c", {"tag_separator": " "}, Tags((), ("a", "b", "c"))),
    ],
)
def test_captions_are_cut_at_the_separators(caption: str, settings: dict[str, object], tags: Tags) -> None:
    found = split_tags(caption, DataConfig(**settings))  # type: ignore[arg-type]
    assert found == tags
    assert "|||" not in joined(found.every, DataConfig(**settings))  # type: ignore[arg-type]


def draws(*values: float) -> Iterator[float]:
    yield from values


def test_the_body_is_shuffled_by_the_numbers_drawn() -> None:
    config = DataConfig(shuffle_tags=True)
    assert varied(Tags(("h",), ("a", "b", "c"), ("t",)), None, config, draws(0.9, 0.1, 0.5).__next__) == ("h", "b", "c", "a", "t")


def test_tags_below_the_probability_are_dropped() -> None:
    config = DataConfig(tag_dropout=0.5)
    assert varied(Tags(("h",), ("a", "b", "c"), ("t",)), None, config, draws(0.5, 0.4, 0.9).__next__) == ("h", "a", "c", "t")


def test_the_tag_with_the_trigger_keeps_its_place_and_is_never_dropped() -> None:
    config = DataConfig(shuffle_tags=True, tag_dropout=0.5)
    tags = Tags((), ("a", "photo of SKS", "b", "c"))
    assert movable(tags, "sks") == 3
    assert varied(tags, "sks", config, draws(0.9, 0.9, 0.9, 0.3, 0.2, 0.1).__next__) == ("c", "photo of SKS", "b", "a")
    assert varied(tags, "sks", config, draws(0.1, 0.2, 0.3).__next__) == ("photo of SKS",)


def test_a_separator_of_spaces_joins_by_one_space() -> None:
    assert joined(("a", "b"), DataConfig(tag_separator=" ")) == " a b".strip()
    assert joined(("a", "b"), DataConfig(tag_separator=";")) == "a; b"
