"""The loss of pairs on numbers worked out by hand, and against eq. 14 of the paper written out anew on predictions."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from train.choices import choose_objective, functions_of
from train.config import ObjectiveConfig, ObjectiveParams
from train.objective.preference import margins, preference_losses
from train.objective.targets import objective_of

OWN = [0.30, 0.20, 0.50, 0.40]  # two preferred images, then the two others
REFERENCE = [0.32, 0.20, 0.45, 0.40]


def test_the_margin_and_the_loss_are_those_of_the_formula() -> None:
    own, reference = torch.tensor(OWN, dtype=torch.float64), torch.tensor(REFERENCE, dtype=torch.float64)
    found = margins(own, reference, beta=20.0)
    assert found.tolist() == pytest.approx([0.7, 0.0])  # 20 / 2 (0.02 + 0.05)
    assert preference_losses(found).tolist() == pytest.approx([0.403186, 0.693147], abs=1e-6)


def test_the_gradient_raises_the_preferred_image_and_lowers_the_other_one() -> None:
    own = torch.tensor(OWN, dtype=torch.float64, requires_grad=True)
    loss = preference_losses(margins(own, torch.tensor(REFERENCE, dtype=torch.float64), beta=20.0)).sum()
    (gradient,) = torch.autograd.grad(loss, own)
    assert gradient.tolist() == pytest.approx([3.318122, 5.0, -3.318122, -5.0], abs=1e-6)  # 10 sigmoid(-0.7), 10 sigmoid(0)


@pytest.mark.parametrize("beta", [1e-9, 5000.0])
def test_it_is_log_2_for_a_beta_near_0_and_for_a_model_that_is_the_reference(beta: float) -> None:
    own, other = torch.tensor(OWN), torch.tensor(OWN if beta > 1 else REFERENCE)
    assert preference_losses(margins(own, other, beta=beta)).tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)


def test_a_large_margin_neither_overflows_nor_vanishes() -> None:
    found = preference_losses(torch.tensor([-5e4, 5e4]))
    assert found.tolist() == [5e4, 0.0]


def equation_14(pairs: np.ndarray, noise: np.ndarray, predicted: np.ndarray, reference: np.ndarray, *, beta_t_omega: float) -> Any:
    """Wallace et al. 2023, eq. 14, with norms as sums: pairs, noise, predictions (2, B, C, H, W) in float64."""
    squares = [((noise - one) ** 2).sum(axis=(2, 3, 4)) for one in (predicted, reference)]  # (2, B)
    gain = squares[0] - squares[1]
    return np.log1p(np.exp(beta_t_omega * (gain[0] - gain[1])))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_is_equation_14_whose_beta_is_over_sums(prediction: str) -> None:
    rng = np.random.default_rng(3)
    latents, noise = rng.standard_normal((2, 3, 4, 2, 2)), np.broadcast_to(rng.standard_normal((3, 4, 2, 2)), (2, 3, 4, 2, 2))
    predicted, reference = noise + 0.1 * rng.standard_normal(noise.shape), noise + 0.1 * rng.standard_normal(noise.shape)
    config = ObjectiveConfig(weighting="p2", params=ObjectiveParams(gamma=0.0)) if prediction == "v_prediction" else ObjectiveConfig()
    functions = functions_of(config, choose_objective(config, "uniform"))
    objective = objective_of(prediction, "DDIMScheduler", {"beta_schedule": "scaled_linear", "beta_end": 0.012}, functions)
    rows = torch.tensor([100, 500, 900])
    signal, sigma = (column[rows].numpy().reshape(1, 3, 1, 1, 1) for column in (objective.signal, objective.noise))
    noisy = signal * latents + sigma * noise
    if prediction == "v_prediction":  # v = (noise - sigma noisy) / signal, of whatever noise is predicted
        own, other, target = ((one - sigma * noisy) / signal for one in (predicted, reference, noise))
    else:
        own, other, target = predicted, reference, noise

    def errors(one: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((one - target) ** 2).mean(axis=(2, 3, 4)).reshape(-1))

    beta, elements = 50.0, 4 * 2 * 2
    found = preference_losses(objective.weights[rows] * margins(errors(own), errors(other), beta=beta))
    expected = equation_14(latents, noise, predicted, reference, beta_t_omega=beta / 2 / elements)
    assert found.numpy() == pytest.approx(expected, rel=1e-9)
    assert np.std(expected) > 1e-3


def test_a_flow_models_beta_is_constant_and_p2_gives_that_of_the_evidence_bound() -> None:
    """Liu et al. 2025: beta (1 - t)^2 follows from the bound, and a constant beta is what they train with."""
    for name, expected in (("none", [1.0, 1.0]), ("p2", [0.5625, 0.0625])):
        config = ObjectiveConfig(weighting=name, params=ObjectiveParams(**({"gamma": 0.0} if name == "p2" else {})))
        functions = functions_of(config, choose_objective(config, "uniform"))
        objective = objective_of("flow", "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000}, functions)
        assert objective.weights[[249, 749]].tolist() == pytest.approx(expected)


def test_the_script_of_diffusers_has_half_of_this_beta() -> None:
    """diffusers' train_diffusion_dpo.py: -log sigmoid(beta_dpo ((ref_w - ref_l) - (own_w - own_l))) on means."""
    own, reference = np.array(OWN), np.array(REFERENCE)
    of_the_script = -np.log(1 / (1 + np.exp(-10.0 * ((reference[:2] - reference[2:]) - (own[:2] - own[2:])))))
    found = preference_losses(margins(torch.tensor(OWN, dtype=torch.float64), torch.tensor(REFERENCE, dtype=torch.float64), beta=20.0))
    assert found.numpy() == pytest.approx(of_the_script)
