"""Weights that are formed at once, in a plan: the bytes that a real step takes more for them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from registry.families import FAMILIES
from registry.tensors.live_bytes import LiveBytes
from tests.tiny import shared_folder
from train.adapters import stacks
from train.config import LoraConfig, Precision, TrainConfig
from train.lora import targets_of
from train.plan import traces
from train.plan.traces import Traces

CONFIG = TrainConfig(batch_size=1, lora=LoraConfig(rank=16))


def step_peak(precision: Precision = Precision.fp32, *, forms: bool, **given: Any) -> int:
    family = FAMILIES["sd1"]
    parts = family.load(shared_folder("sd1"), dtype=torch.float32, device="meta")
    made = Traces(family, parts, targets_of(family, "attention"), precision, 32, forms=forms)
    return made.step(replace(CONFIG, **given)).peak


def test_a_training_that_forms_them_holds_them_until_its_backward_pass_ends() -> None:
    assert step_peak(forms=True) > step_peak(forms=False)


@pytest.mark.parametrize("given", [{"precision": Precision.bf16}, {"gradient_checkpointing": True}], ids=str)
def test_half_precision_and_recomputed_blocks_form_none(given: dict[str, Any]) -> None:
    assert step_peak(forms=True, **given) == step_peak(forms=False, **given)


@pytest.mark.slow
def test_it_is_as_much_as_a_real_step_takes(
    prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, real = [], []
    for most in (stacks.MOST, 0):
        monkeypatch.setattr(stacks, "MOST", most)
        monkeypatch.setattr(traces, "TRACED", {})
        work = prepared(settings(batch_size=1, lora=LoraConfig(rank=16)))
        assert bool(work.state.stacks) == bool(most)
        denoiser = work.state.parts.denoiser
        there = {weight.untyped_storage()._cdata for weight in (*denoiser.parameters(), *denoiser.buffers())}
        with LiveBytes(there) as live:
            work.state.step(0)
        planned.append(work.plan.estimate.activations)
        real.append(live.peak)
    assert planned[0] - planned[1] == real[0] - real[1] > 0
