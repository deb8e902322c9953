"""What a plan counts of the optimizer's state is what it keeps, by the shapes of the adapter's weights."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry.store import Store
from tests.tiny import tiny_parts
from train import run
from train.config import LoraConfig, OptimConfig, TrainConfig
from train.lora import add_loras, factor_shapes, matched, parameter_count, targets_of
from train.optim_state import state_bytes

LEARNED = "LoRA weights, gradients, optimizer"
EIGHT_BITS = ["adamw8bit"] if importlib.util.find_spec("bitsandbytes") else []  # it is no package of the tests


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adafactor", "came", *EIGHT_BITS])
def test_the_plan_counts_the_bytes_that_the_states_take(
    name: str, settings: Callable[..., TrainConfig], prepared: Callable[[TrainConfig], Any], store: Store
) -> None:
    """Layers of several widths; at rank 64 some weights have the 4,096 numbers from which on moments have 8 bits, at rank 4 none."""
    for rank in (4, 64):
        config = settings(optim=OptimConfig(name=name, lr=1e-4), lora=LoraConfig(rank=rank, text_encoder=True))
        state = prepared(config).state
        state.step(0)
        weights = sum(weight.numel() for _, weight in state.weights)
        kept = run.plan(config, store).estimate.memory[LEARNED]
        assert kept == pytest.approx(weights * 8 + weights * state_bytes(state.optimizer), rel=1e-3)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(("name", "targets"), [("sd1", "convolutions"), ("flux1", "attention")])
def test_shapes_are_those_of_the_adapter_s_weights(name: str, targets: str, kind: str) -> None:
    family, parts = tiny_parts(name)
    config = TrainConfig(lora=LoraConfig(rank=3, kind=kind, ranks={"to_q": 5}))
    chosen = targets_of(family, targets)
    layers = matched(parts.denoiser, chosen)
    counted, total = factor_shapes(parts.denoiser, layers, config.lora), parameter_count(parts.denoiser, layers, config.lora)
    made = add_loras(family, {family.denoiser: parts.denoiser}, config, chosen)
    shapes = Counter(tuple(weight.shape) for group in made.values() for _, weight in group)
    assert counted == shapes and sum(torch.Size(shape).numel() * count for shape, count in shapes.items()) == total


@pytest.mark.slow
def test_other_kinds_are_counted_by_the_trial(settings: Callable[..., TrainConfig], store: Store) -> None:
    config = settings(optim=OptimConfig(name="adafactor", lr=1e-4), lora=LoraConfig(rank=2, kind="lokr"))
    found = run.plan(config, store)
    assert not factor_shapes(torch.nn.Linear(2, 2), ["0"], config.lora)
    assert found.parameters * 8 < found.estimate.memory[LEARNED] < found.parameters * 12
