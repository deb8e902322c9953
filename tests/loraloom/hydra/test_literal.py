"""Texts reach the config as they were typed."""

import itertools
import shlex

import pytest
from omegaconf import OmegaConf

from loraloom.hydra.bridge import parse
from loraloom.hydra.literal import as_mappings, quote, rightly_quoted, take_literally, unclear_list
from loraloom.hydra.settings import read_schema
from tests.loraloom.toy import Toy

SCHEMA = read_schema(Toy)


def through_hydra(text: str) -> str:
    """The text as it comes out of Hydra's grammar and OmegaConf's interpolation."""
    config = OmegaConf.create({"text": parse(f"text={quote(text)}").value()})
    return str(config.text)


@pytest.mark.parametrize("length", range(4))
def test_quote_is_exact_over_every_combination_of_the_signs_with_a_meaning(length: int) -> None:
    wrong = [text for signs in itertools.product("\\'\"${a", repeat=length) if through_hydra(text := "".join(signs)) != text]
    assert wrong == []


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("prompt=a cat, (red)", "prompt='a cat, (red)'"),
        ("++knobs.label=2024_01", "++knobs.label='2024_01'"),
        ("prompt=null", "prompt='null'"),  # not optional: the word null
        ("negative=null", "negative=null"),
        ("negative=", "negative=''"),
        ("prompt=it's", "prompt='it\\'s'"),
        ('prompt="a cat"', 'prompt="a cat"'),  # quoted already: Hydra's rules
        ("prompt='a','b'", "prompt='\\'a\\',\\'b\\''"),  # no sweep here, so it is a text with quotes in it
        ("steps=1,2", "steps=1,2"),
        ("size=[96,64]", "size=[96,64]"),
        ("model=small", "model=small"),
    ],
)
def test_only_texts_are_quoted(argument: str, expected: str) -> None:
    assert take_literally(argument, SCHEMA, multirun=False) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("prompt=a cat, a dog", "prompt='a cat, a dog'"),
        ("""prompt="a cat","a dog\"""", """prompt="a cat","a dog\""""),
        ("sampler=euler,heun", "sampler=euler,heun"),
        ("steps=1,2", "steps=1,2"),
    ],
)
def test_with_multirun_only_quoted_texts_and_words_sweep(argument: str, expected: str) -> None:
    assert take_literally(argument, SCHEMA, multirun=True) == expected


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("words=[a cat!,'b', c]", ["a cat!", "b", "c"]),
        ("words=[it's (red), b]", ["it's (red)", "b"]),
        ("words=[a:b=c, d]", ["a:b=c", "d"]),
        ('words=[say "hi"!]', ['say "hi"!']),
        ("size=a!,b", "a!,b"),
    ],
)
def test_the_quoting_that_an_error_shows_can_be_pasted(argument: str, value: object) -> None:
    (word,) = shlex.split(rightly_quoted(argument))
    assert parse(word).value() == value


@pytest.mark.parametrize("value", ["[a cat, sitting]", "[1girl, solo]", "[a cat,a dog]"])
def test_a_list_of_sentences_without_quotes_has_two_readings(value: str) -> None:
    assert unclear_list(f"preview.prompts={value}") is not None


def test_both_readings_are_given() -> None:
    one, two = unclear_list("preview.prompts=[a cat, sitting]") or ("", "")
    assert (one, two) == ("'preview.prompts=[\"a cat, sitting\"]'", "'preview.prompts=[\"a cat\",sitting]'")


@pytest.mark.parametrize("value", ['["a cat, sitting","a dog"]', "[cat,dog]", "[a cat]", "[]", "null", "['a, b', 'c']", "[null, blurred]"])
def test_clear_lists_are_taken(value: str) -> None:
    assert unclear_list(f"preview.prompts={value}") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('[{"path": "a", "repeats": 3}, {"path": "b", "prior": true}]', [{"path": "a", "repeats": 3}, {"path": "b", "prior": True}]),
        ("[{path: ~/a}, {path: ünï/ß}]", [{"path": "~/a"}, {"path": "ünï/ß"}]),
        ("[{path: it's, weight: 0.5, trigger: null}]", [{"path": "it's", "weight": 0.5, "trigger": None}]),
    ],
)
def test_a_list_of_mappings_is_read_as_yaml_and_json_have_it(value: str, expected: list[dict[str, object]]) -> None:
    assert parse(as_mappings(f"data.sets={value}")).value() == expected


@pytest.mark.parametrize("value", ["[{path=a}]", "[{path: a", "[a, 'b]", "[]", "[{1: a}]"])
def test_what_is_no_list_of_mappings_is_left(value: str) -> None:
    assert as_mappings(f"data.sets={value}") == f"data.sets={value}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{attn2.to_k: 8, 'conv[12]': 4}", {"attn2.to_k": 8, "conv[12]": 4}),
        ('{".*(q|k)": 2, "a:b, c": null}', {".*(q|k)": 2, "a:b, c": None}),
        ("{'a=b': 1}", None),  # a slip for {a: b}
        ("{'a': 1e-8}", None),  # a text to YAML
        ('{"betas": [0.9, 0.99], "inner": {"it\'s": "x"}}', None),  # Hydra has no spelling of a name with a quote in it
        ('{"betas": [0.9, 0.99], "eps": 1e-08, "name": "it\'s"}', {"betas": [0.9, 0.99], "eps": 1e-08, "name": "it's"}),
        ("{'1': 2}", None),  # would be the number 1
        ("{'null': 2}", None),
        ("{a: 2024-01-01}", None),  # a date
    ],
)
def test_a_mapping_with_quoted_names_is_read(value: str, expected: object) -> None:
    found = as_mappings(f"lora.ranks={value}")
    assert found == f"lora.ranks={value}" if expected is None else parse(found).value() == expected


def test_the_hint_for_a_mapping_shows_one() -> None:
    assert rightly_quoted("lora.ranks={it's: 2}").startswith("""'lora.ranks={name: "a text", name: 2}' (no quotes inside a name""")
