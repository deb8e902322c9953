"""Names of settings, and the nearest one to a mistyped one."""

import pytest

from loraloom.hydra.settings import read_schema
from tests.loraloom.toy import Toy

SCHEMA = read_schema(Toy)


def test_nested_settings_have_dotted_names() -> None:
    assert list(SCHEMA.settings)[4:8] == ["mode", "knobs.rank", "knobs.label", "knobs.rate"]
    assert SCHEMA.sections == ("knobs",)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("stpes", "Did you mean 'steps'?"),
        ("rank", "Did you mean 'knobs.rank'?"),
        ("knobs.rnak", "Did you mean 'knobs.rank'?"),
        ("konbs", "Did you mean 'knobs'?"),
        ("rnak", "Did you mean 'knobs.rank'?"),
        ("mdoel", "Did you mean 'model'?"),
        ("knobs.zzz", "Known: knobs.rank, knobs.label, knobs.rate."),
        ("zzzzzz", "--help lists them all."),
    ],
)
def test_a_mistyped_name_is_answered_with_the_right_one_in_its_section(name: str, answer: str) -> None:
    assert SCHEMA.nearest(name, groups=["model"]) == answer


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("steps", "a whole number"),
        ("negative", "a text or null"),
        ("mode", "quick or careful"),
        ("words", "a list of texts, [...] or null"),
        ("size", "a value"),
        ("dry_run", "true or false"),
    ],
)
def test_what_is_expected_is_said_in_words(name: str, words: str) -> None:
    assert SCHEMA.settings[name].expected == words
