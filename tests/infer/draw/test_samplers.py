"""Samplers: the settings each name stands for, what a base may insist on, and what flow models cannot be stepped with."""

from __future__ import annotations

from typing import Any

import pytest

from infer.draw.samplers import SAMPLERS, build_scheduler, check_sampler, check_steps, flow_samplers
from registry.architectures.transformer.flow_schedule import linear_mu
from registry.errors import Refused, UnknownName
from registry.families import FAMILIES
from tests.tiny import tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.fixture(scope="module")
def sd1() -> Any:
    return tiny_parts("sd1")[1]


@pytest.fixture(scope="module")
def flux() -> Any:
    return tiny_parts("flux1")[1]


@pytest.fixture(scope="module")
def schnell() -> Any:
    return tiny_parts("flux1", variant="schnell")[1]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_setting_reaches_the_scheduler(sd1: Any, name: str) -> None:
    """diffusers only warns of a setting it does not know; here each is in the scheduler's config, over the base's betas."""
    scheduler = build_scheduler(sd1, name)
    assert type(scheduler).__name__ == SAMPLERS[name].scheduler
    assert {key: scheduler.config.get(key, "unknown") for key in SAMPLERS[name].settings} == dict(SAMPLERS[name].settings)
    assert scheduler.config.beta_start == 0.00085 and scheduler.config.beta_end == 0.012
    assert scheduler.config.prediction_type == "epsilon"


def test_none_is_the_base_s_own(sd1: Any, flux: Any) -> None:
    assert type(build_scheduler(sd1)).__name__ == "PNDMScheduler"
    assert build_scheduler(flux).config.use_dynamic_shifting


def test_each_image_has_a_scheduler_of_its_own(sd1: Any) -> None:
    assert build_scheduler(sd1, "pndm") is not build_scheduler(sd1, "pndm")


def test_euler_steps_on_the_field_s_grid(sd1: Any) -> None:
    """A1111's Euler: sigmas at even timesteps from 999 to 0, then zero; x + (next - sigma) * epsilon."""
    import numpy
    import torch

    scheduler = build_scheduler(sd1, "euler")
    scheduler.set_timesteps(5)
    betas = numpy.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    remaining = numpy.cumprod(1 - betas)
    table = ((1 - remaining) / remaining) ** 0.5
    grid = numpy.interp(numpy.linspace(999, 0, 5), numpy.arange(1000), table)
    assert numpy.allclose(scheduler.sigmas.numpy(), [*grid, 0.0], rtol=1e-4)  # diffusers sums its betas in float32
    latents, epsilon = torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), 0.5)
    stepped = scheduler.step(epsilon, scheduler.timesteps[0], latents, return_dict=False)[0]
    assert torch.allclose(stepped, latents + (grid[1] - grid[0]) * 0.5, rtol=1e-5)


def test_ddim_does_not_clip_latents(sd1: Any) -> None:
    import torch

    scheduler = build_scheduler(sd1, "ddim")
    scheduler.set_timesteps(4)
    latents = torch.full((1, 4, 2, 2), 40.0)
    result = scheduler.step(torch.zeros_like(latents), scheduler.timesteps[0], latents)
    assert float(result.pred_original_sample.min()) > 40.0  # the class's own default would clip it to 1


def test_a_base_that_starts_at_its_last_step_keeps_doing_so(sd1: Any) -> None:
    """pocket is one: leading spacing would start it at an image it never saw."""
    from dataclasses import replace

    trailing = replace(sd1, scheduler_config={**sd1.scheduler_config, "timestep_spacing": "trailing"})
    for name in ("euler", "ddim", "dpmpp_2m", "unipc", "pndm"):
        scheduler = build_scheduler(trailing, name)
        scheduler.set_timesteps(4)
        assert float(scheduler.timesteps[0]) == 999.0, name
    assert build_scheduler(sd1, "ddim").config.timestep_spacing == "leading"


def test_the_base_s_own_sigmas_do_not_leak_into_a_named_sampler(sd1: Any) -> None:
    from dataclasses import replace

    karras = replace(sd1, scheduler_config={**sd1.scheduler_config, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"})
    scheduler = build_scheduler(karras, "dpmpp_2m")
    assert not scheduler.config.use_karras_sigmas and scheduler.config.algorithm_type == "dpmsolver++"


def test_a_typo_is_answered() -> None:
    with pytest.raises(UnknownName, match=r"Unknown sampler 'eular'. Did you mean 'euler'"):
        check_sampler("eular", prediction="epsilon")


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - set(flow_samplers())))
def test_samplers_that_cannot_step_flow_are_refused(flux: Any, name: str) -> None:
    with pytest.raises(Refused, match=r"cannot step a flow-matching base. These can: dpmpp_2m, euler"):
        build_scheduler(flux, name)


def test_heun_needs_a_static_shift(flux: Any, schnell: Any) -> None:
    with pytest.raises(Refused, match="no resolution-dependent shift"):
        build_scheduler(flux, "heun")
    assert type(build_scheduler(schnell, "heun")).__name__ == "FlowMatchHeunDiscreteScheduler"


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_flow_samplers_recover_a_constant_field(flux: Any, name: str) -> None:
    """Along a straight path the velocity is constant, so any solver must end at the clean latents."""
    import torch

    scheduler = build_scheduler(flux, name)
    FAMILIES["flux1"].set_timesteps(scheduler, 4, height=64, width=64)
    clean, noise = torch.full((1, 16, 2, 2), 0.25), torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    first = float(scheduler.sigmas[0])  # 0.9999, not 1
    latents = (1 - first) * clean + first * noise
    for time in scheduler.timesteps:
        latents = scheduler.step(noise - clean, time, latents, return_dict=False)[0]
    assert float((latents - clean).abs().max()) < 1e-5


def test_flux_shift_follows_the_image_s_size(flux: Any) -> None:
    assert linear_mu({}, tokens=256) == pytest.approx(0.5)
    assert linear_mu({}, tokens=4096) == pytest.approx(1.15)
    assert linear_mu({"max_image_seq_len": 8192, "max_shift": 0.9}, tokens=8192) == pytest.approx(0.9)
    small, large = (build_scheduler(flux) for _size in range(2))

    FAMILIES["flux1"].set_timesteps(small, 4, height=64, width=64)
    FAMILIES["flux1"].set_timesteps(large, 4, height=1024, width=1024)
    assert float(large.timesteps[1]) > float(small.timesteps[1])


@pytest.mark.parametrize("name", ["unipc", "dpmpp_2m", "euler"])
def test_the_base_s_line_of_shifts_holds_under_every_flow_sampler(name: str) -> None:
    """Krea 2's base walks from 256 to 6400 tokens, its distilled build has one shift: neither is the samplers' own default."""
    family = FAMILIES["krea2"]
    for variant, expected in (("base", 0.5 + 0.65 * (4096 - 256) / (6400 - 256)), ("distilled", 1.15)):
        scheduler = build_scheduler(tiny_parts("krea2", variant=variant)[1], name)
        assert linear_mu(scheduler.config, tokens=4096) == pytest.approx(expected)
        family.set_timesteps(scheduler, 4, height=1024, width=1024)
        assert float(scheduler.timesteps[1]) > float(scheduler.timesteps[2])


def test_options_of_a_sampler_reach_its_scheduler(sd1: Any) -> None:
    assert build_scheduler(sd1, "unipc").config.solver_order == 2 and build_scheduler(sd1, "unipc", {"order": 3}).config.solver_order == 3
    assert build_scheduler(sd1, "lcm", {"original_steps": 100}).config.original_inference_steps == 100


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("unipc", {"oder": 3}, "UniPC has no option 'oder'. Did you mean 'order'"),
        ("unipc", {"order": 4}, "order must be a whole number from 1 to 3, got 4"),
        ("unipc", {"solver": "bh1"}, "UniPC has no option 'solver'"),
        ("euler", {"order": 2}, "Euler Uniform has no option 'order'"),
        (None, {"order": 2}, "own sampler has no options"),
    ],
)
def test_a_wrong_option_of_a_sampler_is_refused(sd1: Any, name: str | None, params: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        build_scheduler(sd1, name, params)


def test_the_steps_of_a_distillation_bind_diffusion_bases_alone() -> None:
    check_steps("lcm", 50, prediction="epsilon", config={})
    check_steps("lcm", 60, prediction="epsilon", config={"original_inference_steps": 100})
    check_steps("lcm", 60, prediction="flow", config={})
    with pytest.raises(Refused, match="picks its steps among the 50"):
        check_steps("tcd", 60, prediction="epsilon", config={})
    for wrong in ("x", [1], 0, True, None):
        with pytest.raises(Refused, match="original_inference_steps of the base's scheduler is"):
            check_steps("lcm", 4, prediction="epsilon", config={"original_inference_steps": wrong})
