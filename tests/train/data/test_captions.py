import pytest

from train.data.captions import Remembered, prompt_of, read_part, shortened, syntax_notes, tag_frequency


@pytest.mark.parametrize(
    ("caption", "trigger", "prompt"),
    [
        ("a red hat\n", None, "a red hat"),
        ("a red hat", "ohwx", "ohwx, a red hat"),
        ("a hat, OHWX style", "ohwx", "a hat, OHWX style"),
        ("a ohwxy hat", "ohwx", "ohwx, a ohwxy hat"),
        (None, "ohwx", "ohwx"),
        ("two\nlines  of it", None, "two lines of it"),
        ("a (red) hat", "(red) hat", "a (red) hat"),
    ],
)
def test_the_trigger_goes_first_unless_it_is_there(caption: str | None, trigger: str | None, prompt: str) -> None:
    assert prompt_of(caption, trigger) == prompt


def count(text: str) -> tuple[int, int]:
    """Every word is a token, there are two marks, and six fit: four words are read."""
    return len(text.split()) + 2, 6


def test_the_part_that_is_read_ends_between_words() -> None:
    assert read_part("one two three four five", count) == "one two three four"
    assert read_part("one two three four", count) == "one two three four"
    assert read_part("one two three four five", None) == "one two three four five"
    assert read_part("a " * 5000, count) == "a a a a"
    assert read_part("word", lambda text: (9, 6) if text else (2, 6)) == ""


def test_what_was_counted_is_remembered() -> None:
    asked: list[str] = []

    def counting(text: str) -> tuple[int, int]:
        asked.append(text)
        return count(text)

    remembered = Remembered(counting)
    assert [read_part("one two three four five", remembered) for _ in range(3)] == ["one two three four"] * 3
    assert remembered("one two three four five") == (7, 6) and read_part("one", remembered) == "one"
    assert len(asked) == len(set(asked)) <= 5


def test_a_trigger_behind_the_limit_is_not_there() -> None:
    assert prompt_of("a red hat on sks", "sks", count=count) == "sks, a red hat on sks"
    assert prompt_of("a red hat sks now", "sks", count=count) == "a red hat sks now"


@pytest.mark.parametrize(
    ("caption", "what"),
    [
        ("a hat BREAK a coat", "BREAK"),
        ("a (red:1.2) hat", "weights"),
        ("a hat \\(red\\)", "escaped brackets"),
        ("a {red|blue} hat", "alternatives"),
        ("a [cat|dog] hat", "alternatives"),
        ("a hat <lora:ink:0.8>", "adapters"),
        ("a hat STEPS: 20, sampler: Euler", "generation settings"),
        ("a hat negative prompt: red", "generation settings"),
        ("a hat --v 6", "options"),
    ],
)
def test_commands_of_user_interfaces_are_noted(caption: str, what: str) -> None:
    (note,) = syntax_notes(["a plain hat", caption])
    assert note.startswith(f"1 of 2 captions holds {what}") and "as it is written" in note


@pytest.mark.parametrize("caption", ["a break in the wall", "a cat (sitting)", "ratio 16:9, [sic]", "two {curly} words", "a < b"])
def test_plain_texts_are_no_commands(caption: str) -> None:
    assert syntax_notes([caption]) == []


def test_tags_are_counted_as_sd_scripts_counts_them() -> None:
    assert tag_frequency(["Red Hat, cat", "cat,, red hat", "dog"]) == {"red hat": 2, "cat": 2, "dog": 1}


def test_long_texts_are_cut_in_messages() -> None:
    assert shortened("short") == "short" and shortened("x" * 200) == "x" * 80 + "..."
