"""Training of every build in tests/tiny_families: the plan before it, the loss that falls, and the file that plain diffusers loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.families import FAMILIES
from registry.store import Store
from tests.tiny import plain_pipeline, shared_folder
from tests.tiny_families import builds, module_of
from train.config import LoraConfig, OptimConfig, PreviewConfig, TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

Settings = Callable[..., TrainConfig]
STEPS = 30
TRAINED = [build for build in builds() if FAMILIES[build[0]].untrained is None]


def small(settings: Settings, name: str, variant: str, **given: Any) -> TrainConfig:
    """Settings for a tiny build at its own size."""
    values: dict[str, Any] = {"base": str(shared_folder(name, variant=variant)), "resolution": module_of(name).SIZE}
    return settings(**(values | given))


@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_a_plan_is_traced_without_weights(name: str, variant: str, settings: Settings, store: Store) -> None:
    from train.run import plan

    estimate = plan(small(settings, name, variant), store).estimate
    assert estimate.activations and estimate.activations > 0 and estimate.operations_a_step


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_the_held_out_loss_falls_and_diffusers_takes_the_file(name: str, variant: str, settings: Settings, store: Store) -> None:
    from train import run

    config = small(
        settings,
        name,
        variant,
        steps=STEPS,
        lora=LoraConfig(rank=8, targets="attention_mlp"),
        optim=OptimConfig(lr=3e-3),
        preview=PreviewConfig(prompts=["a red disc"], steps=2, every=STEPS),
        gradient_checkpointing=True,
    )
    outcome = run.run(config, store)
    heldout = outcome.result["heldout"]
    assert heldout["final"] < heldout["base"]
    record = store.find("discs", kind="adapter")
    assert (record.family, record.rank, record.dialect) == (name, 8, "diffusers")
    file = Path(outcome.result["files"]["diffusers"])
    pipeline = plain_pipeline(name, variant=variant)
    settings_of = {"prompt": "a red disc", "negative": None, "guidance": 1.0, "steps": 2, "size": module_of(name).SIZE, "seed": 0}
    before = module_of(name).latents(pipeline, **settings_of)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    assert not before.equal(module_of(name).latents(pipeline, **settings_of))
