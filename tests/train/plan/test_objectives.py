"""What a plan answers to an objective that does not suit its base, before anything is loaded or encoded."""

from collections.abc import Callable
from typing import Any

import pytest

from registry.errors import Refused
from registry.store import Store
from tests import tiny
from tests.tiny_families import module_of
from train import run
from train.config import ObjectiveConfig, TrainConfig

Settings = Callable[..., TrainConfig]
FLOW, NOISE = "flow", "epsilon"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (NOISE, {"zero_terminal_snr": True}, "needs a base that predicts v; this one predicts epsilon"),
    (NOISE, {"weighting": "cosmap"}, "cosmap is a weighting of flow models; the base predicts epsilon. Use min_snr, p2 or debiased"),
    (NOISE, {"weighting": "bell"}, "bell is a weighting of flow models"),
    (NOISE, {"weighting": "sigma_sqrt"}, "sigma_sqrt is a weighting of flow models"),
    (NOISE, {"shift": 3.0}, "only flow models have a time shift"),
    (NOISE, {"max_timestep": 1200.0}, "objective.max_timestep=1200: this base has 1000 timesteps"),
    (NOISE, {"min_timestep": 400.0, "max_timestep": 300.0}, r"objective\.max_timestep must be above objective\.min_timestep"),
    (NOISE, {"guidance": 3.5}, "has no input for guidance, so that it is trained without"),
    (FLOW, {"guidance": 3.5}, "has no input for guidance"),
    (FLOW, {"zero_terminal_snr": True}, "a flow model starts from pure noise as it is. Leave it out"),
    (FLOW, {"noise": "offset"}, r"objective\.noise=offset: the base is a flow model"),
    (FLOW, {"noise": "perturbation+pyramid"}, r"objective\.noise=pyramid: the base is a flow model"),
]


@pytest.fixture
def of_base(settings: Settings) -> Callable[..., TrainConfig]:
    """Settings with this objective for a base that predicts the noise, or a flow."""

    def make(prediction: str, **objective: Any) -> TrainConfig:
        base = {"base": str(tiny.shared_folder("sd3")), "resolution": module_of("sd3").SIZE} if prediction == FLOW else {}
        return settings(**base, objective=ObjectiveConfig(**objective))

    return make


@pytest.mark.parametrize(("prediction", "given", "answer"), REFUSED)
def test_what_does_not_suit_the_base_is_refused(
    prediction: str, given: dict[str, Any], answer: str, of_base: Callable[..., TrainConfig], store: Store
) -> None:
    with pytest.raises(Refused, match=answer):
        run.plan(of_base(prediction, **given), store)


@pytest.mark.slow
def test_what_is_unusual_is_noted(of_base: Callable[..., TrainConfig], store: Store) -> None:
    noted = run.plan(of_base(FLOW, weighting="min_snr"), store).notes
    assert any("objective.weighting=min_snr is defined on a diffusion model's loss of the noise" in note for note in noted)
    plan = run.plan(of_base(NOISE, timesteps="uniform", noise="offset+perturbation", min_timestep=100.0), store)
    assert "offset+perturbation" in plan.to_text() and "uniform, from 100 to the last alone" in plan.to_text()
