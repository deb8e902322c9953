"""Operations on captions, and the words that say them."""

import pytest

from registry.errors import Refused
from train.data.editing.operations import Add, Deduplicate, Operation, Remove, Rename, Replace, Sort, applied, check, words_of


@pytest.mark.parametrize(
    ("operation", "caption", "expected"),
    [
        (Replace("cat", "dog"), "a cat, Cat", "a dog, Cat"),
        (Replace(r"(\w+) eyes", r"eyes of \1", regex=True), "blue eyes, hat", "eyes of blue, hat"),
        (Replace("x", "y"), "a,b ,  c", "a,b ,  c"),
        (Add("sks"), "a cat", "sks, a cat"),
        (Add("sks", at_end=True), "a cat,", "a cat, sks"),
        (Add("A  CAT"), "hat,  a cat", "hat,  a cat"),
        (Add("a, b"), "b, c", "a, b, c"),
        (Remove("Blue Hair"), "girl, blue  hair, hat", "girl, hat"),
        (Remove("hair"), "blue hair", "blue hair"),
        (Rename("hat", "cap"), "hat, a, HAT", "cap, a"),
        (Rename("hat", "cap"), "cap, hat", "cap"),
        (Rename("hat", "Hat"), "a, hat", "a, Hat"),
        (Deduplicate(), "a, b, A, c, b", "a, b, c"),
        (Deduplicate(), "a ,b", "a ,b"),
        (Sort(), "c, B, a", "a, B, c"),
    ],
    ids=str,
)
def test_an_operation_changes_what_it_should(operation: Operation, caption: str, expected: str) -> None:
    assert operation(caption) == expected


def test_the_space_around_a_caption_stays() -> None:
    assert applied([Add("x", at_end=True)], " a\n\n", lines=False) == " a, x\n\n"
    assert applied([Add("x")], "", lines=False) == "x"


def test_lines_are_captions_of_their_own() -> None:
    assert applied([Add("x")], "a\r\n\r\nb\n", lines=True) == "x, a\r\n\r\nx, b\n"
    assert applied([Add("x")], "a\nb\n", lines=False) == "x, a b\n"


@pytest.mark.parametrize(
    "operation", [Replace("", "a"), Replace("(", "", regex=True), Replace("a", r"\3", regex=True), Add(" , "), Rename("a, b", "c")], ids=str
)
def test_what_no_caption_can_have_done_is_refused(operation: Operation) -> None:
    with pytest.raises(Refused, match="--"):
        check([operation])


def test_all_faults_are_one_refusal() -> None:
    with pytest.raises(Refused, match=r"(?s)--add.*--remove"):
        check([Add(""), Remove("")])


@pytest.mark.parametrize("caption", ["-ar 16:9 a.b", "x -ar 1 a.b -ar", "none"])
def test_a_text_that_looks_like_an_option_has_words(caption: str) -> None:
    plain = Replace("-ar", "-b\\1")
    words = words_of([plain])
    assert words[0] == "--replace" and words[-1] == "--regex" and not any(word.startswith("-") for word in words[1:3])
    assert Replace(words[1], words[2], regex=True)(caption) == plain(caption)
