"""Targets of a pass moved by the model's own prediction without a prompt, or by another image of the pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry.errors import Refused
from registry.store import Store
from tests import tiny
from train import run
from train.config import ObjectiveConfig, ObjectiveParams, TrainConfig
from train.loop.batches import Batch
from train.loop.step import denoising_pass

Settings = Callable[..., TrainConfig]


@pytest.mark.slow
def test_guidance_moves_the_target_from_the_prediction_without_a_prompt(settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    state = prepared(settings(objective=ObjectiveConfig(contrast="guidance", params=ObjectiveParams(contrast_guidance=2.0)))).state
    batch = state.order.step(0)[0][0]
    made, plain = state.make_pass(state, 0, batch, 2), denoising_pass(state, 0, batch, 2)
    empty = state.family.encode_unconditional(tiny.tiny_parts("sd1")[1], 2)
    with torch.no_grad():
        without = state.predict(state.model, plain.noisy, plain.timesteps, empty)
    assert torch.allclose(made.target, 2 * plain.target - without, atol=1e-4)
    assert made.noisy.equal(plain.noisy)


def test_delta_fm_moves_it_from_the_other_image_of_the_pass(prepared: Callable[[TrainConfig], Any], settings: Settings) -> None:
    config = settings(base=str(tiny.shared_folder("sd1", prediction="v_prediction")), objective=ObjectiveConfig(contrast="delta_fm"))
    state = prepared(config).state
    batch = state.order.step(0)[0][0]
    made, plain = state.make_pass(state, 0, batch, 2), denoising_pass(state, 0, batch, 2)
    assert torch.allclose(made.target, (plain.target - 0.05 * plain.target.flip(0)) / 0.95, atol=1e-6)
    alone = Batch(batch.items[:1], batch.places[:1])
    assert state.make_pass(state, 0, alone, 2).target.equal(denoising_pass(state, 0, alone, 2).target)


@pytest.mark.slow
def test_the_plan_knows_which_bases_it_is_for(settings: Settings, store: Store) -> None:
    notes = run.plan(settings(objective=ObjectiveConfig(contrast="guidance")), store).notes
    assert any("is for bases with guidance distilled in" in note for note in notes)
    guided = settings(base=str(tiny.shared_folder("flux1", variant="dev")), resolution=64, objective=ObjectiveConfig(contrast="guidance"))
    assert not any("guidance distilled in" in note for note in run.plan(guided, store).notes)
    with pytest.raises(Refused, match="this base predicts epsilon"):
        run.plan(settings(objective=ObjectiveConfig(contrast="delta_fm")), store)
