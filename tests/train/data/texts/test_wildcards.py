import pytest

from train.data.texts.wildcards import has_choice, resolved, wildcard_fault


@pytest.mark.parametrize(
    ("caption", "first", "last"),
    [
        ("a {red|blue} hat", "a red hat", "a blue hat"),
        ("{ a | b }, {c|d|e}", "a, c", "b, e"),
        ("a {{plain}} brace", "a {plain} brace", "a {plain} brace"),
        ("{one}", "one", "one"),
        ("a, {|b}, c", "a, c", "a, b, c"),
        ("a, {b|}", "a, b", "a"),
    ],
)
def test_one_alternative_of_each_choice_is_in_the_prompt(caption: str, first: str, last: str) -> None:
    assert wildcard_fault(caption) is None
    assert (resolved(caption, lambda _count: 0), resolved(caption, lambda count: count - 1)) == (first, last)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a {red|blue hat", "without its partner"),
        ("a red} hat", "without its partner"),
        ("{a|{b|c} d}", "one {...} in another"),
        ("{2::a|b}", "counts or weights"),
        ("{2$$a|b}", "counts or weights"),
    ],
)
def test_what_cannot_be_read_as_a_choice_is_a_fault(caption: str, words: str) -> None:
    assert words in str(wildcard_fault(caption))


def test_a_choice_has_two_alternatives() -> None:
    assert [has_choice(text) for text in ("{a|b}", "{a}", "{a|a}", "{{a|b}}", "a")] == [True, False, False, False, False]
