import pytest

from train.config import OptimConfig, ScheduleConfig, TrainConfig
from train.optim import learning_rate


def rates(name: str, *, steps: int, warmup: float) -> list[float]:
    config = TrainConfig(steps=steps, optim=OptimConfig(lr=1.0), schedule=ScheduleConfig(name=name, warmup=warmup))
    return [learning_rate(config, step) for step in range(steps)]


def test_constant_rises_over_the_warm_up_and_stays() -> None:
    assert rates("constant", steps=8, warmup=0.375) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_cosine_falls_from_the_top_to_nearly_nothing() -> None:
    assert rates("cosine", steps=4, warmup=0.0) == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_one_step_has_a_rate() -> None:
    assert rates("cosine", steps=1, warmup=0.05) == [1.0]
