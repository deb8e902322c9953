"""Schedules of prompts: the literals of A1111's documentation, its rules for steps, AND."""

import pytest

from infer.prompt.schedule import Timed, composed, scheduled, text_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(step, "a" if step % 2 else "(b:1.1)") for step in range(1, 11)]),
        ("[fe|]male", [(step, "female" if step % 2 else "male") for step in range(1, 11)]),
        ("[a::3] b", [(3, "a b"), (10, " b")]),
        ("[b:0] c", [(10, "b c")]),
        ("[b:1.0] c", [(10, " c")]),
        ("[b:1] c", [(1, " c"), (10, "b c")]),
        ("[a:b:40]", [(10, "a")]),
        ("a (b|c) [d:3]", [(10, "a (b|c) [d:3]")]),
        ("\\[a:b:3\\]", [(10, "\\[a:b:3\\]")]),
        ("[a:b]", [(10, "[a:b]")]),
    ],
)
def test_texts_by_their_last_step(text: str, expected: list[tuple[int, str]]) -> None:
    assert [(one.last, one.text) for one in scheduled(text, 10)] == expected


def test_the_example_of_100_steps() -> None:
    text = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][ in background:0.25] "
        "[shoddy:masterful:0.5]"
    )
    assert [(one.last, one.text) for one in scheduled(text, 100)] == [
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    ]


def test_the_first_text_is_used_for_one_call_more() -> None:
    timed = [Timed(3, "a"), Timed(10, "b")]
    assert [text_at(timed, call) for call in range(10)] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert text_at(timed, 11) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog :0.5", [("a cat ", 1.0), (" a dog", 0.5)]),
        ("a cat :1.2 AND a dog:-1", [("a cat", 1.2), (" a dog", -1.0)]),
        ("sAND AND b", [("sAND ", 1.0), (" b", 1.0)]),
        ("a (b:1.3)", [("a (b:1.3)", 1.0)]),
        ("at 16:9", [("at 16", 9.0)]),
    ],
)
def test_composed_prompts(text: str, expected: list[tuple[str, float]]) -> None:
    assert composed(text) == expected


def test_a_long_text_of_brackets_is_read_at_once() -> None:
    for sign in ("[", "[a:", "(", "[a|"):
        assert scheduled(sign * 20_000, 10)[0].last == 10
