"""Every sampler on every spacing and prediction: its sigmas are k-diffusion's, and with a perfect denoiser it draws the data."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from infer.draw.samplers import SAMPLERS, build_scheduler, drawn_schedule, flow_samplers
from registry.errors import Refused

if TYPE_CHECKING:
    from bench.samplers.gaussian import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

SPACINGS = ("linspace", "leading", "trailing")
KINDS = {"epsilon": ("epsilon", False), "v": ("v_prediction", False), "zero-SNR v": ("v_prediction", True)}
# the noise of every step is drawn anew: mean and spread, not each number
STOCHASTIC = {"euler_a", "dpm2_a_karras", "dpmpp_2m_sde", "dpmpp_2m_sde_karras", "dpmpp_3m_sde"}
WITHOUT_SIGMAS = {"ddim", "pndm", "lcm", "tcd"}  # they step on the table's timesteps
REFUSED = {("pndm", "zero-SNR v")}


def base(spacing: str, kind: str) -> Any:
    from bench.samplers.gaussian import BETAS

    prediction, zero_snr = KINDS[kind]
    config = {**BETAS, "prediction_type": prediction, "timestep_spacing": spacing, "steps_offset": 1, "rescale_betas_zero_snr": zero_snr}
    return SimpleNamespace(scheduler_config=config, scheduler_class="EulerDiscreteScheduler", prediction=prediction)


def grid(name: str, spacing: str, steps: int, *, zero_snr: bool) -> Any:
    """The sigmas by formula: Karras et al. 2022, eq. 5 with rho 7; exponential; even or trailing (Lin et al. 2023, table 2) timesteps."""
    import numpy

    from bench.samplers.gaussian import sigma_table

    table = sigma_table(zero_snr=zero_snr)
    last, first = table[0], table[-1]
    share = numpy.linspace(0, 1, steps)
    if "karras" in name:
        return (first ** (1 / 7) + share * (last ** (1 / 7) - first ** (1 / 7))) ** 7
    if SAMPLERS[name].schedule == "Exponential":
        return numpy.exp((1 - share) * numpy.log(first) + share * numpy.log(last))
    if spacing == "trailing":
        return table[numpy.round(1000 - 1000 / steps * numpy.arange(steps)).astype(int) - 1]
    if name in ("dpmpp_2m", "dpmpp_2m_sde", "unipc"):  # diffusers' even grid: one step more, and its last left out
        return table[numpy.linspace(0, 999, steps + 1).round().astype(int)][:0:-1]
    return numpy.exp(numpy.interp(numpy.linspace(999, 0, steps), numpy.arange(1000), numpy.log(table)))


COMBINATIONS = [one for one in product(sorted(SAMPLERS), SPACINGS, KINDS) if (one[0], one[2]) not in REFUSED]
# a base's leading spacing gives way to the sampler's own, as the test below holds; the longer walks run in the slow tier
DRAWN = [
    pytest.param(*one, marks=() if one[1:] in (("linspace", "epsilon"), ("trailing", "zero-SNR v")) else pytest.mark.slow)
    for one in COMBINATIONS
    if one[1] != "leading"
]


def some(names: set[str], *, other: bool = False) -> list[Any]:
    """The combinations of these samplers, or of all others."""
    return [one for one in DRAWN if (one.values[0] in names) != other]


@pytest.mark.parametrize(("name", "spacing", "kind"), [one for one in COMBINATIONS if one[0] not in WITHOUT_SIGMAS])
def test_the_sigmas_are_those_of_the_formula(name: str, spacing: str, kind: str) -> None:
    import numpy
    import torch

    steps = 10
    scheduler = build_scheduler(base(spacing, kind), name)
    scheduler.set_timesteps(steps)
    sigmas = torch.unique_consecutive(scheduler.sigmas).numpy()  # solvers of second order repeat them
    expected = grid(name, spacing, steps, zero_snr=KINDS[kind][1])
    assert sigmas[-1] == 0 and sigmas[:-1] == pytest.approx(expected, rel=2e-3)  # the table is summed in float32 there
    assert numpy.all(numpy.diff(sigmas) < 0)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_leading_base_is_stepped_as_a_linspace_one(name: str) -> None:
    one, other = build_scheduler(base("leading", "v"), name), build_scheduler(base("linspace", "v"), name)
    for scheduler in (one, other):
        scheduler.set_timesteps(10)
    assert one.timesteps.equal(other.timesteps) and one.init_noise_sigma == other.init_noise_sigma
    assert name in WITHOUT_SIGMAS or one.sigmas.equal(other.sigmas)


@pytest.mark.parametrize("name", ["euler_karras", "heun_karras", "lms_karras", "dpm2_karras", "dpm2_a_karras", "dpmpp_2m_karras"])
@pytest.mark.parametrize("steps", [10, 20])
def test_karras_sigmas_end_where_the_table_ends_whatever_the_spacing(name: str, steps: int) -> None:
    """Literal ends of Stable Diffusion's table: 14.6146 and 0.0292, as k-diffusion has them."""
    scheduler = build_scheduler(base("trailing", "v"), name)
    scheduler.set_timesteps(steps)
    sigmas = sorted({float(one) for one in scheduler.sigmas})
    assert sigmas[-1] == pytest.approx(14.6146, rel=1e-4) and sigmas[1] == pytest.approx(0.0292, rel=2e-3)


def solved(name: str, spacing: str, kind: str, steps: int) -> Outcome:
    from bench.samplers.gaussian import sample

    prediction, zero_snr = KINDS[kind]
    scheduler = build_scheduler(base(spacing, kind), name)
    count = 2000 if name in STOCHASTIC | {"lcm"} else 8
    return sample(scheduler, steps, prediction, zero_snr=zero_snr, count=count, consistency=name == "lcm")


@pytest.mark.parametrize(("name", "spacing", "kind"), some(STOCHASTIC | {"lcm"}, other=True))
def test_a_deterministic_sampler_converges_to_the_solution(name: str, spacing: str, kind: str) -> None:
    coarse, fine = solved(name, spacing, kind, 8).error, solved(name, spacing, kind, 40).error
    assert fine < 0.5 and fine < 0.6 * coarse  # of the spread, at the worst of eight numbers


@pytest.mark.parametrize(("name", "spacing", "kind"), some(STOCHASTIC))
def test_a_stochastic_sampler_draws_mean_and_spread(name: str, spacing: str, kind: str) -> None:
    mean, spread = solved(name, spacing, kind, 40).moments
    assert mean == pytest.approx(1.5, abs=0.03) and spread == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(("spacing", "kind"), list(product(("linspace", "trailing"), KINDS)))
def test_lcm_draws_the_data_with_a_consistency_function(spacing: str, kind: str) -> None:
    mean, spread = solved("lcm", spacing, kind, 4).moments
    assert mean == pytest.approx(1.5, abs=0.03) and spread == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", flow_samplers())
def test_flow_samplers_draw_the_data(name: str, shift: float) -> None:
    from bench.samplers.gaussian import sample

    parts: Any = SimpleNamespace(scheduler_config={"shift": shift}, scheduler_class="FlowMatchEulerDiscreteScheduler", prediction="flow")
    few, many = (
        sample(build_scheduler(parts, name), steps, "flow", count=2000 if name == "lcm" else 8, consistency=name == "lcm")
        for steps in (8, 40)
    )
    if name == "lcm":
        mean, spread = many.moments
        assert mean == pytest.approx(1.5, abs=0.03) and spread == pytest.approx(0.3, abs=0.02)
    else:
        assert many.error < 0.3 and many.error < few.error


def test_a_sampler_that_cannot_start_from_pure_noise_is_refused() -> None:
    words = r"Sampler 'pndm' cannot step this base: it divides by the signal of the first step.* These can: ddim, "
    with pytest.raises(Refused, match=words):
        build_scheduler(base("trailing", "zero-SNR v"), "pndm")
    epsilon = base("trailing", "zero-SNR v")
    epsilon.scheduler_config["prediction_type"] = epsilon.prediction = "epsilon"
    with pytest.raises(Refused, match=r"Sampler 'ddim' cannot step this base: .* predicts epsilon, which gives 0 / 0"):
        build_scheduler(epsilon, "ddim")


def test_steps_that_round_to_one_timestep_begin_at_the_first() -> None:
    """60 Karras steps from sigma 4096 round to timestep 999 more than once; looked up, the second would be taken and the last step fail."""
    from infer.draw.denoise import set_timesteps
    from registry.families import FAMILIES

    scheduler = build_scheduler(base("trailing", "zero-SNR v"), "dpmpp_2m_karras")
    timesteps = set_timesteps(FAMILIES["sd1"], scheduler, 60, strength=None, height=64, width=64)
    assert int((timesteps == 999).sum()) > 1 and scheduler.begin_index == 0


def test_only_images_on_another_schedule_than_before_have_another_key() -> None:
    changed = {(name, spacing, kind) for name, spacing, kind in COMBINATIONS if drawn_schedule(base(spacing, kind), name) is not None}
    unscaled = {"heun", "heun_karras", "lms", "lms_karras", "dpm2_karras", "dpm2_a_karras"}
    expected = set(product(unscaled, SPACINGS, ["zero-SNR v"]))
    assert changed == expected | set(product(unscaled - {"heun", "lms"} | {"euler_karras"}, ["trailing"], KINDS))
    assert drawn_schedule(base("trailing", "v"), None) is None
