"""Targets and losses against the formulas in float64, with the alphas and sigmas of diffusers' own schedulers."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from registry.errors import Refused, UnknownName
from tests.tiny import tiny_parts
from train.objective.targets import ObjectiveFunctions, objective_of
from train.objective.timesteps import logit_normal
from train.objective.weighting import debiased
from train.objective.zero_terminal_snr import check_zero_terminal_snr, set_zero_terminal_snr

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMES = torch.tensor([0, 1, 250, 731, 999])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, 3, generator=generator), torch.randn(5, 4, 3, 3, generator=generator)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_diffusion_matches_the_formula_in_float64(prediction: str, scheduler: str) -> None:
    import diffusers

    own = diffusers.DDPMScheduler(**BETAS, prediction_type=prediction)
    latents, noise = batch()
    objective = objective_of(prediction, scheduler, {**BETAS, "prediction_type": prediction})
    noisy, target = objective.noisy_and_target(latents, noise, TIMES)

    a = own.alphas_cumprod.double()[TIMES].view(-1, 1, 1, 1)
    x, n = latents.double(), noise.double()
    torch.testing.assert_close(noisy.double(), a.sqrt() * x + (1 - a).sqrt() * n, rtol=1e-6, atol=1e-6)
    wanted = n if prediction == "epsilon" else a.sqrt() * n - (1 - a).sqrt() * x
    torch.testing.assert_close(target.double(), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(objective.timesteps[TIMES], TIMES.double())


def test_diffusion_matches_diffusers_own_noising() -> None:
    import diffusers

    own = diffusers.DDPMScheduler(**BETAS, prediction_type="v_prediction")
    latents, noise = batch()
    objective = objective_of("v_prediction", "DDPMScheduler", {**BETAS, "prediction_type": "v_prediction"})
    noisy, target = objective.noisy_and_target(latents, noise, TIMES)
    torch.testing.assert_close(noisy, own.add_noise(latents, noise, TIMES), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target, own.get_velocity(latents, noise, TIMES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_the_straight_path_over_the_schedulers_table(shift: float) -> None:
    import diffusers

    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    objective = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {"shift": shift})
    torch.testing.assert_close(objective.timesteps, own.timesteps.double().flip(0), rtol=1e-5, atol=1e-3)
    latents, noise = batch()
    noisy, target = objective.noisy_and_target(latents, noise, TIMES)
    sigma = objective.noise[TIMES].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy.double(), (1 - sigma) * latents.double() + sigma * noise.double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(target, noise - latents)


def test_a_shift_by_resolution_is_the_one_that_it_is_drawn_with() -> None:
    """FLUX.1: mu 0.5 at 256 tokens, 1.15 at 4096, and the training table is what its pipeline walks in as many steps."""
    import diffusers

    family, parts = tiny_parts("flux1")
    assert family.shift(parts, 256, 256) == pytest.approx(math.exp(0.5))
    assert family.shift(parts, 1024, 1024) == pytest.approx(math.exp(1.15))
    scheduler = getattr(diffusers, parts.scheduler_class).from_config(dict(parts.scheduler_config))
    family.set_timesteps(scheduler, 1000, height=1024, width=1024)
    shift = family.shift(parts, 1024, 1024)
    objective = objective_of("flow", parts.scheduler_class, parts.scheduler_config, shift=shift)
    assert torch.allclose(objective.noise.flip(0).float(), scheduler.sigmas[:-1], atol=1e-6)  # the scheduler's are float32
    schnell, schnell_parts = tiny_parts("flux1", variant="schnell")
    assert schnell.shift(schnell_parts, 1024, 1024) == 1.0


def test_without_a_shift_a_dynamic_scheduler_s_table_is_even() -> None:
    objective = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True})
    assert objective.noise[499] == pytest.approx(0.5)


def test_loss_is_the_mean_square_of_each_image() -> None:
    objective = objective_of("epsilon", "DDPMScheduler", BETAS)
    prediction, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    rows = torch.tensor([0, 999])
    assert torch.equal(objective.losses(prediction, target, rows), torch.tensor([5.0, 2.0]))
    assert torch.equal(objective.errors(prediction, target), torch.tensor([5.0, 2.0]))
    assert objective.losses(prediction.bfloat16(), target, rows).dtype == torch.float32


def test_the_default_loss_has_the_bits_of_the_plain_mean_square() -> None:
    latents, noise = batch()
    objective = objective_of("epsilon", "DDPMScheduler", BETAS)
    expected = (latents.bfloat16().float() - noise).square().flatten(1).mean(1)
    assert torch.equal(objective.losses(latents.bfloat16(), noise, TIMES), expected)


def test_the_loss_is_weighted_and_the_error_is_not() -> None:
    functions = ObjectiveFunctions(weighting=lambda levels: levels.signal * 0 + 3.0, loss=lambda a, b, _: (a - b).abs())
    objective = objective_of("epsilon", "DDPMScheduler", BETAS, functions)
    prediction, rows = torch.tensor([[1.0, -3.0]]), torch.tensor([5])
    assert float(objective.losses(prediction, torch.zeros(1, 2), rows)) == 6.0
    assert float(objective.errors(prediction, torch.zeros(1, 2))) == 5.0


def test_rows_reach_both_ends() -> None:
    objective = objective_of("epsilon", "DDPMScheduler", BETAS)
    assert objective.rows(torch.tensor([0.0, 0.4999, 0.999999999])).tolist() == [0, 499, 999]


def test_a_weighting_that_is_infinite_somewhere_is_refused() -> None:
    betas = {**BETAS, "rescale_betas_zero_snr": True}
    with pytest.raises(Refused, match="its last one has no signal"):
        objective_of("epsilon", "DDIMScheduler", betas, ObjectiveFunctions(weighting=debiased))
    assert bool(objective_of("v_prediction", "DDIMScheduler", betas, ObjectiveFunctions(weighting=debiased)).weights.isfinite().all())


def test_unknown_predictions_are_answered() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'epsilon'"):
        objective_of("epsilom", "DDPMScheduler", BETAS)


def test_perturbed_noise_is_mixed_in_and_plain_noise_is_learned() -> None:
    latents, noise = batch()
    objective = objective_of("v_prediction", "DDPMScheduler", BETAS)
    noisy, target = objective.noisy_and_target(latents, noise, TIMES, added=noise + 1.0)
    plain, wanted = objective.noisy_and_target(latents, noise, TIMES)
    assert torch.equal(target, wanted)
    torch.testing.assert_close(noisy - plain, objective.noise[TIMES].float().view(-1, 1, 1, 1).expand_as(noisy), rtol=1e-4, atol=1e-5)


def test_a_band_of_timesteps_is_that_of_sd_scripts() -> None:
    """Uniform from 200 to below 700, as torch.randint(200, 700)."""
    objective = objective_of("epsilon", "DDPMScheduler", BETAS, ObjectiveFunctions(band=(200.0, 700.0)))
    assert objective.rows((torch.arange(500) + 0.5) / 500).tolist() == list(range(200, 700))
    assert objective.rows(torch.tensor([0.0, 1 - 1e-7])).tolist() == [200, 699]


def test_a_band_truncates_a_distribution_of_its_own_form() -> None:
    """Half of logit-normal timesteps between sigmoid(-1) and sigmoid(1) lie below the middle; a flow's timesteps begin at 1."""
    functions = ObjectiveFunctions(timesteps=logit_normal, band=(268.94, 731.06))
    objective = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {"shift": 1.0}, functions)
    found = objective.timesteps[objective.rows(torch.tensor([0.0, 0.5, 1 - 1e-7, 0.25]))].tolist()
    quarter = 1000 * float(torch.special.ndtri(torch.tensor(0.1587 + 0.25 * 0.6827)).sigmoid())
    assert found == pytest.approx([269, 500.5, 731, quarter], abs=1.5) and found[0] > 268.94 and found[2] < 731.06


def test_a_band_that_is_empty_or_beyond_the_table_is_refused() -> None:
    for band, words in (((0.0, 1001.0), "this base has 1000 timesteps"), ((500.2, 500.7), "next to nothing in between")):
        with pytest.raises(Refused, match=words):
            objective_of("epsilon", "DDPMScheduler", BETAS, ObjectiveFunctions(band=band))
    narrow = ObjectiveFunctions(timesteps=partial(logit_normal, std=0.01), band=(900.0, None))
    with pytest.raises(Refused, match="next to nothing in between"):
        objective_of("epsilon", "DDPMScheduler", BETAS, narrow)


def test_each_size_has_its_own_time_shift() -> None:
    """The noise levels of a size are those of a table with its shift alone, to within a row."""
    both = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {}, shifts={(8, 8): 1.5, (16, 16): 3.0})
    quantiles = torch.linspace(0, 0.999, 400)
    for size, shift in (((8, 8), 1.5), ((16, 16), 3.0)):
        alone = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {}, shift=shift)
        found, wanted = both.noise[both.rows(quantiles, size)], alone.noise[alone.rows(quantiles)]
        assert float((found - wanted).abs().max()) < 5e-3
    assert torch.equal(both.rows(quantiles, (16, 16)), alone.rows(quantiles))
    assert not torch.equal(both.rows(quantiles, (8, 8)), alone.rows(quantiles))


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerDiscreteScheduler", "DDIMScheduler"])
def test_zero_terminal_snr_is_the_paper_s_rescaling(scheduler: str) -> None:
    """As diffusers' own function rescales the betas; the last timestep is pure noise, and images start there."""
    import diffusers
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    from infer.draw.samplers import build_scheduler

    _, parts = tiny_parts("sd1")
    parts = replace(parts, scheduler_class=scheduler, scheduler_config=BETAS, prediction="v_prediction")
    set_zero_terminal_snr(parts)
    objective = objective_of("v_prediction", parts.scheduler_class, parts.scheduler_config)
    betas = rescale_zero_terminal_snr(diffusers.DDPMScheduler(**BETAS).betas)
    torch.testing.assert_close(objective.signal, (1 - betas).cumprod(0).sqrt().double(), rtol=1e-4, atol=3e-4)  # Euler ends at 2^-12
    assert float(objective.signal[-1]) <= 2.0**-12 and float(objective.noise[-1]) == pytest.approx(1.0)
    drawn = build_scheduler(parts)
    drawn.set_timesteps(10)
    assert float(drawn.timesteps[0]) == 999.0 and not isinstance(drawn, diffusers.PNDMScheduler)


def test_zero_terminal_snr_is_refused_where_it_teaches_nothing() -> None:
    check_zero_terminal_snr("v_prediction")
    with pytest.raises(Refused, match="needs a base that predicts v; this one predicts epsilon"):
        check_zero_terminal_snr("epsilon")
    with pytest.raises(Refused, match="a flow model starts from pure noise as it is"):
        check_zero_terminal_snr("flow")
