"""Schedules apart from samplers: literal sigmas, diffusers' own where it has them, and the data drawn with a perfect denoiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from bench.samplers.gaussian import BETAS, sample, sigma_table
from infer.draw.samplers import build_scheduler
from infer.sampling.checks import UNSTABLE, check_ends, check_eta, check_schedule
from infer.sampling.scheduled import Chosen, chosen_schedule
from infer.sampling.sigmas import SCHEDULES, Levels, levels_of, schedule_name
from registry.errors import Refused, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # of diffusers' schedulers under numpy 2

SAMPLERS = ("euler", "euler_a", "lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc")
STOCHASTIC = {"euler_a", "dpmpp_2m_sde", "dpmpp_3m_sde"}


def base(prediction: str = "epsilon", **config: Any) -> Any:
    settings = {**BETAS, "prediction_type": prediction, "timestep_spacing": "leading", "steps_offset": 1, **config}
    return SimpleNamespace(scheduler_config=settings, scheduler_class="DDIMScheduler", prediction=prediction)


def sigmas(name: str, steps: int, **ends: float) -> Any:
    table = sigma_table()
    found = levels_of(1 / (1 + table**2), **ends)
    return SCHEDULES[name].sigmas(found, steps)


def test_the_sigmas_of_stable_diffusion_are_these() -> None:
    """As k-diffusion 0.1.1 and A1111 1.10 give them at 5 steps; SGM Uniform and Simple by their definitions on the table."""
    table = sigma_table()
    assert sigmas("karras", 5) == pytest.approx([14.6146, 4.7965, 1.2741, 0.24795, 0.0292], rel=2e-3)
    assert sigmas("exponential", 5) == pytest.approx([14.6146, 3.0899, 0.6533, 0.1381, 0.0292], rel=2e-3)
    assert sigmas("simple", 5) == pytest.approx(table[[999, 799, 599, 399, 199]])
    halves = numpy.array([999, 799.2, 599.4, 399.6, 199.8])
    assert sigmas("sgm_uniform", 5) == pytest.approx(numpy.exp(numpy.interp(halves, numpy.arange(1000), numpy.log(table))))
    assert sigmas("uniform", 5) == pytest.approx(
        numpy.exp(numpy.interp([999, 749.25, 499.5, 249.75, 0], numpy.arange(1000), numpy.log(table)))
    )
    assert sigmas("karras", 3, least=0.1, most=10.0)[[0, -1]] == pytest.approx([10.0, 0.1])


@pytest.mark.parametrize("name", ["karras", "exponential", "beta"])
def test_diffusers_euler_has_the_same_sigmas(name: str) -> None:
    import diffusers

    reference = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace", **{f"use_{name}_sigmas": True})
    reference.set_timesteps(12)
    mine = build_scheduler(base(), "euler", schedule=Chosen(name=name))
    mine.set_timesteps(12)
    assert mine.sigmas.numpy() == pytest.approx(reference.sigmas.numpy(), rel=1e-4)
    assert mine.timesteps.numpy() == pytest.approx(reference.timesteps.numpy(), abs=0.02)
    assert mine.init_noise_sigma == pytest.approx(reference.init_noise_sigma)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_data_is_drawn(sampler: str, name: str) -> None:
    if (sampler, name) in UNSTABLE:
        with pytest.raises(Refused, match="'dpmpp_3m_sde' is not stable on schedule uniform"):
            check_schedule(base(), sampler, Chosen(name=name))
        return
    prediction = "v_prediction" if name == "karras" else "epsilon"
    scheduler = build_scheduler(base(prediction), sampler, schedule=Chosen(name=name))
    drawn = sample(scheduler, 40 if sampler == "lms" else 120, prediction, count=1500 if sampler in STOCHASTIC else 8)
    if sampler in STOCHASTIC:
        mean, spread = drawn.moments
        assert mean == pytest.approx(1.5, abs=0.03) and spread == pytest.approx(0.3, abs=0.05)
    else:
        assert drawn.error < 0.2  # of the spread


def test_a_sampler_keeps_its_own_schedule_without_one() -> None:
    one, other = build_scheduler(base(), "dpmpp_2m"), build_scheduler(base(), "dpmpp_2m", schedule=None)
    for scheduler in (one, other):
        scheduler.set_timesteps(7)
    assert one.sigmas.equal(other.sigmas) and not one.timesteps.is_floating_point()


def checked(sampler: str | None, schedule: Chosen) -> None:
    check_ends(base(), schedule)
    check_schedule(base(), sampler, schedule)


@pytest.mark.parametrize(
    ("sampler", "schedule", "words"),
    [
        ("ddim", Chosen(name="karras"), r"Sampler 'ddim' steps on a schedule of its own \(DDIMScheduler\)"),
        (None, Chosen(name="karras"), "The base's own sampler steps on a schedule of its own"),
        ("dpmpp_2m_karras", Chosen(name="beta"), "has a schedule in its name, and schedule_type is beta. Give 'dpmpp_2m'"),
        ("euler", Chosen(name="karras", most=20.0), r"sigma_max is 20. Expected 0.02917 to 14.61"),
        ("euler", Chosen(name="karras", least=5.0, most=2.0), "sigma_min is 5 and sigma_max 2. Expected the first to be the lower one"),
    ],
)
def test_what_cannot_be_is_refused(sampler: str | None, schedule: Chosen, words: str) -> None:
    with pytest.raises(Refused, match=words):
        checked(sampler, schedule)


def test_settings_that_do_not_go_together_are_refused() -> None:
    assert chosen_schedule(None, None, None) is None
    with pytest.raises(Refused, match=r"none is given\. Give schedule_type too: sgm_uniform, karras, exponential, beta"):
        chosen_schedule(None, 0.1, None)
    with pytest.raises(Refused, match=r"'simple' runs over the base's whole table"):
        chosen_schedule("simple", None, 3.0)
    with pytest.raises(UnknownName, match="karras"):
        chosen_schedule("karas", None, None)
    flow = SimpleNamespace(scheduler_config={}, scheduler_class="FlowMatchEulerDiscreteScheduler", prediction="flow")
    with pytest.raises(Refused, match="flow-matching base"):
        check_schedule(flow, None, Chosen(name="karras"))  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"eta is 0\.5\. Sampler 'euler' takes none\. These do: ddim, tcd"):
        check_eta(base(), "euler", 0.5)
    with pytest.raises(Refused, match=r"eta is 0\.5, but the samplers of a flow-matching base take none"):
        check_eta(flow, "ddim", 0.5)  # type: ignore[arg-type]
    check_eta(base(), "ddim", 0.5)
    check_eta(base(), "euler", 0.0)


def test_a_label_of_a1111_is_the_name() -> None:
    assert [schedule_name(label) for label in ("SGM Uniform", "karras", "Beta", "none")] == ["sgm_uniform", "karras", "beta", "none"]
    levels = Levels(table=sigma_table(), least=0.03, most=14.0)
    assert levels.timestep(levels.sigma(numpy.array([3.5, 700.25]))) == pytest.approx([3.5, 700.25])
