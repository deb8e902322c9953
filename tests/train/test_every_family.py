"""Training of every build in tests/tiny_families: the plan before it, the loss that falls, and the file that plain diffusers loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.families import FAMILIES
from registry.store import Store
from tests.tiny import plain_pipeline, shared_folder, tiny_parts
from tests.tiny_families import builds, module_of
from train.config import LoraConfig, OptimConfig, PreviewConfig, TrainConfig
from train.lora import enable_gradient_checkpointing

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

Settings = Callable[..., TrainConfig]
STEPS = 30
TRAINED = [build for build in builds() if FAMILIES[build[0]].untrained is None]


def small(settings: Settings, name: str, variant: str, **given: Any) -> TrainConfig:
    """Settings for a tiny build at its own size."""
    values: dict[str, Any] = {"base": str(shared_folder(name, variant=variant)), "resolution": module_of(name).SIZE}
    return settings(**(values | given))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_a_plan_is_traced_without_weights(name: str, variant: str, settings: Settings, store: Store) -> None:
    from train.run import plan

    estimate = plan(small(settings, name, variant), store).estimate
    assert estimate.activations and estimate.activations > 0 and estimate.seconds and estimate.seconds["steps"] > 0


@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_checkpointed_gradients_are_those_of_the_same_prediction(name: str, variant: str) -> None:
    """Two prompts of different lengths: a mask that is forgotten where activations are computed twice would show."""
    import torch

    from registry.parts import collate

    family, parts = tiny_parts(name, variant=variant)
    side = module_of(name).SIZE
    shape = (2, family.channels(parts), side // parts.latent_factor, side // parts.latent_factor)
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.no_grad():
        states = collate([family.encode_prompts(parts, [prompt]) for prompt in ("a cat", "two dogs on a mat")])
        complete = family.complete(parts, states, height=side, width=side, guidance=1.0)
    answers, gradients = [], []
    for checkpointed in (False, True):
        if checkpointed:
            enable_gradient_checkpointing(parts.denoiser)
        parts.denoiser.train()
        answer = family.predict(parts, noisy, torch.tensor([100.0, 900.0]), complete)
        answers.append(answer.detach())
        gradients.append(torch.autograd.grad(answer.square().sum(), noisy)[0])
    assert torch.allclose(answers[0], answers[1], atol=1e-6 * float(answers[0].abs().max()))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5 * float(gradients[0].abs().max()))


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
