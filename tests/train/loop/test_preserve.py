"""Differential output preservation: class prompts, what is refused, the loss against a plain computation, and what it does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import LoomError
from registry.store import Store
from tests.train.loop.test_step import gradients, spread
from train import run
from train.config import DataConfig, LoraConfig, ObjectiveConfig, OptimConfig, TrainConfig
from train.loop.preserve import class_prompt
from train.lora import adapter_disabled

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
INK = Path(__file__).parents[3] / "datasets" / "ink"


def preserving(settings: Settings, images: Path, **given: Any) -> TrainConfig:
    objective = ObjectiveConfig(preserve_class="a disc", preserve_weight=given.pop("weight", 2.0))
    return settings(data=DataConfig(path=str(images), trigger="sks"), objective=objective, **given)


def test_the_class_takes_the_place_of_the_trigger() -> None:
    assert class_prompt("a photo of SKS, sks hair, asks", "sks", r"a \1 woman") == r"a photo of a \1 woman, a \1 woman hair, asks"


def test_what_cannot_be_preserved_is_refused(settings: Settings, images: Path, store: Store) -> None:
    with pytest.raises(LoomError, match=r"objective\.preserve_class='a disc' takes the place of the trigger, and data\.trigger is not set"):
        run.plan(settings(objective=ObjectiveConfig(preserve_class="a disc")), store)
    with pytest.raises(LoomError, match="contains the trigger 'disc', which would be held to the base too"):
        run.plan(settings(data=DataConfig(path=str(images), trigger="disc"), objective=ObjectiveConfig(preserve_class="a disc")), store)
    with pytest.raises(LoomError, match=r"objective\.preserve_weight must be above 0"):
        TrainConfig(objective=ObjectiveConfig(preserve_weight=0.0))


def test_the_plan_shows_the_class_prompts(settings: Settings, images: Path, store: Store) -> None:
    made = run.plan(preserving(settings, images), store)
    assert "preserves  the base's own answer to 'a disc' in place of the trigger, weight 2: two more passes an image" in made.to_text()
    plain = run.plan(settings(data=DataConfig(path=str(images), trigger="sks")), store)
    assert made.estimate.activations == 2 * (plain.estimate.activations or 0)


@pytest.mark.slow
def test_its_loss_is_zero_at_the_base_and_the_plain_formula_later(settings: Settings, images: Path, prepared: Prepared) -> None:
    """At step 0 the adapter is the base: exactly 0. Then w mean((adapted - base)^2), and the same gradients as that written out."""
    state = prepared(preserving(settings, images)).state
    (extra,) = state.extras
    batch = state.order.step(0)[0][0]
    made = state.make_pass(state, 0, batch, len(batch.items))
    prediction = state.predict(state.model, made.noisy, made.timesteps, made.text, made.crops)
    assert extra(state, made, prediction).tolist() == [0.0] * len(batch.items)

    spread(state)
    conditioning = extra.texts.rows([state.items[item].image for item in batch.items])
    with torch.no_grad(), adapter_disabled(state.modules):
        base = state.predict(state.model, made.noisy, made.timesteps, conditioning, made.crops)
    wanted = 2.0 * (state.predict(state.model, made.noisy, made.timesteps, conditioning, made.crops) - base).square().mean(dim=(1, 2, 3))
    state.optimizer.zero_grad(set_to_none=True)
    wanted.sum().backward()
    plain = gradients(state)
    state.optimizer.zero_grad(set_to_none=True)
    found = extra(state, made, prediction)
    found.sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(gradients(state), plain, rtol=1e-4, atol=1e-8)
    assert bool(found.detach().gt(0).all())


@pytest.mark.slow
def test_accumulated_passes_preserve_as_one_big_batch(settings: Settings, images: Path, prepared: Prepared) -> None:
    found = []
    for batch, passes in ((4, 1), (1, 4)):
        state = prepared(preserving(settings, images, batch_size=batch, accumulate=passes)).state
        spread(state)
        found.append((state.step(0).losses, gradients(state)))
    (whole, one), (parts, four) = found
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(four, one, rtol=1e-3, atol=1e-6)  # sums in another order, fp32


@pytest.mark.slow
def test_the_class_stays_nearer_to_the_base_on_pocket(settings: Settings, prepared: Prepared) -> None:
    """40 steps on `ink` with a trigger: at weight 10 the prediction for the class moves less than half as far from the base's."""
    free, held = (_moved(settings, prepared, weight) for weight in (1e-9, 10.0))
    assert 0 < held < free / 2


def _moved(settings: Settings, prepared: Prepared, weight: float) -> float:
    """Mean squared distance of the trained adapter's predictions to the base's for the class prompts of 8 images."""
    state = prepared(
        settings(
            base="pocket",
            data=DataConfig(path=str(INK), trigger="sks"),
            objective=ObjectiveConfig(preserve_class="a drawing", preserve_weight=weight),
            resolution=64,
            steps=40,
            batch_size=8,
            lora=LoraConfig(rank=8),
            optim=OptimConfig(lr=2e-3),
        )
    ).state
    for step in range(40):
        state.step(step)
    batch = state.order.step(0)[0][0]
    with torch.no_grad():
        made = state.make_pass(state, 99, batch, len(batch.items))
        return float(replace(state.extras[0], weight=1.0)(state, made, made.target).mean())
