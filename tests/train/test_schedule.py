"""Every schedule against transformers' own function of it, over all steps, and the literals of those that transformers has not."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from train.config import OptimConfig, ScheduleConfig, ScheduleParams, TrainConfig
from train.rate import learning_rate
from train.schedule import SCHEDULES

STEPS, WARMUP = 40, 8


def of_transformers(make: Callable[..., Any], **options: Any) -> list[float]:
    """The rates after warmup of a schedule of transformers, at a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, num_warmup_steps=WARMUP, **options)
    rates = []
    for _ in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates[WARMUP:]


def rates_of(name: str, **params: Any) -> list[float]:
    schedule = ScheduleConfig(name=name, warmup=WARMUP / STEPS, params=ScheduleParams(**params))
    config = TrainConfig(steps=STEPS, optim=OptimConfig(lr=1.0), schedule=schedule)
    return [learning_rate(config, step) for step in range(WARMUP, STEPS)]


@pytest.mark.parametrize(
    ("name", "params", "peer", "options"),
    [
        ("constant", {}, "get_constant_schedule_with_warmup", {}),
        ("linear", {}, "get_linear_schedule_with_warmup", {"num_training_steps": STEPS}),
        ("cosine", {}, "get_cosine_schedule_with_warmup", {"num_training_steps": STEPS}),
        ("cosine", {"cycles": 3}, "get_cosine_with_hard_restarts_schedule_with_warmup", {"num_training_steps": STEPS, "num_cycles": 3}),
        ("cosine", {"min_factor": 0.1}, "get_cosine_with_min_lr_schedule_with_warmup", {"num_training_steps": STEPS, "min_lr_rate": 0.1}),
        (
            "polynomial",
            {"power": 1.7},
            "get_polynomial_decay_schedule_with_warmup",
            {"num_training_steps": STEPS, "power": 1.7, "lr_end": 0.0},
        ),
        (
            "polynomial",
            {"power": 2.0, "min_factor": 0.2},
            "get_polynomial_decay_schedule_with_warmup",
            {"num_training_steps": STEPS, "power": 2.0, "lr_end": 0.2},
        ),
        ("inverse_sqrt", {"timescale": WARMUP / (STEPS - WARMUP)}, "get_inverse_sqrt_schedule", {}),
        ("wsd", {"decay": 0.25, "fall": "cosine"}, "get_wsd_schedule", {"num_training_steps": STEPS, "num_decay_steps": 8}),
        (
            "wsd",
            {"decay": 0.25, "fall": "linear", "min_factor": 0.1},
            "get_wsd_schedule",
            {"num_training_steps": STEPS, "num_decay_steps": 8, "decay_type": "linear", "min_lr_ratio": 0.1},
        ),
    ],
)
def test_a_schedule_is_transformers_own(name: str, params: dict[str, Any], peer: str, options: dict[str, Any]) -> None:
    import transformers

    assert rates_of(name, **params) == pytest.approx(of_transformers(getattr(transformers.optimization, peer), **options), abs=1e-12)


def test_wsd_falls_by_one_minus_the_square_root() -> None:
    rates = rates_of("wsd", decay=0.25, fall="sqrt", min_factor=0.2)
    assert rates[:25] == [1.0] * 25
    assert rates[26] == pytest.approx(0.2 + 0.8 * 0.5) and rates[-1] == pytest.approx(0.2 + 0.8 * (1 - math.sqrt(7 / 8)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_begins_at_the_peak_and_never_rises_above_it(name: str) -> None:
    function = SCHEDULES[name].function
    rates = [function(step / 100) for step in range(100)]
    assert rates[0] == 1.0 and all(0.0 <= rate <= 1.0 for rate in rates)


def test_warmup_in_steps_takes_the_place_of_the_share() -> None:
    def rates(steps: int, **warmup: Any) -> list[float]:
        config = TrainConfig(steps=steps, optim=OptimConfig(lr=1.0), schedule=ScheduleConfig(name="constant", **warmup))
        return [learning_rate(config, step) for step in range(5)]

    assert rates(100, warmup_steps=3) == rates(7, warmup=0.5, warmup_steps=3) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(100, warmup_steps=0) == [1.0] * 5
