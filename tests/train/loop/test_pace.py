"""The rate of the steps and the time left, with a clock of the test's own."""

import pytest

from train.loop import pace
from train.loop.pace import Pace, times_due


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def test_pauses_are_no_time_of_the_steps_and_are_foreseen(clock: Clock) -> None:
    paced = Pace()
    with paced.pause("held-out"):
        clock.now += 4  # of the base, before the first step
    paced.begin_steps()
    clock.now += 5
    paced.steps = 10
    with paced.pause("held-out"):
        clock.now += 6
    assert paced.rate == pytest.approx(2.0) and paced.elapsed == pytest.approx(11.0)
    assert paced.seconds_left(20, {"held-out": 3, "previews": 2}) == pytest.approx(20 / 2 + 3 * 5)  # no preview was ever timed


def test_before_the_first_step_nothing_is_known(clock: Clock) -> None:
    assert Pace().rate == 0.0 and Pace().seconds_left(5, {}) is None


@pytest.mark.parametrize(
    ("step", "steps", "intervals"), [(0, 10, [5]), (0, 11, [5]), (4, 30, [4, 6]), (12, 30, [4, 6, 9]), (30, 30, [7]), (0, 7, [100])]
)
def test_what_is_due_is_counted_without_walking(step: int, steps: int, intervals: list[int]) -> None:
    walked = [n for n in range(step + 1, steps + 1) if n == steps or any(n % every == 0 for every in intervals)]
    assert times_due(step, steps, intervals) == len(walked)
