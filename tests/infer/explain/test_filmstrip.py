"""The predicted clean latents of every sampler, held against a denoiser in closed form."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from infer.draw.samplers import SAMPLERS, build_scheduler, flow_samplers
from infer.explain.filmstrip import Filmstrip, clean_latents, spread
from tests.infer.draw.test_sampler_solutions import REFUSED, base

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

VALUE = 1.5  # of all data, so that x0 of a perfect denoiser is this number at every step
ROUNDED = 0.06  # timesteps of Karras and exponential schedules are whole numbers to the denoiser, and sigmas are not rounded


def test_x0_of_each_prediction() -> None:
    """x = 0.8 x0 + 0.6 noise with x0 = 2 and noise = 1; flow: x = 0.4 x0 + 0.6 noise."""
    x, flow = torch.tensor([2.2]), torch.tensor([1.4])
    assert clean_latents("epsilon", torch.tensor([1.0]), x, alpha=0.8, sigma=0.6).item() == pytest.approx(2)
    assert clean_latents("v_prediction", torch.tensor([0.8 * 1 - 0.6 * 2]), x, alpha=0.8, sigma=0.6).item() == pytest.approx(2)
    assert clean_latents("flow", torch.tensor([1.0 - 2.0]), flow, alpha=0.4, sigma=0.6).item() == pytest.approx(2)


def test_frames_are_spread_from_the_first_call_to_the_last() -> None:
    assert sorted(spread(16, 7)) == [0, 2, 5, 8, 10, 12, 15] and sorted(spread(3, 7)) == [0, 1, 2] and sorted(spread(9, 1)) == [0]


def watched(scheduler: Any, prediction: str, monkeypatch: pytest.MonkeyPatch, steps: int = 6) -> Filmstrip:
    from bench.samplers import gaussian

    monkeypatch.setattr(gaussian, "SPREAD", 0.0)
    monkeypatch.setattr(gaussian, "MEAN", VALUE)
    strip = Filmstrip(prediction=prediction, count=64)
    strip.watch(scheduler)
    gaussian.sample(scheduler, steps, prediction)
    return strip


@pytest.mark.parametrize(("name", "kind"), [one for one in product(sorted(SAMPLERS), ("epsilon", "v")) if one not in REFUSED])
def test_every_sampler_s_frames_are_the_data(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = build_scheduler(base("linspace", kind), name)
    strip = watched(scheduler, {"epsilon": "epsilon", "v": "v_prediction"}[kind], monkeypatch)
    assert len(strip.frames) == strip.frames[0].calls == len(scheduler.timesteps)
    for frame in strip.frames:
        assert float((frame.clean - VALUE).abs().max()) < ROUNDED, frame
    assert [frame.call for frame in strip.frames] == list(range(len(strip.frames)))


@pytest.mark.parametrize("name", [None, *sorted(flow_samplers())])
def test_every_flow_sampler_s_frames_are_the_data(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    parts: Any = SimpleNamespace(
        scheduler_config={"shift": 3.0, "num_train_timesteps": 1000}, scheduler_class="FlowMatchEulerDiscreteScheduler", prediction="flow"
    )
    strip = watched(build_scheduler(parts, name), "flow", monkeypatch)
    assert strip.frames and all(float((frame.clean - VALUE).abs().max()) < 1e-4 for frame in strip.frames)
