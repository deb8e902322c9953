"""The rules against texts that were written down by hand, and what they may never do to a prompt."""

import re

import pytest

from infer.prompt.upsampling import words
from infer.prompt.upsampling.rules import MOST_WORDS, _plural, concrete, detailed


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("an animal", "a lion"),
        ("something to eat", "a pizza"),
        ("something scary under a bed", "a robot under a bed"),
        ("two animals in a forest", "two bears in a forest"),
        ("a big animal in a forest", "a big rabbit in a forest"),
        ("an old building near the sea", "an old house near the sea"),
        ("a photo of an animal", "a photo of a lion"),
        ("some fruit on a table", "a lemon on a table"),
        ("the vehicle", "the bus"),
        ("(an animal:1.3)", "(a horse:1.3)"),
        ("scenery", "a mountain lake under a clear sky"),
    ],
)
def test_a_vague_word_becomes_a_thing(prompt: str, text: str) -> None:
    assert concrete(prompt) == text == concrete(prompt)
    assert concrete(text) == text, "nothing vague is left"


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat",
        "an animal print dress",
        "a fruit salad",
        "a bird of prey",
        "a red apple, fruit",
        "a bowl of fruit",
        "a tree-lined street",
        "",
        " ",
    ],
)
def test_exact_words_and_parts_of_longer_names_stay(prompt: str) -> None:
    assert concrete(prompt) == prompt


def test_details_are_added_where_the_prompt_says_nothing() -> None:
    text = detailed("a cat")
    assert text.startswith("a cat, ")
    for choices in (words.PLACES, words.FRAMINGS, words.LIGHTS, words.MEDIA):
        assert sum(choice in text for choice in choices) == 1
    said = "a watercolor portrait of a cat in a garden at sunset"
    assert detailed(said) == said
    assert detailed("a photo of a cat").count("photo") == 1 and "on a plain" not in detailed("a cat in a box")
    long = " ".join(["very"] * MOST_WORDS) + " small cat"
    assert detailed(long) == long and detailed("") == ""


def test_every_thing_has_its_plural_and_no_thing_is_vague() -> None:
    plural = {"ear of corn": "ears of corn", "cup of coffee": "cups of coffee", "ladybug": "ladybugs", "cherry tree": "cherry trees"}
    plural |= {"rose": "roses", "church": "churches", "tomato": "tomatoes", "axe": "axes", "strawberry": "strawberries"}
    assert {thing: _plural(thing) for thing in plural} == plural
    things = {thing for kind in words.THINGS.values() for thing in kind}
    assert {thing for thing in things if concrete(f"a {thing}") != f"a {thing}"} == set(), "it stays as it is"
    assert set(words.VAGUE.values()) | set(words.SOMETHING.values()) == set(words.THINGS)


def test_the_articles_fit() -> None:
    for word in words.VAGUE:
        for prompt in (f"a {word}", f"an {word}", f"some {word}", f"{word}", f"three {word}s"):
            assert not re.search(r"\ba [aeio]|\ban [^aeio]", concrete(prompt)), concrete(prompt)
