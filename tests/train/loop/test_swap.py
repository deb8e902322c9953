"""Block swap in a run: the same bytes as without, at any number of blocks, resumed with another, beside all that draws and measures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from tests.train.conftest import stopped
from tests.train.loop.test_processes import differing, two_processes
from train import run
from train.config import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    LoraConfig,
    ObjectiveConfig,
    ObjectiveParams,
    Precision,
    PreviewConfig,
    TrainConfig,
)
from train.plan.swap import swap_notes
from train.settings.ema import EmaConfig

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
BLOCKS = 11  # of the tiny base


def files(folder: Path) -> dict[str, bytes]:
    """Adapters, checkpoints and previews."""
    kinds = ("*.safetensors", "checkpoints/*/*.safetensors", "samples/*.png")
    return {str(path.relative_to(folder)): path.read_bytes() for kind in kinds for path in sorted(folder.glob(kind))}


@pytest.mark.slow
def test_runs_are_the_same_bytes_whatever_is_swapped_resumed_with_another_number_too(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, moving average, held-out loss, previews before and after, the proof on a fresh base."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")  # 2026-01-01

    def config(name: str, swapped: int) -> TrainConfig:
        preview = PreviewConfig(prompts=["a disc"], steps=2, every=2)
        shared = {"gradient_checkpointing": True, "checkpoint": CheckpointConfig(every=2), "ema": EmaConfig(decay=0.5), "preview": preview}
        return settings(steps=4, out=str(tmp_path / name), swap_blocks=swapped, **shared)

    plain, swapped = (run.run(config(name, count), store) for name, count in (("plain", 0), ("swapped", BLOCKS)))
    assert len(files(plain.folder)) >= 6 and files(plain.folder) == files(swapped.folder)
    assert plain.result["heldout"] == swapped.result["heldout"]
    folder = stopped(config("resumed", BLOCKS), store, at=3)
    again = run.resume(folder, {"swap_blocks": 3}, store)
    assert again.result["heldout"] == plain.result["heldout"]
    one, two = (load_file(each.result["files"]["diffusers"]) for each in (plain, again))
    assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one), "its header names the resume"
    images = {name: content for name, content in files(plain.folder).items() if name.startswith("samples")}
    assert images and images.items() <= files(folder).items()


@pytest.mark.slow
def test_every_forward_pass_of_a_step_is_one_fetch_and_its_backward_pass_another(
    settings: Settings, images: Path, prepared: Prepared
) -> None:
    """Beside a class that is preserved: the image's pass and the class's with gradients, the base's without."""
    objective = ObjectiveConfig(preserve_class="a disc")
    shared = {"data": DataConfig(path=str(images), trigger="sks"), "objective": objective, "gradient_checkpointing": True}
    state = prepared(settings(swap_blocks=BLOCKS, **shared)).state
    plain = prepared(settings(**shared)).state
    ledger = state.swap.ledger
    for step in range(2):
        assert state.step(step).losses.equal(plain.step(step).losses)
        assert all(one.equal(other) for (_, one), (_, other) in zip(state.weights, plain.weights, strict=True))
    assert set(ledger.fetches.values()) == {10} and len(ledger.fetches) == BLOCKS
    assert ledger.peak <= ledger.cap == state.swap._slots._slots[0].buffer.nbytes * 2 and ledger.resident == 0


def test_the_plan_shows_what_is_swapped_and_what_it_saves(settings: Settings, store: Store) -> None:
    config = settings(gradient_checkpointing=True)
    plain, swapped = run.plan(config, store), run.plan(replace(config, swap_blocks=4), store)
    none, four = plain.to_json()["swap"], swapped.to_json()["swap"]
    assert none["blocks"] == four["blocks"] and len(none["blocks"]) == BLOCKS and none["swapped"] == [] and none["saved_bytes"] == 0
    assert four["host_bytes"] == sum(four["blocks"][name] for name in four["swapped"]) and len(four["swapped"]) == 4
    assert four["saved_bytes"] == four["host_bytes"] - 2 * four["slot_bytes"]
    before, after = plain.estimate, swapped.estimate
    assert before.memory["unet"] - after.memory["unet"] == four["host_bytes"]
    assert before.stages["steps are taken"] - after.stages["steps are taken"] == four["saved_bytes"]
    assert "swap       4 of 11 blocks (" in swapped.to_text() and "\nswap " not in plain.to_text()
    assert any("main memory and the device's are one" in note for note in swapped.notes)
    assert before.swap is not None
    one = replace(before.swap, swapped=("mid_block.resnets.1",))
    assert any("saves nothing" in note for note in swap_notes(one, replace(config, swap_blocks=1), torch.device("cuda"), 1))
    assert any("each of the 2 processes" in note for note in swap_notes(one, config, torch.device("cuda"), 2))


def test_what_cannot_be_swapped_is_refused_by_the_plan(settings: Settings, store: Store) -> None:
    with pytest.raises(Faults, match="swap_blocks needs gradient_checkpointing=true"):
        settings(swap_blocks=2)
    with pytest.raises(Faults, match="swap_blocks must be 0 or more"):
        settings(swap_blocks=-1, gradient_checkpointing=True)
    with pytest.raises(Refused, match=r"swap_blocks=12, but .* has 11 blocks that can be swapped \(.*Give at most 11"):
        run.plan(settings(swap_blocks=12, gradient_checkpointing=True), store)


@pytest.mark.slow
def test_a_fused_training_adapter_and_a_slider_learn_the_same_bytes(
    settings: Settings, base: Path, prepared: Prepared, tmp_path: Path
) -> None:
    """The one writes weights in main memory whenever something is measured, the other computes a block again at its pass's factor."""
    fused = tiny.tiny_adapter(base, tmp_path / "training.safetensors", rank=2, strength=0.1)
    slider = ObjectiveConfig(name="slider", params=ObjectiveParams(positive="a red disc", negative="a blue disc", draw_steps=2))
    for given in (
        {"adapter": AdapterConfig(training=str(fused)), "precision": Precision.bf16},
        {"objective": slider, "data": DataConfig()},
        {"lora": LoraConfig(kind="dora", rank=2)},
    ):
        plain, swapped = (prepared(settings(gradient_checkpointing=True, swap_blocks=count, **given)) for count in (0, BLOCKS))
        for step in range(2):
            assert plain.state.step(step).losses.equal(swapped.state.step(step).losses)
            if plain.probe is not None:
                found = [work.probe.measure(work.state, model=work.state.model) for work in (plain, swapped)]
                assert found[0] == found[1]
        pairs = zip(plain.state.weights, swapped.state.weights, strict=True)
        assert all(one.equal(other) for (_, one), (_, other) in pairs)


@pytest.mark.slow
def test_two_processes_with_swapped_blocks_learn_what_one_learns_without(settings: Settings, tmp_path: Path) -> None:
    alone = run.run(settings(batch_size=4, steps=3, out=str(tmp_path / "one")), Store(tmp_path / "home"))
    two = settings(batch_size=2, steps=3, gradient_checkpointing=True, swap_blocks=BLOCKS, out=str(tmp_path / "two"))
    assert differing(load_file(alone.result["files"]["diffusers"]), two_processes(two, tmp_path)) == []
