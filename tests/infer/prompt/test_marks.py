"""Marks of other programs' prompt grammars: what loads an adapter there is refused, what weighs is noted, what is written is escaped."""

import pytest

from infer.prompt.marks import escape, literal_note, network_fault
from tests.infer.images import a1111_weights


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("a cat <lora:ink:0.8>", "adapters=ink:0.8,"),
        ("<LoRA:ink> a cat <lyco:hat:1>", "adapters=ink+hat:1,"),
        ("<lora:ink:te=0.5:unet=1>", "adapters=ink,"),
        ("a cat <lora:ink:0.8", "adapters=ink:0.8,"),
        ("<hypernet:old:1>", "adapters=NAME:WEIGHT,"),
    ],
)
def test_what_loads_an_adapter_elsewhere_is_refused_with_what_to_write(text: str, instead: str) -> None:
    fault = network_fault("prompt", text)
    assert fault is not None and instead in fault and text.removeprefix("a cat ").split(" a cat ")[0] in fault


@pytest.mark.parametrize("text", ["a cat", "a <b> cat", "x < lora", "lora:ink:1", "a heart <3"])
def test_other_text_is_not(text: str) -> None:
    assert network_fault("prompt", text) is None


@pytest.mark.parametrize("mark", ["(red:1.3)", "BREAK", "AND", "[a|b]", "[a:b:0.5]", "{a|b}", "__colour__"])
def test_a_mark_is_noted_once(mark: str) -> None:
    note = literal_note([f"a cat, {mark} hat", f"{mark} a dog", "plain"])
    assert note is not None and note.count(f"{mark}.") == 1
    assert ("no escape" in note) is (mark in ("BREAK", "AND"))


@pytest.mark.parametrize("text", ["a cat", "ereshkigal (fate)", "sand and BREAKFAST", "[a]", "{a}", "a_b__c", "at 10:30", "a: b"])
def test_text_without_a_mark_is_not_noted(text: str) -> None:
    assert literal_note([text]) is None


@pytest.mark.parametrize("text", ["a (red) hat", "((x:1.5))", "[b]", "a\\b", "\\(", "\\\\", "x\\", "(", "a :) b", "[a:b:0.5] (c|d)"])
def test_a1111_reads_the_escaped_text_as_it_is(text: str) -> None:
    assert a1111_weights(escape(text)) == [(text, 1.0)]


def test_the_reader_in_these_tests_weighs_what_is_not_escaped() -> None:
    """The literals of A1111's own documentation of parse_prompt_attention."""
    assert a1111_weights("an (important) word") == [("an ", 1.0), ("important", 1.1), (" word", 1.0)]
    assert a1111_weights("(unbalanced") == [("unbalanced", 1.1)]
    assert a1111_weights("\\(literal\\]") == [("(literal]", 1.0)]
    assert a1111_weights("a (b:1.5)") == [("a ", 1.0), ("b", 1.5)]


def test_a_long_text_of_open_brackets_is_read_at_once() -> None:
    """Quadratic in the length, each of these took minutes."""
    assert [literal_note([sign + mark * 200_000]) for sign, mark in ("[|", "[:", "{|", "(:")] == [None] * 4


def test_the_note_names_the_settings_that_read_the_marks() -> None:
    assert str(literal_note(["a {b|c}"])).endswith("with wildcards=true or a folder.")
    assert str(literal_note(["a {b|c} (d:1.2)"])).endswith("with prompt_dialect=a1111 and wildcards=true or a folder.")
