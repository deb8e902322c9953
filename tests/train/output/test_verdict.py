"""What a run's end makes of the held-out losses: sentences, and which step gets the name."""

from typing import Any

import pytest

from train.loop.history import History
from train.output.verdict import Verdict, losses_of, pooled, verdict_json, verdict_of

BASE = [0.86, 0.90, 0.82, 0.88, 0.84, 0.87]


def history(**steps: list[float]) -> History:
    rows: list[dict[str, Any]] = [{"step": int(name[1:]), "losses": losses} for name, losses in steps.items()]
    return History(base=BASE, heldout=rows)


def moved(by: float, *, spread: float = 0.01) -> list[float]:
    return [loss + by + spread * (-1) ** place for place, loss in enumerate(BASE)]


def found(**steps: list[float]) -> Verdict:
    verdict = verdict_of(history(**steps), 30)
    assert verdict is not None
    return verdict


def test_an_overfitted_run_names_the_best_step_first_and_gives_it_the_name() -> None:
    verdict = found(s10=moved(-0.25), s20=moved(-0.1), s30=moved(0.005, spread=0.02))
    used = verdict.step_to_use(None)
    lines = list(verdict.sentences("ink", used))
    assert used == 10 and lines[0].startswith("step 10 has the lowest held-out loss, 0.6117: better than the last step (difference -0.2550")
    assert lines[1] == (
        "held-out loss 0.8617 (base) -> 0.8667 (LoRA, step 30): cannot tell it from the base "
        "(difference +0.0050, 95% interval -0.0180 .. +0.0280)"
    )
    assert lines[-1].endswith("ink@last is step 30")
    words = list(verdict.sentences("ink", used, trained="embedding 'inkstyl'"))
    assert words[1].startswith("held-out loss 0.8617 (base) -> 0.8667 (embedding 'inkstyl', step 30): ")


def test_a_last_step_that_beats_the_base_keeps_the_name_unless_the_best_is_asked_for() -> None:
    verdict = found(s10=moved(-0.25), s30=moved(-0.1))
    assert [verdict.step_to_use(choice) for choice in (None, True, False)] == [30, 10, 30]
    assert list(verdict.sentences("ink", 30))[-1].startswith("ink is the last step; ink@best is step 10")


def test_a_lower_mean_within_chance_is_no_finding() -> None:
    verdict = found(s10=moved(-0.2001, spread=0.02), s30=moved(-0.2, spread=-0.02))
    assert not verdict.overfitted and [verdict.step_to_use(choice) for choice in (None, True)] == [30, 30]
    assert "no measured step is better than the last beyond chance; the lowest is step 10 (0.6616)" in list(verdict.sentences("ink", 30))


def test_the_interval_of_the_best_of_several_is_wider_than_that_of_one() -> None:
    from scipy.stats import ttest_rel

    best, last = moved(-0.3, spread=0.03), moved(-0.2)
    verdict = found(s10=best, s15=moved(-0.1), s20=moved(-0.1), s25=moved(-0.1), s30=last)
    wanted = ttest_rel(best, last).confidence_interval(1 - 0.05 / 4)
    assert verdict.best_to_last is not None
    assert (verdict.best_to_last.low, verdict.best_to_last.high) == pytest.approx((wanted.low, wanted.high))


def test_the_json_has_the_differences() -> None:
    plain = verdict_json(found(s30=moved(-0.1)))
    assert plain is not None and plain["best_to_final"] is None and plain["final_to_base"]["mean"] == pytest.approx(-0.1)
    assert verdict_json(None) is None and verdict_of(History(), 30) is None


def test_parts_of_a_set_are_pooled_over_their_images() -> None:
    history = History(base=[0.8, 0.6], heldout=[{"step": 30, "losses": [0.7, 0.52]}])
    images = losses_of(history, 30, ["a", "b"])
    assert images == {"a": {"base": 0.8, "final": 0.7}, "b": {"base": 0.6, "final": 0.52}} and losses_of(history, 31, ["a", "b"]) == {}
    other = {"heldout": {"images": {"c": {"base": 0.9, "final": 0.81}}}}
    found = pooled([{"heldout": {"images": images}}, other])
    assert found is not None and found.mean == pytest.approx(-0.09) and found.verdict == "better"
    # three differences -0.1, -0.08, -0.09: deviation 0.01, t(0.975, 2) = 4.302653
    assert found.low == pytest.approx(-0.09 - 4.302653 * 0.01 / 3**0.5, rel=1e-6)
    assert pooled([other, {"heldout": None}]) is None and pooled([]) is None
