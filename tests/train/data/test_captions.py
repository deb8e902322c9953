import pytest

from train.data.captions import prompt_of


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
