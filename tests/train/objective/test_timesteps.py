"""Quantile functions of the training timesteps, on a few quantiles with the numbers written out."""

import math

import pytest
import torch

from train.objective.timesteps import TIMESTEPS, beta, cosmap, logit_normal, mode, quantile_of, shifted

QUANTILES = torch.tensor([0.0, 0.1587, 0.5, 0.8413, 1.0], dtype=torch.float64)


def test_logit_normal_is_symmetric_around_the_middle() -> None:
    share = logit_normal(QUANTILES)
    assert share[2] == 0.5
    torch.testing.assert_close(share[1] + share[3], torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-3)
    assert share[3] == pytest.approx(0.7311, abs=1e-3)  # sigmoid(1)


def test_the_default_logit_normal_has_the_bits_of_the_standard_normal() -> None:
    quantiles = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(logit_normal(quantiles), torch.special.ndtri(quantiles.clamp(1e-12, 1 - 1e-12)).sigmoid())


def test_logit_normal_moves_by_its_mean_and_widens_by_its_std() -> None:
    share = logit_normal(QUANTILES, mean=0.5, std=2.0)
    assert share[2] == pytest.approx(1 / (1 + math.exp(-0.5))) and share[3] == pytest.approx(1 / (1 + math.exp(-2.5)), abs=1e-3)


def test_mode_is_the_formula_of_the_paper() -> None:
    """f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u) at u = 0.75, s = 1.29."""
    expected = 1 - 0.75 - 1.29 * (math.cos(math.pi * 0.375) ** 2 - 1 + 0.75)
    assert float(mode(torch.tensor(0.25, dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)
    assert mode(QUANTILES, scale=0.0).tolist() == pytest.approx(QUANTILES.tolist())


def test_cosmap_is_the_formula_of_the_paper() -> None:
    assert cosmap(torch.tensor([0.0, 0.5], dtype=torch.float64)).tolist() == pytest.approx([0.0, 0.5])
    assert float(cosmap(torch.tensor(0.25, dtype=torch.float64))) == pytest.approx(1 - 1 / (math.tan(math.pi / 8) + 1))


@pytest.mark.parametrize("name", sorted(TIMESTEPS))
def test_more_of_a_quantile_is_more_noise(name: str) -> None:
    share = TIMESTEPS[name].function(torch.linspace(0, 0.999, 200, dtype=torch.float64))
    assert bool((share.diff() >= 0).all()) and float(share.min()) >= -1e-12 and float(share.max()) <= 1


@pytest.mark.parametrize(("name", "options"), [("logit_normal", {"mean": 0.5, "std": 1.2}), ("mode", {"scale": 1.29})])
def test_the_densities_are_those_of_diffusers(name: str, options: dict[str, float]) -> None:
    """Its draws, from the same numbers: a normal of mean and deviation through the sigmoid, a uniform u = 1 - quantile."""
    from diffusers.training_utils import compute_density_for_timestep_sampling

    mean, std = options.get("mean", 0.0), options.get("std", 1.0)
    reference = compute_density_for_timestep_sampling(
        name, 500, logit_mean=mean, logit_std=std, mode_scale=options.get("scale"), generator=torch.Generator().manual_seed(0)
    )
    drawn = torch.Generator().manual_seed(0)
    if name == "mode":
        quantiles = 1 - torch.rand(500, generator=drawn).double()
    else:
        quantiles = torch.special.ndtr((torch.normal(mean, std, (500,), generator=drawn).double() - mean) / std)
    torch.testing.assert_close(TIMESTEPS[name].function(quantiles, **options).float(), reference, rtol=1e-4, atol=1e-5)


def test_beta_is_the_quantile_of_its_distribution() -> None:
    """Beta(2, 2) has the distribution function 3 x^2 - 2 x^3, Beta(1, 1) is uniform, Beta(1/2, 1/2) the arcsine law."""
    shares = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(beta(3 * shares**2 - 2 * shares**3), shares)
    torch.testing.assert_close(beta(shares, a=1.0, b=1.0), shares)
    torch.testing.assert_close(beta(2 / math.pi * shares.sqrt().asin(), a=0.5, b=0.5), shares)
    assert float(beta(torch.tensor(0.5, dtype=torch.float64), a=3.0, b=1.0)) == pytest.approx(0.5 ** (1 / 3))


def test_a_shift_is_the_paper_s_and_two_of_them_multiply() -> None:
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    assert shifted(shares, 3.0).tolist() == pytest.approx([0.0, 0.5, 0.75, 1.0])
    torch.testing.assert_close(shifted(shifted(shares, 3.0), 2.0), shifted(shares, 6.0))


def test_a_quantile_is_found_again() -> None:
    assert quantile_of(0.731058578630005, logit_normal) == pytest.approx(0.8413447460685429)  # sigmoid(1), Phi(1)
    assert quantile_of(0.0, logit_normal) == 0.0 and quantile_of(0.3, lambda shares: shares) == pytest.approx(0.3)
