"""A run that trains tokens, stopped at a step and resumed in a new process' state, is the run in one go: vectors, optimizer, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.progress import silent
from registry.store import Store
from tests.train.adapters.test_resume import same
from train import run
from train.config import DataConfig, LoraConfig, OptimConfig, TrainConfig
from train.execute import make_accelerator
from train.loop import checkpoint
from train.loop.prepare import Work, prepare
from train.loop.saved_state import restore, training_state
from train.output import export
from train.output.embeddings import write_weights
from train.plan.plan import Plan
from train.settings.ema import EmaConfig
from train.settings.tokens import TokensConfig

Settings = Callable[..., TrainConfig]
STEPS, STOPPED = 4, 2
TOKENS = [{"token": "<ab>", "init": "ox"}, {"token": "<cd>", "vectors": 2}]
CASES: dict[str, dict[str, Any]] = {
    "pivotal": {"lora": LoraConfig(rank=2, alpha=3.0), "tokens": TokensConfig(add=TOKENS, share=0.75), "ema": EmaConfig(decay=0.5)},
    "alone": {"lora": LoraConfig(kind="none"), "tokens": TokensConfig(add=TOKENS)},
    "beside lokr and text": {"lora": LoraConfig(kind="lokr", rank=2, text_encoder=True), "tokens": TokensConfig(add=TOKENS, share=0.5)},
    "schedule-free": {
        "lora": LoraConfig(rank=2),
        "tokens": TokensConfig(add=TOKENS, share=0.75, keep_norm=False),
        "optim": OptimConfig(name="adamw_schedule_free", lr=1e-2),
    },
}


def ready(plan: Plan, place: Path) -> Work:
    (place / "checkpoints").mkdir(parents=True, exist_ok=True)
    return prepare(plan, place, make_accelerator(plan), report=silent, out=lambda _line: None)


def saved(work: Work, step: int) -> Path:
    def write(path: Path) -> None:
        with work.state.evaluating():
            write_weights(work, path, step)

    return checkpoint.save(work.folder, step, write_adapter=write, training=training_state(work.state), history={})


SLOW = ("beside lokr and text", "schedule-free")


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES])
def test_stopped_and_resumed_is_the_run_in_one_go(case: str, settings: Settings, tmp_path: Path) -> None:
    data = DataConfig(path=settings().data.path, trigger="<ab> <cd>", caption_dropout=0.2)
    plan = run.plan(settings(steps=STEPS, data=data, **CASES[case]), Store(tmp_path / "home"))
    straight = ready(plan, tmp_path / "straight")
    for step in range(STOPPED):
        straight.state.step(step)
    found = checkpoint.read(saved(straight, STOPPED))
    for step in range(STOPPED, STEPS):
        straight.state.step(step)
    resumed = ready(plan, tmp_path / "resumed")
    torch.manual_seed(123)  # whatever the process did before
    restore(resumed.state, found, export.read_adapter(found.adapter))
    for step in range(STOPPED, STEPS):
        resumed.state.step(step)
    one, other = (checkpoint.read(saved(work, STEPS)) for work in (straight, resumed))
    files = ["adapter.safetensors", "embedding-ab.safetensors", "embedding-cd.safetensors"]
    for name in files:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    for part in one.training.keys() - {"random"}:
        assert same(one.training[part], other.training[part]), part
    assert straight.state.vectors is not None and straight.state.vectors.moved
    for (name, weight), (_, again) in zip(straight.state.weights, resumed.state.weights, strict=True):
        assert torch.equal(weight, again), name


def test_a_damaged_embedding_is_a_damaged_checkpoint(settings: Settings, tmp_path: Path) -> None:
    data = DataConfig(path=settings().data.path, trigger="<ab>")
    plan = run.plan(
        settings(steps=1, data=data, lora=LoraConfig(kind="none"), tokens=TokensConfig(add=TOKENS[:1])), Store(tmp_path / "home")
    )
    place = saved(ready(plan, tmp_path / "run"), 1)
    file = place / "embedding-ab.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(checkpoint.Damaged, match=r"embedding-ab.safetensors is not what was saved"):
        checkpoint.read(place)
