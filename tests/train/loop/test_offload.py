"""Activations in main memory in a run: the same bytes, resumed without too; the plan counts them, and refuses where nothing is saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults, Refused
from registry.store import Store
from tests.train.conftest import stopped
from tests.train.loop.test_swap import files
from train import run
from train.config import CheckpointConfig, ObjectiveConfig, TrainConfig
from train.plan.estimate import AWAY
from train.plan.offload import check_offload, offload_notes

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


@pytest.mark.slow
def test_a_run_is_the_same_bytes_resumed_without_it_too(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")  # 2026-01-01

    def config(name: str, *, away: bool) -> TrainConfig:
        shared = {"gradient_checkpointing": True, "checkpoint": CheckpointConfig(every=2)}
        return settings(steps=4, out=str(tmp_path / name), offload_activations=away, **shared)

    plain, offloaded = (run.run(config(name, away=away), store) for name, away in (("plain", False), ("offloaded", True)))
    assert len(files(plain.folder)) >= 4 and files(plain.folder) == files(offloaded.folder)
    folder = stopped(config("resumed", away=True), store, at=3)
    again = run.resume(folder, {"offload_activations": False}, store)
    assert again.result["heldout"] == plain.result["heldout"]


@pytest.mark.slow
def test_two_passes_of_a_step_share_it_with_swapped_blocks(settings: Settings, images: Path, prepared: Prepared) -> None:
    """A class that is preserved has a second pass; what both keep is away until their common backward pass."""
    shared = {"objective": ObjectiveConfig(preserve_class="a disc"), "gradient_checkpointing": True}
    data = replace(settings().data, trigger="sks")
    state = prepared(settings(data=data, offload_activations=True, swap_blocks=4, **shared)).state
    plain = prepared(settings(data=data, **shared)).state
    for step in range(2):
        assert state.step(step).losses.equal(plain.step(step).losses)
        assert all(one.equal(other) for (_, one), (_, other) in zip(state.weights, plain.weights, strict=True))
    ledger = state.offload.ledger
    assert ledger.host == 0 and ledger.host_peak > 2 * ledger.peak > 0


@pytest.mark.slow
def test_the_plan_counts_what_the_device_no_longer_holds(settings: Settings, store: Store, prepared: Prepared) -> None:
    config = settings(gradient_checkpointing=True)
    plain, away = (run.plan(replace(config, offload_activations=on), store) for on in (False, True))
    one, other = plain.estimate, away.estimate
    assert one.activations and other.activations and other.activations < one.activations and AWAY not in one.memory
    assert one.stages["steps are taken"] - other.stages["steps are taken"] == one.activations - other.activations
    state = prepared(replace(config, offload_activations=True)).state
    state.step(0)
    assert other.memory[AWAY] == pytest.approx(state.offload.ledger.host_peak, rel=0.05)
    assert away.to_json()["memory_bytes"][AWAY] == other.memory[AWAY] and any("nothing is saved" in note for note in away.notes)


def test_what_saves_nothing_is_refused_or_said(settings: Settings) -> None:
    with pytest.raises(Faults, match="offload_activations needs gradient_checkpointing=true"):
        settings(offload_activations=True)
    config = settings(gradient_checkpointing=True, offload_activations=True)
    with pytest.raises(Refused, match="one memory with the processor"):
        check_offload(config, torch.device("mps"))
    check_offload(config, torch.device("cuda"))
    assert not list(offload_notes(config, torch.device("cuda"))) and len(list(offload_notes(config, torch.device("cpu")))) == 1
