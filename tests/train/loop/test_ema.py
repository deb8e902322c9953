"""The moving average of the weights: against diffusers' own, and through measures, checkpoints and resumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.utils._pytree import tree_leaves

from registry.errors import Faults, Refused
from registry.store import Store
from tests.train.loop.test_resume import only_run, saved
from train import run
from train.config import CheckpointConfig, OptimConfig, TrainConfig
from train.loop import checkpoint
from train.loop.ema import decay_at, ema_of
from train.loop.saved_state import restore
from train.lora import lora_tensors
from train.output import export
from train.settings.ema import EmaConfig

Settings = Callable[..., TrainConfig]


@pytest.mark.parametrize("power", [None, 0.75])
def test_it_is_diffusers_own(power: float | None) -> None:
    from diffusers.training_utils import EMAModel

    weight = torch.nn.Parameter(torch.zeros(3))
    ema = ema_of(EmaConfig(decay=0.6, power=power), [weight])
    peer = EMAModel([weight], decay=0.6, use_ema_warmup=power is not None, inv_gamma=1.0, power=power or 0.0)
    assert ema is not None
    for step in range(12):
        weight.data = torch.tensor([1.0, -2.0, 0.5]) * (step + 1)
        ema.update([weight], step)
        peer.step([weight])
        torch.testing.assert_close(ema.averages[0], peer.shadow_params[0], rtol=1e-6, atol=0)


def test_the_decay_rises_to_its_value() -> None:
    assert [decay_at(step, decay=0.5, power=None) for step in (0, 1, 2, 8, 100)] == pytest.approx([0.0, 2 / 11, 0.25, 0.5, 0.5])
    assert decay_at(7, decay=0.99, power=2 / 3) == pytest.approx(0.75)


@pytest.mark.slow
def test_it_is_what_is_measured_and_saved_and_the_weights_train_on_to_the_same_bits(
    prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path
) -> None:
    straight, resumed = (prepared(settings(ema=EmaConfig(decay=0.9))).state for _ in range(2))
    for step in range(2):
        straight.step(step)
    found = checkpoint.read(saved(straight, tmp_path))
    average = export.read_adapter(found.adapter)
    assert not all(torch.equal(average[name], tensor) for name, tensor in lora_tensors(straight.modules).items())
    with straight.evaluating():
        assert all(torch.equal(average[name], tensor) for name, tensor in lora_tensors(straight.modules).items())
    restore(resumed, found, average)
    assert torch.equal(straight.step(2).losses, resumed.step(2).losses)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(straight.weights, resumed.weights, strict=True))
    assert straight.ema is not None and resumed.ema is not None
    assert all(map(torch.equal, straight.ema.averages, resumed.ema.averages))
    assert all(average.dtype == torch.float32 for average in straight.ema.averages)


SLOW = pytest.mark.slow
OPTIMS = [
    pytest.param(OptimConfig(name="muon", lr=1e-2), EmaConfig(decay=0.9), id="muon with EMA"),
    pytest.param(OptimConfig(name="prodigy_plus_schedule_free", lr=1.0, clip=0.0), EmaConfig(), id="prodigy plus", marks=SLOW),
    pytest.param(OptimConfig(name="torch.optim.NAdam", lr=1e-2), EmaConfig(decay=0.9, power=0.75), id="NAdam", marks=SLOW),
]


@pytest.mark.slow
@pytest.mark.parametrize(("optim", "ema"), OPTIMS)
def test_a_killed_run_ends_with_the_bytes_of_a_straight_one(
    optim: OptimConfig, ema: EmaConfig, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")  # 2026-01-01: runs of two days differ in the day alone
    from train.loop import step

    honest = step.TrainState.step

    def dies(self: step.TrainState, number: int) -> step.StepMetrics:
        if number == 3:
            raise ZeroDivisionError
        return honest(self, number)

    def begun(name: str) -> TrainConfig:
        return settings(steps=4, out=str(tmp_path / name), optim=optim, ema=ema, checkpoint=CheckpointConfig(every=2))

    straight = run.run(begun("straight"), store).folder
    with monkeypatch.context() as patched:
        patched.setattr(step.TrainState, "step", dies)
        with pytest.raises(ZeroDivisionError):
            run.run(begun("killed"), store)
    killed = only_run(tmp_path / "killed")
    run.resume(killed, {}, store)
    for name in ("discs.safetensors", "checkpoints/step-000004/adapter.safetensors"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name
    one, other = (checkpoint.read(folder / "checkpoints" / "step-000004").training for folder in (straight, killed))
    leaves = [tree_leaves([training.get(part) for part in ("optimizer", "trained", "ema")]) for training in (one, other)]
    for left, right in zip(*leaves, strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    with safe_open(killed / "discs.safetensors", "pt") as file:
        described = file.metadata()["modelspec.description"]
    assert described.endswith("; moving average (EMA) of its weights, decay 0.9") == (ema.decay is not None)
    with pytest.raises(Faults, match=rf"ema\.decay \({ema.decay} -> 0\.5\)"):
        run.resumed_config(killed, {"ema.decay": 0.5})


def test_a_schedule_free_optimizer_has_its_own(settings: Settings, store: Store) -> None:
    with pytest.raises(Refused, match="adamw_schedule_free is schedule-free, what it saves is an average"):
        run.plan(settings(ema=EmaConfig(decay=0.9), optim=OptimConfig(name="adamw_schedule_free")), store)


@pytest.mark.parametrize(
    ("ema", "words"),
    [
        ({"decay": 1.0}, r"ema\.decay must be above 0 and below 1 \(0\.99 suits 1,000 steps\), or null for none, got 1\.0"),
        ({"power": 0.75}, r"ema\.power needs ema\.decay: there is no average without it, got 0\.75"),
        ({"decay": 0.9, "power": -1.0}, r"ema\.power must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(ema: dict[str, float], words: str) -> None:
    with pytest.raises(Faults, match=words):
        TrainConfig(ema=EmaConfig(**ema))
