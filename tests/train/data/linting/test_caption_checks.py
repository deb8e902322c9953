"""Faults of captions that were planted are found, and sound captions are not flagged."""

import re
from pathlib import Path

import pytest

from tests import tiny
from train.config import DataConfig
from train.data.captions import syntax_of
from train.data.lint import lint
from train.data.linting.caption_checks import caption_findings, copied_captions, count_tokens, manner, mixed_manners
from train.data.linting.trigger_checks import fused_words, misspelt_trigger, other_case, trigger_findings
from train.data.linting.words import distance, phrases, segments, words

PLACES = ("kitchen", "forest", "harbour", "library", "market", "station", "garden", "desert", "bridge", "cellar")
SENTENCES = {f"{number}.png": f"a photo of zwxman standing in a {place} with {number} lamps" for number, place in enumerate(PLACES)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("zwxman", "zwxman", 0),
        ("zwxman", "zwxmann", 1),
        ("zwxman", "zxwman", 1),
        ("zwxman", "zxman", 1),
        ("kitten", "sitting", 3),
        ("a", "abcdef", 3),
    ],
)
def test_distances(one: str, other: str, expected: int) -> None:
    assert distance(one, other, 2) == distance(other, one, 2) == expected


def test_words_in_their_segments() -> None:
    assert segments("a cat, 1.5 m away. It sleeps!") == ["a cat", "1.5 m away", "It sleeps"]
    assert [*phrases("red hat, big dog", 2)] == ["red", "red hat", "hat", "big", "big dog", "dog"]


@pytest.mark.parametrize("spelt", ["zwxmann", "zxwman", "zwx-man", "zwx man", "zwxman's-x"])
def test_a_misspelt_trigger_is_found(spelt: str) -> None:
    prompts = SENTENCES | {"slip.png": f"a photo of {spelt} at home"}
    found = misspelt_trigger(prompts, "zwxman")
    if spelt == "zwxman's-x":  # the trigger as a word of its own
        assert found == []
    else:
        assert [one.images for one in found] == [("slip.png",)] and f"{spelt!r} (1)" in found[0].what


@pytest.mark.parametrize(("trigger", "word"), [("ink", "pink"), ("sks", "skis"), ("zwxman", "woman"), ("blobface", "surface")])
def test_other_words_are_no_misspelt_trigger(trigger: str, word: str) -> None:
    assert misspelt_trigger({"0.png": f"{trigger}, a cat", "1.png": f"a {word} on a table"}, trigger) == []


def test_other_capitals_are_found() -> None:
    assert [one.images for one in other_case({"0.png": "ZWXMAN here", "1.png": "zwxman here", "2.png": "nobody"}, "zwxman")] == [("0.png",)]


def test_what_every_caption_has_beside_the_trigger_is_named_once() -> None:
    prompts = {name: f"{prompt}, red knitted scarf, soft light" for name, prompt in SENTENCES.items()}
    prompts["9.png"] = prompts["9.png"].replace("soft light", "hard light")
    (found,) = fused_words(prompts, "zwxman")
    named = dict(re.findall(r"'([^']+)' \((\d+)\)", found.what))
    assert named == {"red knitted scarf": "10", "standing": "10", "photo": "10", "lamps": "10", "light": "10"}
    assert fused_words({name: prompts[name] for name in [*prompts][:7]}, "zwxman") == []  # too few to tell


def test_captions_that_differ_have_nothing_fused() -> None:
    prompts = {name: f"zwxman, {place} {number}" for number, (name, place) in enumerate(zip(SENTENCES, PLACES, strict=True))}
    assert trigger_findings(prompts, "zwxman") == [] and fused_words(dict.fromkeys(SENTENCES, "zwxman"), "zwxman") == []


def test_copied_captions_are_found_and_short_or_equal_ones_are_not() -> None:
    assert copied_captions(SENTENCES) == []
    prompts = SENTENCES | {"copy.png": SENTENCES["3.png"].upper()}
    assert [one.images for one in copied_captions(prompts)] == [("3.png", "copy.png")]
    assert copied_captions({"0.png": "a cat", "1.png": "a cat", "2.png": "a dog"}) == []
    assert copied_captions(dict.fromkeys(SENTENCES, SENTENCES["0.png"])) == []


def test_two_manners_of_captioning_are_found() -> None:
    tags = {f"tags-{number}.png": f"1girl, solo, long hair, {place}, smile" for number, place in enumerate(PLACES[:3])}
    (found,) = mixed_manners(SENTENCES | tags)
    assert found.images == tuple(tags) and "3 of 13 (23%) captions are tags, 10 of 13 (77%) are sentences" in found.what
    assert mixed_manners(SENTENCES) == mixed_manners(tags) == []
    assert mixed_manners(SENTENCES | {"tags-0.png": tags["tags-0.png"]}) == []  # one is an exception
    assert manner("a red disc") == "short"


@pytest.mark.parametrize(
    "text",
    ["a cat, Steps: 20, Sampler: Euler a", "Negative prompt: blurry", "a cat --ar 16:9", "a cat --v 6", "(cat:1.2)", "cat BREAK dog"],
)
def test_another_tool_s_syntax_is_found(text: str) -> None:
    assert [one.check for one in caption_findings({"0.png": text}, None, syntax_of({"0.png": text}))] == ["syntax"]


@pytest.mark.parametrize("text", ["steps: 3 of them, stone", "a cat -- a dog", "a well-lit cat, time 12:30", "a dog --verbose"])
def test_plain_texts_are_no_syntax(text: str) -> None:
    assert caption_findings({"0.png": text}, None, syntax_of({"0.png": text})) == []


def test_tokens_are_counted_by_the_base() -> None:
    tokens = count_tokens({"0.png": "a b", "1.png": "a b c d e", "2.png": "a"}, lambda text: (len(text.split()) + 2, 6))
    assert tokens is not None
    assert tokens.to_json() == {"fits": 6, "smallest": 3, "median": 4, "largest": 7, "longest": "1.png", "over": 1}
    assert tokens.to_text() == "captions have 3 to 7 tokens, 4 in the median (longest: 1.png); the base reads 6"
    assert [one.images for one in caption_findings({}, tokens, {})] == [("1.png",)]


def test_the_keys_of_the_json_document(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 4)
    (folder / "000.txt").write_text("sks, a disc")
    found = lint(DataConfig(path=str(folder), trigger="sks"), count=lambda text: (len(text.split()), 9)).to_json()
    assert [*found] == ["path", "pictures", "heldout", "captions", "masks", "faults", "notes", "findings", "tokens", "trigger"]
    assert found["trigger"] == {"word": "sks", "captions": 1, "behind_limit": 0, "without": 3} and found["tokens"]["fits"] == 9


def test_words_are_cut_before_their_capitals_are_folded() -> None:
    assert words("Straße, İzmir's RED-hat 2") == ["strasse", "i\u0307zmir's", "red-hat", "2"]
    assert words("...") == []
