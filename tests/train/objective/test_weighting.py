"""Loss weights against the papers' formulas in float64, on two noise levels: SNR 4 and SNR 1/4."""

import pytest
import torch

from registry.errors import Refused
from train.objective.weighting import WEIGHTINGS, Levels, bell, cosmap, debiased, min_snr, none, p2, v_like, x0

SIGNAL = torch.tensor([0.8, 0.2], dtype=torch.float64).sqrt()
NOISE = torch.tensor([0.2, 0.8], dtype=torch.float64).sqrt()
DIFFUSION = {name: Levels(name, SIGNAL, NOISE) for name in ("epsilon", "v_prediction")}
SIGMAS = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
FLOW = Levels("flow", 1 - SIGMAS, SIGMAS)  # SNR 4 and 1/4 as well


def test_the_signal_to_noise_ratio() -> None:
    assert DIFFUSION["epsilon"].snr.tolist() == pytest.approx([4.0, 0.25]) and FLOW.snr.tolist() == pytest.approx([4.0, 0.25])


def test_none_weights_nothing() -> None:
    assert none(FLOW).tolist() == [1.0, 1.0] and none(DIFFUSION["v_prediction"]).tolist() == [1.0, 1.0]


def test_min_snr_is_the_formula_of_each_prediction() -> None:
    assert min_snr(DIFFUSION["epsilon"], gamma=2.0).tolist() == pytest.approx([2 / 4, 0.25 / 0.25])
    assert min_snr(DIFFUSION["v_prediction"], gamma=2.0).tolist() == pytest.approx([2 / (4 + 1), 0.25 / (0.25 + 1)])


def test_p2_is_the_formula_on_the_noise() -> None:
    assert p2(DIFFUSION["epsilon"], gamma=2.0, k=1.0).tolist() == pytest.approx([1 / 25, 1 / 1.25**2])


def test_debiased_is_the_formula_on_the_noise() -> None:
    assert debiased(DIFFUSION["epsilon"]).tolist() == pytest.approx([0.5, 2.0])


def test_the_loss_on_v_and_on_x0_are_those_of_the_noise_s() -> None:
    assert x0(DIFFUSION["epsilon"]).tolist() == pytest.approx([0.25, 4.0]) and x0(FLOW).tolist() == pytest.approx([1 / 9, 4 / 9])
    assert v_like(DIFFUSION["epsilon"], v_share=0.5).tolist() == pytest.approx([1 + 0.5 * 5 / 4, 1 + 0.5 * 5])
    assert v_like(DIFFUSION["v_prediction"], v_share=0.5).tolist() == pytest.approx([0.8 + 0.5, 0.2 + 0.5])


@pytest.mark.parametrize("weighting", [min_snr, p2, debiased, x0])
@pytest.mark.parametrize("levels", [DIFFUSION["v_prediction"], FLOW], ids=["v_prediction", "flow"])
def test_a_velocity_s_loss_is_the_noise_s_loss(weighting: object, levels: Levels) -> None:
    """The same prediction, written as a velocity and as the noise, has the same weighted loss."""
    assert callable(weighting)
    x0, noise = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([1.1, 0.4], dtype=torch.float64)
    noisy = levels.signal * x0 + levels.noise * noise
    off = torch.tensor([0.2, -0.5], dtype=torch.float64)  # the error of the predicted velocity
    if levels.prediction == "flow":
        predicted = noisy + levels.signal * (noise - x0 + off)  # n = noisy + (1 - sigma) u
    else:
        predicted = levels.noise * noisy + levels.signal * (levels.signal * noise - levels.noise * x0 + off)  # n = b noisy + a v
    on_noise = weighting(Levels("epsilon", levels.signal, levels.noise)) * (predicted - noise).square()
    torch.testing.assert_close(weighting(levels) * off.square(), on_noise)


def test_cosmap_is_the_formula_and_of_flow_models_alone() -> None:
    assert cosmap(FLOW).tolist() == pytest.approx([2 / (torch.pi * (1 - 2 * t + 2 * t * t)) for t in (1 / 3, 2 / 3)])
    with pytest.raises(Refused, match="a weighting of flow models; the base predicts epsilon"):
        cosmap(DIFFUSION["epsilon"])


def test_a_prediction_without_a_known_noise_error_is_refused() -> None:
    with pytest.raises(Refused, match="the base predicts sample"):
        min_snr(Levels("sample", SIGNAL, NOISE))


def test_min_snr_is_that_of_diffusers_script() -> None:
    """min(SNR, gamma) / SNR for epsilon, over SNR + 1 for v, of diffusers' own compute_snr."""
    import diffusers
    from diffusers.training_utils import compute_snr

    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times = torch.tensor([0, 300, 700, 999])
    snr = compute_snr(scheduler, times).double()
    alphas = scheduler.alphas_cumprod.double()[times]
    for prediction, divisor in (("epsilon", snr), ("v_prediction", snr + 1)):
        found = min_snr(Levels(prediction, alphas.sqrt(), (1 - alphas).sqrt()), gamma=5.0)
        torch.testing.assert_close(found, snr.clamp(max=5.0) / divisor, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["sigma_sqrt", "cosmap"])
def test_the_weightings_of_flow_models_are_those_of_diffusers(name: str) -> None:
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    torch.testing.assert_close(WEIGHTINGS[name].function(FLOW), compute_loss_weighting_for_sd3(name, SIGMAS).double())


def test_bell_is_ai_toolkit_s_of_a_thousand_timesteps() -> None:
    """exp(-2 ((x - N / 2) / N)^2), its least taken off, of mean 1; in closed form here."""
    x = torch.arange(1000, dtype=torch.float64)
    reference = torch.exp(-2 * ((x - 500) / 1000) ** 2)
    reference = (reference - reference.min()) * 1000 / (reference - reference.min()).sum()
    torch.testing.assert_close(bell(Levels("flow", 1 - x / 1000, x / 1000)), reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["sigma_sqrt", "bell"])
def test_weightings_of_flow_models_are_refused_elsewhere(name: str) -> None:
    with pytest.raises(Refused, match=f"{name} is a weighting of flow models; the base predicts v_prediction"):
        WEIGHTINGS[name].function(DIFFUSION["v_prediction"])
