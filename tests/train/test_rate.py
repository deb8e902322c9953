"""Learning rates of the schedules and of torch's own scheduler classes."""

import math

import pytest

from registry.errors import Refused
from train.config import OptimConfig, ScheduleConfig, ScheduleParams, TrainConfig
from train.rate import learning_rate


def rates(name: str, *, steps: int, warmup: float) -> list[float]:
    config = TrainConfig(steps=steps, optim=OptimConfig(lr=1.0), schedule=ScheduleConfig(name=name, warmup=warmup))
    return [learning_rate(config, step) for step in range(steps)]


def test_constant_rises_over_the_warm_up_and_stays() -> None:
    assert rates("constant", steps=8, warmup=0.375) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_cosine_falls_from_the_top_to_nearly_nothing() -> None:
    assert rates("cosine", steps=4, warmup=0.0) == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_one_step_has_a_rate() -> None:
    assert rates("cosine", steps=1, warmup=0.05) == [1.0]


def options(name: str, steps: int = 4, **params: float) -> list[float]:
    schedule = ScheduleConfig(name=name, warmup=0.0, params=ScheduleParams(**params))
    return [learning_rate(TrainConfig(steps=steps, optim=OptimConfig(lr=1.0), schedule=schedule), step) for step in range(steps)]


def test_the_default_cosine_has_the_bits_of_its_formula() -> None:
    assert options("cosine", steps=97) == [0.5 * (1.0 + math.cos(math.pi * (step / 97))) for step in range(97)]


def test_cosine_restarts_as_often_as_it_has_cycles() -> None:
    assert options("cosine", cycles=2) == pytest.approx([1.0, 0.5, 1.0, 0.5])
    assert options("cosine", min_factor=0.2) == pytest.approx([1.0, 0.2 + 0.8 * 0.853553, 0.6, 0.2 + 0.8 * 0.146447], abs=1e-6)


def test_linear_and_polynomial_fall_to_their_least_factor() -> None:
    assert options("linear", min_factor=0.1) == pytest.approx([1.0, 0.775, 0.55, 0.325])
    assert options("polynomial", power=2.0) == pytest.approx([1.0, 0.5625, 0.25, 0.0625])


def test_rex_is_the_formula_of_the_paper() -> None:
    assert options("rex") == pytest.approx([1.0, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625])


def test_a_class_of_torch_is_run_ahead() -> None:
    config = TrainConfig(
        steps=6,
        optim=OptimConfig(lr=0.8),
        schedule=ScheduleConfig(name="torch.optim.lr_scheduler.StepLR", warmup=0.34, args={"step_size": 2, "gamma": 0.5}),
    )
    assert [learning_rate(config, step) for step in range(6)] == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0.8, 0.4, 0.4])


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("torch.optim.lr_scheduler.StepLR", {}, r"StepLR needs step_size: 'schedule\.args=\{step_size: \.\.\.\}'"),
        ("torch.optim.lr_scheduler.StepLR", {"step_size": 2, "gama": 0.5}, "has no option 'gama'. Did you mean 'gamma'"),
        ("torch.optim.lr_scheduler.StepLR", {"step_size": 2.5}, r"schedule\.args\.step_size must be a whole number, got 2\.5"),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", {}, "does not work with these options: TypeError"),
        ("torch.optim.lr_scheduler.StepRL", {}, "has no class 'StepRL'. Did you mean 'StepLR'"),
        ("torch.optim.SGD", {}, "not a subclass of torch.optim.lr_scheduler.LRScheduler"),
        ("torch.optm.StepLR", {}, "cannot be imported: No module named 'torch.optm'"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(name: str, args: dict[str, float], words: str) -> None:
    with pytest.raises(Refused, match=words):
        learning_rate(TrainConfig(schedule=ScheduleConfig(name=name, args=args)), 999)
