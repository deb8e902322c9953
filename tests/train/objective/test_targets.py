"""Targets and losses against the formulas in float64, with the alphas and sigmas of diffusers' own schedulers."""

import math

import pytest
import torch

from registry.errors import UnknownName
from tests.tiny import tiny_parts
from train.objective.targets import TIMESTEPS, losses, objective_of

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
    objective = objective_of(prediction, scheduler, {**BETAS, "prediction_type": prediction}, distribution="uniform")
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
    objective = objective_of("v_prediction", "DDPMScheduler", {**BETAS, "prediction_type": "v_prediction"}, distribution="uniform")
    noisy, target = objective.noisy_and_target(latents, noise, TIMES)
    torch.testing.assert_close(noisy, own.add_noise(latents, noise, TIMES), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target, own.get_velocity(latents, noise, TIMES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_the_straight_path_over_the_schedulers_table(shift: float) -> None:
    import diffusers

    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    objective = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {"shift": shift}, distribution="uniform")
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
    objective = objective_of("flow", parts.scheduler_class, parts.scheduler_config, distribution="uniform", shift=shift)
    assert torch.allclose(objective.noise.flip(0).float(), scheduler.sigmas[:-1], atol=1e-6)  # the scheduler's are float32
    schnell, schnell_parts = tiny_parts("flux1", variant="schnell")
    assert schnell.shift(schnell_parts, 1024, 1024) == 1.0


def test_without_a_shift_a_dynamic_scheduler_s_table_is_even() -> None:
    objective = objective_of(
        "flow", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}, distribution="uniform"
    )
    assert objective.noise[499] == pytest.approx(0.5)


def test_loss_is_the_mean_square_of_each_image() -> None:
    answer, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert torch.equal(losses(answer, target), torch.tensor([5.0, 2.0]))
    assert losses(answer.bfloat16(), target).dtype == torch.float32


def test_rows_reach_both_ends() -> None:
    objective = objective_of("epsilon", "DDPMScheduler", BETAS, distribution="uniform")
    assert objective.rows(torch.tensor([0.0, 0.4999, 0.999999999])).tolist() == [0, 499, 999]


def test_logit_normal_is_symmetric_around_the_middle() -> None:
    way = TIMESTEPS["logit_normal"](torch.tensor([0.0, 0.1587, 0.5, 0.8413, 1.0], dtype=torch.float64))
    assert way[2] == 0.5
    torch.testing.assert_close(way[1] + way[3], torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-3)
    assert way[3] == pytest.approx(0.7311, abs=1e-3)  # sigmoid(1)


def test_unknown_names_are_answered() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'uniform'"):
        objective_of("epsilon", "DDPMScheduler", BETAS, distribution="unifrom")
