"""A run of each kind, stopped at a step and resumed in a new process' state, is the run in one go: weights, optimizer, EMA, file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.families import FAMILIES
from registry.progress import silent
from registry.store import Store
from tests import tiny
from tests.train.adapters.test_runs import KINDS
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, LoraConfig, OptimConfig, TrainConfig
from train.execute import make_accelerator
from train.loop import checkpoint
from train.loop.prepare import Work, prepare
from train.loop.saved_state import restore, training_state
from train.lora import targets_of
from train.output import export
from train.output.header import write_adapter
from train.plan.plan import Plan
from train.settings.ema import EmaConfig
from train.settings.lora import LoraParams

SD1 = FAMILIES["sd1"]
Settings = Callable[..., TrainConfig]
STEPS, STOPPED = 4, 2
CASES: dict[str, LoraConfig] = {
    **{name: KINDS[name] for name in ("rslora", "dora", "lokr", "loha", "ranks by pattern")},  # rsLoRA's scale is 2 / sqrt(4) = 1
    "dora at a scale of one": LoraConfig(kind="dora", rank=2),
    "pissa of convolutions": LoraConfig(rank=2, targets="convolutions", params=LoraParams(init="pissa")),
    "text encoder": LoraConfig(rank=2, alpha=3.0, text_encoder=True),
    "oft with the text encoder": LoraConfig(kind="oft", rank=4, text_encoder=True),
}
AVERAGED = ("dora", "lokr", "pissa of convolutions", "text encoder")  # an average keeps the weights apart from the file, so not everywhere


@pytest.fixture(scope="module")
def planned(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    place = tmp_path_factory.mktemp("resume")
    config = short_run(base, images, place / "runs", steps=STEPS, batch_size=1, checkpoint=CheckpointConfig(every=STOPPED))
    return run.plan(config, Store(place / "home"))


def plan_of(planned: Plan, lora: LoraConfig, *, average: bool) -> Plan:
    """The plan with another adapter; images, prompts and order are the same."""
    encoders = ("text_encoder",) if lora.text_encoder else ()
    optim = replace(planned.config.optim, loraplus_lr_ratio=16.0 if lora.text_encoder and lora.kind == "lora" else None)
    config = replace(planned.config, lora=lora, optim=optim, ema=EmaConfig(decay=0.5 if average else None))
    return replace(planned, config=config, targets=targets_of(SD1, lora.targets), encoders=encoders)


def ready(plan: Plan, place: Path) -> Work:
    """The run as a new process makes it."""
    (place / "checkpoints").mkdir(parents=True, exist_ok=True)
    return prepare(plan, place, make_accelerator(plan), report=silent, out=lambda _line: None)


def saved(work: Work, step: int) -> Path:
    """The folder of a checkpoint, whose adapter is written as the loop writes it."""

    def write(path: Path) -> None:
        with work.state.evaluating():
            write_adapter(work, path, step)

    return checkpoint.save(work.folder, step, write_adapter=write, training=training_state(work.state), history={})


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CASES, "continued"])
def test_stopped_and_resumed_is_the_run_in_one_go(kind: str, planned: Plan, settings: Settings, base: Path, tmp_path: Path) -> None:
    if kind == "continued":
        start = tiny.tiny_adapter(base, tmp_path / "first.safetensors", rank=2, strength=0.1)
        lora, optim = LoraConfig(rank=3, alpha=2.0, start=str(start)), OptimConfig(lr=1e-3, loraplus_lr_ratio=8)
        plan = run.plan(settings(lora=lora, optim=optim, steps=STEPS), Store(tmp_path / "home"))
        assert "at the end; the up matrices (B) at 8 times that (LoRA+)" in plan.to_text()
    else:
        plan = plan_of(planned, CASES[kind], average=kind in AVERAGED)
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
    assert one.adapter.read_bytes() == other.adapter.read_bytes()
    assert one.training.keys() == other.training.keys() and ("ema" in one.training) == (kind in AVERAGED)
    for part in one.training.keys() - {"random"}:
        assert same(one.training[part], other.training[part]), part
    for (name, weight), (_, resumed_weight) in zip(straight.state.weights, resumed.state.weights, strict=True):
        assert torch.equal(weight, resumed_weight), name
