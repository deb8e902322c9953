"""Two processes learn from votes what one learns with twice the batch; a run that is killed ends the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from registry.store import Store
from tests.train.conftest import stopped
from tests.train.loop.test_processes import differing, two_processes
from train import run
from train.config import CheckpointConfig, LoraConfig, TrainConfig
from train.settings.ema import EmaConfig

Run = Callable[..., TrainConfig]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_twice_the_batch(votes_run: Run, tmp_path: Path) -> None:
    alone = run.run(votes_run(batch_size=4, out=str(tmp_path / "one")), Store(tmp_path / "home"))
    two = two_processes(votes_run(out=str(tmp_path / "two")), tmp_path)
    assert differing(load_file(alone.result["files"]["diffusers"]), two) == []


@pytest.mark.slow
def test_a_continued_adapter_that_is_held_to_its_start_ends_the_same_after_a_fault(
    votes_run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's weights are in no checkpoint: a resume has them from the adapter that is continued."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    first = run.run(votes_run(steps=2, name="first", out=str(tmp_path / "first")), store)  # of a name that stays its own

    def continued(name: str) -> TrainConfig:
        start = LoraConfig(rank=2, start=str(first.folder / "first.safetensors"))
        return votes_run(
            {"dpo_beta": 5000.0}, lora=start, ema=EmaConfig(decay=0.5), checkpoint=CheckpointConfig(every=2), out=str(tmp_path / name)
        )

    straight = run.run(continued("straight"), store)
    folder = stopped(continued("stopped"), store, at=3)
    run.resume(folder, {}, store)
    for name in ("discs.safetensors", "checkpoints/step-000004/adapter.safetensors"):
        assert (folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
