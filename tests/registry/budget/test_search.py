"""The cheapest settings that fit a memory budget."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from registry.budget.search import TIME_FOR_ERROR, Candidate, Setting, Value, cheapest

AGAIN = Setting("again", (Value(False), Value(True, time=1.3, words="a third more time")))
BITS = Setting("bits", (Value(16), Value(8, time=1.1, error=0.005), Value(4, time=1.2, error=0.09)))
AWAY = Setting("away", tuple(Value(count, time=1 + count / 20) for count in range(5)))
SETTINGS = (AGAIN, BITS, AWAY)


def peak(values: Mapping[str, Any]) -> int:
    """Four blocks of 10 bytes a 16 bits each, one slot while some are away, and activations of 50 or 10."""
    block = 10 * values["bits"] // 16
    return int(block * (4 - values["away"] + (values["away"] > 0)) + (10 if values["again"] else 50))


def allowed(values: Mapping[str, Any]) -> bool:
    return bool(values["away"] == 0 or values["again"])


def every() -> list[Candidate]:
    found = [
        Candidate(dict(zip(("again", "bits", "away"), one, strict=True))) for one in itertools.product(*(each.values for each in SETTINGS))
    ]
    return [one for one in found if allowed(one.values)]


def test_what_fits_as_it_is_stays() -> None:
    found = cheapest(SETTINGS, 90, peak=peak, allowed=allowed)
    assert found.fits and found.chosen.values == {"again": False, "bits": 16, "away": 0}
    assert (found.chosen.peak, found.chosen.cost, found.cheaper) == (90, 0.0, None)


def test_cost_is_time_and_error_in_one_number() -> None:
    assert Candidate({"again": AGAIN.values[1], "bits": BITS.values[2]}).cost == pytest.approx(1.3 * 1.2 * (1 + TIME_FOR_ERROR * 0.09) - 1)


@pytest.mark.parametrize("budget", range(5, 100))
def test_the_choice_is_the_cheapest_of_all_that_fit(budget: int) -> None:
    fitting = [one for one in every() if peak(one.values) <= budget]
    found = cheapest(SETTINGS, budget, peak=peak, allowed=allowed)
    assert found.fits is bool(fitting)
    if fitting:
        assert found.chosen.cost == min(one.cost for one in fitting)
        assert peak(found.chosen.values) == found.chosen.peak
    else:
        assert found.chosen.peak == min(peak(one.values) for one in every())


@pytest.mark.parametrize("budget", range(12, 100, 3))
def test_a_little_less_memory_gives_the_dearer_choice_and_its_own_the_cheaper(budget: int) -> None:
    found = cheapest(SETTINGS, budget, peak=peak, allowed=allowed)
    if found.dearer is not None:
        assert cheapest(SETTINGS, (found.chosen.peak or 0) - 1, peak=peak, allowed=allowed).chosen == found.dearer
    if found.cheaper is not None:
        assert found.cheaper.peak is not None and found.cheaper.peak > budget
        assert found.cheaper.cost < found.chosen.cost
        assert cheapest(SETTINGS, found.cheaper.peak, peak=peak, allowed=allowed).chosen.peak == found.cheaper.peak
        assert cheapest(SETTINGS, found.cheaper.peak - 1, peak=peak, allowed=allowed).chosen.cost >= found.chosen.cost


def test_the_smallest_memory_does_and_a_byte_less_does_not() -> None:
    least = cheapest(SETTINGS, 1, peak=peak, allowed=allowed)
    assert not least.fits and least.chosen.peak is not None
    assert cheapest(SETTINGS, least.chosen.peak, peak=peak, allowed=allowed).fits
    assert not cheapest(SETTINGS, least.chosen.peak - 1, peak=peak, allowed=allowed).fits


@pytest.mark.parametrize("budget", [5, 20, 33, 51, 70, 90])
def test_a_lower_bound_changes_how_much_is_computed_and_not_what_is_found(budget: int) -> None:
    asked: list[Mapping[str, Any]] = []

    def counted(values: Mapping[str, Any]) -> int:
        asked.append(values)
        return peak(values)

    plain = cheapest(SETTINGS, budget, peak=counted, allowed=allowed)
    without = len(asked)
    asked.clear()
    bounded = cheapest(SETTINGS, budget, peak=counted, allowed=allowed, floor=lambda values: peak(values) - 3)
    assert bounded == plain
    assert len(asked) <= without
    assert len({tuple(values.items()) for values in asked}) == len(asked)  # none twice


def test_settings_of_one_value_are_fixed() -> None:
    found = cheapest((Setting("bits", (Value(8),)), AWAY), 15, peak=lambda values: 20 - 4 * values["away"])
    assert found.chosen.values == {"bits": 8, "away": 2}
