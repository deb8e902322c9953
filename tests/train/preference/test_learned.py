"""What is said of the held-out pairs: the share with its interval, and that nobody can tell where it includes half."""

from typing import Any

import pytest

from registry.formats.image_file import Size
from train.data.dataset import Sample
from train.output.judgement import Judgement
from train.preference.learned import judged_by, learned


def pairs(count: int, prompts: int) -> list[Sample]:
    return [Sample(str(n), str(n), Size(8, 8), f"prompt {n % prompts}", lambda: b"") for n in range(count)]


def found(right: int, wrong: int, *, prompts: int | None = None) -> Any:
    count = right + wrong
    return learned(pairs(count, prompts or count), [0.2] * right + [-0.1] * wrong, [0.11] * count, [0.1] * count)


def test_the_interval_is_wilsons_and_the_verdict_says_what_it_allows() -> None:
    good, bad, unknown = found(18, 2), found(2, 18), found(12, 8)
    assert (good.accuracy, good.low, good.high) == pytest.approx((0.9, 0.698966, 0.972137), abs=1e-5)  # statsmodels' proportion_confint
    assert [one.verdict for one in (good, bad, unknown)] == ["learned", "opposite", "cannot tell"]
    assert "nobody can tell" in unknown.sentences()[0] and "which includes 50%" in unknown.sentences()[0]
    assert "the opposite" in bad.sentences()[0]
    assert "+10.0%" in good.sentences()[1] and good.to_json()["preferred_loss"]["reference"] == pytest.approx(0.1)


def test_a_margin_of_nothing_is_half_right() -> None:
    one = learned(pairs(10, 10), [0.0] * 10, [0.1] * 10, [0.1] * 10)
    assert one.accuracy == 0.5 and one.verdict == "cannot tell"


def test_pairs_of_one_prompt_that_agree_widen_the_interval() -> None:
    margins = [1.0 if number % 4 < 3 else -1.0 for number in range(40)]  # prompts are all right or all wrong
    alone = learned(pairs(40, 40), margins, [0.1] * 40, [0.1] * 40)
    grouped = learned(pairs(40, 4), margins, [0.1] * 40, [0.1] * 40)
    assert alone.accuracy == grouped.accuracy == 0.75 and alone.verdict == "learned" and grouped.verdict == "cannot tell"
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("kind", "right", "expected"),
    [
        ("done", 10, "cannot_tell"),
        ("done", 19, "done"),
        ("done", 1, "not_better"),
        ("cannot_tell", 19, "done"),
        ("over_fitted", 19, "over_fitted"),
        ("over_fitted", 10, "cannot_tell"),
        ("nothing_learned", 10, "nothing_learned"),
        ("rate_too_high", 10, "rate_too_high"),
    ],
)
def test_a_judgement_is_not_done_where_nobody_can_tell(kind: str, right: int, expected: str) -> None:
    made = judged_by(Judgement(kind, "the rest", (1, 2)), found(right, 20 - right))
    assert made is not None and made.kind == expected and made.sentence.endswith("the rest")
