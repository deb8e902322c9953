"""Choices in prompts."""

from collections import Counter
from pathlib import Path

import pytest

from infer.prompt.wildcards import chosen, read_wildcards
from registry.errors import Refused

LINES = {"colour": ["red", "blue"], "animal/big": ["bear"], "animal/small": ["{mouse|mole}"], "loop": ["__loop__"]}


def many(text: str, count: int = 400) -> Counter[str]:
    return Counter(chosen(text, seed, LINES) for seed in range(count))


def test_a_seed_gives_one_text_and_seeds_give_every_option() -> None:
    assert [chosen("a {red|blue} hat", 3, {}) for _ in range(3)] == [chosen("a {red|blue} hat", 3, {})] * 3
    found = many("a {red|blue|} hat")
    assert set(found) == {"a red hat", "a blue hat", "a  hat"} and min(found.values()) > 90


def test_choices_are_independent() -> None:
    assert len(many("{a|b} {a|b} {a|b}")) == 8


def test_weights_of_options() -> None:
    found = many("{3::a|b|0::c}")
    assert "c" not in found and 250 < found["a"] < 350


def test_several_options_each_at_most_once() -> None:
    assert set(many("{2$$a|b|c}")) == {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}
    assert set(many("{2$$ and $$a|b}")) == {"a and b", "b and a"}
    assert {text.count("+") for text in many("{1-3$$+$$a|b|c}")} == {0, 1, 2}
    assert set(many("{5$$a|b}")) == {"a, b", "b, a"}


def test_lines_of_files_and_patterns() -> None:
    assert set(many("a __colour__ hat")) == {"a red hat", "a blue hat"}
    assert set(many("__animal/*__")) == {"bear", "mouse", "mole"}


def test_nested_choices() -> None:
    assert set(many("{a {b|c}|d}")) == {"a b", "a c", "d"}


@pytest.mark.parametrize("text", ["a {red} hat", "a_b__c", "{", "a } b", "{a", "{ [a|b]"])
def test_what_is_no_choice_stays(text: str) -> None:
    assert chosen(text, 1, LINES) == text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("__nowhere__", "nowhere"),
        ("__loop__", "do not end"),
        ("a {red|blue rabbit", "'{red|blue rabbit' have no }"),
        ("a {red {fox|cat}, blue|green", "'{red {fox|cat}, blue|green' have no }"),
        ("{" * 60 + "a|b" + "}" * 60, "do not end"),
    ],
)
def test_faults(text: str, part: str) -> None:
    with pytest.raises(Refused, match=part):
        chosen(text, 1, LINES)
    with pytest.raises(Refused, match="wildcards=FOLDER"):
        chosen("__colour__", 1, {})


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "colour.txt").write_text("# colours\nred\n\n blue \n", encoding="utf-8")
    assert read_wildcards(tmp_path) == {"sub/colour": ["red", "blue"]}
    (tmp_path / "empty.txt").write_text("#\n", encoding="utf-8")
    with pytest.raises(Refused, match="empty"):
        read_wildcards(tmp_path)
    with pytest.raises(Refused, match="no folder"):
        read_wildcards(tmp_path / "nowhere")
    (tmp_path / "empty.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Refused, match="UTF-8"):
        read_wildcards(tmp_path)


def test_a_long_text_of_open_braces_is_read_at_once() -> None:
    assert chosen("{" * 200_000, 1, {}) == "{" * 200_000
