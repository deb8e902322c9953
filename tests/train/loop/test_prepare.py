"""What prepare keeps in memory, frees and hands to the loop."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from train.config import LoraConfig, ObjectiveConfig, ObjectiveParams, OptimConfig, OptimParams, PreviewConfig, TrainConfig
from train.loop.drawn_texts import CachedTexts, FreshTexts
from train.objective.targets import objective_of

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


def test_encoders_and_vae_are_freed_and_the_settings_reach_optimizer_and_objective(prepared: Prepared, settings: Settings) -> None:
    objective = ObjectiveConfig(weighting="min_snr", loss="huber", params=ObjectiveParams(gamma=2.0, delta=0.5))
    optim = OptimConfig(lr=1e-2, betas=[0.8, 0.9], params=OptimParams(eps=1e-6))
    work = prepared(settings(objective=objective, optim=optim))
    state = work.state
    assert not state.parts.text_encoders and not list(state.parts.vae.parameters())
    assert isinstance(state.texts, CachedTexts) and work.previews is None and work.probe.heldout.names == ["000.png", "001.png", "002.png"]
    (group,) = state.optimizer.param_groups
    assert group["betas"] == (0.8, 0.9) and group["eps"] == 1e-6 and group["weight_decay"] == 0.01
    own = objective_of(state.parts.prediction, state.parts.scheduler_class, state.parts.scheduler_config)
    snr = (own.signal / own.noise).square()
    torch.testing.assert_close(state.objective.weights, torch.minimum(snr, torch.tensor(2.0, dtype=torch.float64)) / snr)
    prediction, target = torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 1, 1, 1)
    unweighted = replace(state.objective, weights=torch.ones_like(snr))
    assert float(unweighted.losses(prediction, target, torch.tensor([0]))) == 0.5 * (3.0 - 0.25)  # delta (|e| - delta / 2)


@pytest.mark.slow
def test_trained_text_encoders_stay_with_their_own_group(prepared: Prepared, settings: Settings) -> None:
    config = settings(lora=LoraConfig(rank=2, text_encoder=True), preview=PreviewConfig(prompts=["a disc"], steps=1))
    work = prepared(config)
    state = work.state
    assert list(state.modules) == ["unet", "text_encoder"] and state.parts.text_encoders["text_encoder"] is state.modules["text_encoder"]
    assert isinstance(state.texts, FreshTexts) and len(state.optimizer.param_groups) == 2
    assert work.previews is not None and list(state.parts.vae.parameters())
    text = [name for name, _ in state.weights if name.startswith("text_encoder.")]
    assert len(text) == len(state.optimizer.param_groups[1]["params"]) > 0
