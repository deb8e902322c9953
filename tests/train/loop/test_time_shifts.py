"""Several sizes in one run: each is trained at the time shift that its images are drawn with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from train.config import DataConfig, ObjectiveConfig, TrainConfig
from train.loop.step import TrainState, denoising_pass

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
SHIFTS = {64: 1.583084, 256: 1.648721}  # of FLUX.1: exp(0.5 + (tokens - 256) 0.65 / 3840), with 16 and 256 tokens


def timesteps(state: TrainState, steps: int) -> dict[int, list[float]]:
    """By side in pixels, those of the run's own passes."""
    found: dict[int, list[float]] = {}
    for step in range(steps):
        for batch, *_ in state.order.step(step):
            made = denoising_pass(state, step, batch, len(batch.items))
            found.setdefault(int(made.noisy.shape[2]) * state.parts.latent_factor, []).extend(made.timesteps.tolist())
    return found


@pytest.mark.slow
def test_two_resolutions_have_two_time_shifts(settings: Settings, prepared: Prepared, tmp_path: Path) -> None:
    base = str(tiny.shared_folder("flux1"))
    data = DataConfig(path=str(tiny.tiny_dataset(tmp_path / "large", 2, size=256)))
    work = prepared(settings(base=base, resolution=[64, 256], data=data))
    assert work.plan.config.objective.shift is None
    assert "shifted by 1.58 to 1.65 by size" in work.plan.to_text()
    plain = prepared(settings(base=base, resolution=[64, 256], data=data, objective=ObjectiveConfig(shift=1.0), name="plain"))
    drawn, even = timesteps(work.state, 4), timesteps(plain.state, 4)
    assert set(drawn) == set(even) == set(SHIFTS)
    for side, shift in SHIFTS.items():
        shares = [time / 1000 for time in even[side]]
        expected = [1000 * shift * share / (1 + (shift - 1) * share) for share in shares]
        assert drawn[side] == pytest.approx(expected, abs=1.7), "a row of the table is at most 1.65 wide"


@pytest.mark.slow
def test_a_shift_that_is_given_holds_for_every_size(settings: Settings, prepared: Prepared, tmp_path: Path) -> None:
    data = DataConfig(path=str(tiny.tiny_dataset(tmp_path / "large", 1, size=128)))
    given = settings(base=str(tiny.shared_folder("flux1")), resolution=[64, 128], data=data, objective=ObjectiveConfig(shift=2.0))
    work = prepared(given)
    assert work.plan.config.objective.shift == 2.0 and not work.state.objective.shifts
    assert "shifted by 2\n" in work.plan.to_text()
