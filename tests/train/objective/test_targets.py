"""Targets and losses against the formulas in float64, with the alphas and sigmas of diffusers' own schedulers."""

import math

import pytest
import torch

from registry.errors import Refused, UnknownName
from tests.tiny import tiny_parts
from train.objective.targets import ObjectiveFunctions, objective_of
from train.objective.weighting import debiased

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
    functions = ObjectiveFunctions(weighting=lambda levels: levels.signal * 0 + 3.0, loss=lambda a, b: (a - b).abs())
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
