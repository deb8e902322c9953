"""What a resume may change acts, in every optimizer; what would not act is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from tests.train.conftest import short_run, stopped
from tests.train.loop.test_resume import saved
from train import run
from train.choices import build_optimizer, choose_optimizer
from train.config import (
    CheckpointConfig,
    DataConfig,
    HeldoutConfig,
    LoraConfig,
    OptimConfig,
    Precision,
    ScheduleConfig,
    ScheduleParams,
    TrainConfig,
    changed,
    dotted_names,
)
from train.loop import checkpoint
from train.loop.batches import order_of
from train.loop.prepare import groups_of
from train.loop.saved_state import restore
from train.output import export, folder
from train.output.inputs import HASHED

Settings = Callable[..., TrainConfig]
STEP = 2  # after which the run is resumed, of 8

OPTIMIZERS = {
    "adamw": OptimConfig(lr=1e-2),
    "sgd": OptimConfig(name="sgd", lr=1.0),
    "adafactor": OptimConfig(name="adafactor", lr=1e-2),
    "prodigy": OptimConfig(name="prodigy", lr=1.0),
    "adamw_schedule_free": OptimConfig(name="adamw_schedule_free", lr=1e-2),
    "muon": OptimConfig(name="muon", lr=1e-2),
    "torch.optim.RMSprop": OptimConfig(name="torch.optim.RMSprop", lr=1e-2, args={"momentum": 0.5}),
}
ACTS_ON_THE_WEIGHTS: dict[str, Any] = {
    "steps": 80,
    "seed": 9,
    "batch_size": 1,
    "accumulate": 2,
    "optim.lr": 0.5,
    "optim.weight_decay": 0.9,
    "optim.clip": 1e-3,
    "schedule.name": "linear",
    "schedule.warmup": 0.9,
    "schedule.warmup_steps": 6,
    "schedule.params.min_factor": 0.9,
    "schedule.params.cycles": 3,
}
ACTS_ELSEWHERE = {  # on what is measured, drawn, kept and where, or acts in the tests named
    "optim.text_lr",  # test_another_rate_of_the_text_encoders_acts_on_them_alone
    "optim.token_lr",  # tests/train/tokens/test_vectors.py
    "gradient_checkpointing",  # the same numbers with less memory
    "compile",  # the same numbers but for rounding: tests/train/loop/test_compiled.py
    "swap_blocks",  # the same bytes with less memory: tests/train/loop/test_swap.py
    "offload_activations",  # the same: tests/train/loop/test_offload.py
    "memory",  # finds others of these: tests/train/plan/test_memory.py
    "device",
    *HASHED,  # test_what_a_run_reads_may_have_moved, tests/train/adapters/test_start.py, tests/train/test_training_adapter.py
    "data.memory",  # tests/train/loop/test_buckets.py
    "tracker",
    "schedule.args",  # test_each_option_of_another_schedule_acts
    *(f"schedule.params.{name}" for name in ("power", "timescale", "decay", "fall", "late")),  # the same
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.load_best_at_end",  # tests/train/output/test_finish.py
    "heldout.every",
    *(f"heldout.{name}" for name in ("patience", "min_steps", "stop_when_worse")),  # tests/train/measures/test_early_stop.py
    *(name for name in dotted_names() if name.startswith("preview.")),
}


def test_every_setting_acts_after_a_resume_or_is_refused() -> None:
    fixed = {name for name in dotted_names() if run._is_fixed(name)}
    assert fixed | {"epochs"} | ACTS_ON_THE_WEIGHTS.keys() | ACTS_ELSEWHERE | set(run.FINDS) == set(dotted_names())
    assert not fixed & (ACTS_ON_THE_WEIGHTS.keys() | ACTS_ELSEWHERE)
    assert {name for name in fixed if name.startswith("optim.")} == {
        name
        for name in dotted_names()
        if name.startswith(("optim.params.", "optim.name", "optim.args", "optim.betas", "optim.loraplus_lr_ratio"))
    }


def next_step(state: Any, place: Path, resumed: TrainConfig) -> list[torch.Tensor]:
    """The weights after one more step, as a new process builds and restores them."""
    state.config = resumed
    optimizer = build_optimizer(choose_optimizer(resumed.optim), groups_of(state.modules, state.weights, resumed), resumed.optim.lr)
    state.optimizer = state.accelerator.prepare(optimizer)
    found = checkpoint.read(place)  # anew: an optimizer writes into the state it was given
    restore(state, found, export.read_adapter(found.adapter))
    state.step(STEP)
    return [weight.detach().clone() for _, weight in state.weights]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_change_gives_other_weights(name: str, prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path) -> None:
    config = settings(steps=8, optim=OPTIMIZERS[name])
    state = prepared(config).state
    for step in range(STEP):
        state.step(step)
    place = saved(state, tmp_path)

    def next_step(resumed: TrainConfig) -> list[torch.Tensor]:
        """The weights after one more step, as a new process builds and restores them."""
        state.config, state.order = resumed, order_of(resumed, state.items, processes=1)
        groups = [{"params": [weight for _, weight in state.weights]}]
        optimizer = build_optimizer(choose_optimizer(resumed.optim), groups, resumed.optim.lr)
        state.optimizer = state.accelerator.prepare(optimizer)
        found = checkpoint.read(place)  # anew: an optimizer writes into the state it was given
        restore(state, found, export.read_adapter(found.adapter))
        state.step(STEP)
        return [weight.detach().clone() for _, weight in state.weights]

    unchanged = next_step(config)
    assert all(map(torch.equal, unchanged, next_step(config)))
    for setting, value in ACTS_ON_THE_WEIGHTS.items():
        other = next_step(changed(config, {setting: value}))
        assert not all(map(torch.equal, unchanged, other)), f"{setting} does not act with {name}"


STEPPED = {"name": "torch.optim.lr_scheduler.StepLR", "args": {"step_size": 2, "gamma": 0.5}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "changes"),
    [
        ({"name": "polynomial"}, {"schedule.params.power": 0.5}),
        ({"name": "inverse_sqrt"}, {"schedule.params.timescale": 0.5}),
        ({"name": "rex"}, {"schedule.params.late": 0.9}),
        ({"name": "wsd", "params": ScheduleParams(decay=0.9)}, {"schedule.params.decay": 0.95}),
        ({"name": "wsd", "params": ScheduleParams(decay=0.9)}, {"schedule.params.fall": "linear"}),
        (STEPPED, {"schedule.args": {"step_size": 2, "gamma": 0.25}}),
    ],
)
def test_each_option_of_another_schedule_acts(
    begun: dict[str, Any], changes: dict[str, Any], prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path
) -> None:
    config = settings(steps=8, schedule=ScheduleConfig(warmup=0.0, **begun))
    state = prepared(config).state
    for step in range(STEP):
        state.step(step)
    place = saved(state, tmp_path)
    unchanged, other = next_step(state, place, config), next_step(state, place, changed(config, changes))
    assert not any(torch.equal(one, two) for one, two in zip(unchanged, other, strict=True))


@pytest.mark.slow
def test_another_rate_of_the_text_encoders_acts_on_them_alone(
    prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path
) -> None:
    config = settings(steps=8, lora=LoraConfig(rank=2, text_encoder=True))
    state = prepared(config).state
    for step in range(STEP):
        state.step(step)
    place = saved(state, tmp_path)
    unchanged, other = next_step(state, place, config), next_step(state, place, changed(config, {"optim.text_lr": 1e-4}))
    same = {name for (name, _), one, two in zip(state.weights, unchanged, other, strict=True) if torch.equal(one, two)}
    assert same == {name for name, _ in state.weights if name.startswith("unet.")}


@pytest.fixture(scope="module")
def done(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    place = tmp_path_factory.mktemp("done")
    store = Store(place / "home")
    config = short_run(base, images, place / "runs", checkpoint=CheckpointConfig(every=2), heldout=HeldoutConfig(every=4))
    return run.run(config, store).folder, store


@pytest.mark.slow
def test_a_change_of_a_finished_run_is_refused_without_more_steps(done: tuple[Path, Store]) -> None:
    folder, store = done
    with pytest.raises(Faults, match=r"finished after 4 steps.*steps= above 4(.|\n)*optim\.weight_decay \(0\.01 -> 0\.5\)"):
        run.resume(folder, {"optim.weight_decay": 0.5}, store)
    assert run.resume(folder, {"optim.weight_decay": 0.01, "steps": 4}, store).result["steps"] == 4
    assert run.resume(folder, {"epochs": 1.0}, store).result["steps"] == 4, "an epoch is 3 steps"


@pytest.mark.slow
def test_what_a_run_reads_may_have_moved(settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base, the images and the held-out ones; another image or base there is refused."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")

    def config(place: str) -> TrainConfig:
        base, images = tiny.tiny_sd1(tmp_path / place / "base"), tiny.tiny_dataset(tmp_path / place / "discs")
        heldout = HeldoutConfig(path=str(tiny.tiny_dataset(tmp_path / place / "others", 2, seed=5)))
        return settings(steps=4, base=str(base), data=DataConfig(path=str(images)), heldout=heldout, out=str(tmp_path / place / "runs"))

    straight = run.run(config("straight"), store)
    place = stopped(config("stopped"), store, at=2)
    moved = (tmp_path / "stopped").rename(tmp_path / "moved")
    place = moved / place.relative_to(tmp_path / "stopped")
    with pytest.raises(Refused, match=r"data\.path=.*there is no such folder"):
        run.resume(place, {"base": str(moved / "base")}, store)
    now = {"base": str(moved / "base"), "data.path": str(moved / "discs"), "heldout.path": str(moved / "others")}
    others = {
        "base": tiny.tiny_sd1(tmp_path / "other base", prediction="v_prediction"),
        "data.path": tiny.tiny_dataset(tmp_path / "other discs", seed=7),
        "heldout.path": tiny.tiny_dataset(tmp_path / "other heldout", 2, seed=9),
    }
    for name, other in others.items():
        with pytest.raises(Faults, match=r"started with other inputs(.|\n)*another (one|image)"):
            run.plan(TrainConfig(resume=str(place)), store, given={**now, name: str(other)})
    outcome = run.resume(place, now, store)
    assert (straight.folder / "discs.safetensors").read_bytes() == (outcome.folder / "discs.safetensors").read_bytes()
    inputs = json.loads((place / folder.INPUTS).read_text())
    assert (inputs["base"]["path"], inputs["dataset"]["path"]) == (now["base"], now["data.path"])
    assert folder.read_config(place).heldout.path == now["heldout.path"]


@pytest.mark.slow
def test_a_dry_run_of_a_resume_says_where_it_goes_on_and_refuses_what_the_resume_refuses(done: tuple[Path, Store], tmp_path: Path) -> None:
    place, store = done
    steps = folder.read_config(place).steps
    again = TrainConfig(resume=str(place), dry_run=True)
    notes = run.plan(again, store, given={"steps": steps + 2}).notes
    assert notes[:2] == (f"resumes {place} after step {steps} of {steps + 2}", f"changed: steps {steps} -> {steps + 2}")
    assert run.plan(again, store).notes[0].startswith(f"{place} is finished")
    with pytest.raises(Faults, match=r"precision \('fp32' -> 'bf16'\)"):
        run.plan(again, store, given={"precision": Precision.bf16})
    other = shutil.copytree(place, tmp_path / place.name)
    inputs = json.loads((other / folder.INPUTS).read_text())
    del inputs["dataset"]["files"][0]
    (other / folder.INPUTS).write_text(json.dumps(inputs))
    with pytest.raises(Faults, match="started with other inputs"):
        run.plan(TrainConfig(resume=str(other)), store, given={"steps": steps + 2})


@pytest.mark.slow
def test_a_dry_run_of_a_resume_reads_the_checkpoints_and_the_result_as_the_resume_does(done: tuple[Path, Store], tmp_path: Path) -> None:
    place, store = done
    steps = folder.read_config(place).steps
    other = shutil.copytree(place, tmp_path / place.name)
    again, fewer = TrainConfig(resume=str(other), dry_run=True), {"steps": steps - 1}
    (other / folder.RESULT).write_text("{}")
    (other / "checkpoints" / f"step-{steps + 5:06d}").mkdir()
    for refused in (lambda: run.plan(again, store), lambda: run.resume(other, {}, store)):
        with pytest.raises(Refused, match="does not hold a run's result"):
            refused()
    (other / folder.RESULT).unlink()
    for refused in (lambda: run.plan(again, store, given=fewer), lambda: run.resume(other, fewer, store)):
        with pytest.raises(Refused, match=f"is at step {steps} already"):
            refused()
    damaged, resumes = run.plan(again, store).notes[:2]
    assert f"step-{steps + 5:06d}" in damaged and resumes == f"resumes {other} after step {steps} of {steps}"


def test_what_changes_mean_is_given_in_numbers(settings: Settings) -> None:
    config = settings(steps=20)
    more = changed(config, {"steps": 30, "seed": 5})
    assert list(run.consequences(config, more, ["steps", "seed"], step=20)) == [
        "the learning rate's schedule is stretched to the new number of steps",
        "the learning rate was 6.82e-05 at step 20 and is 0.00283 at step 21",
        "from step 21 on, images and noise are drawn in another order (seed)",
    ]
    twice = changed(config, {"optim.lr": 2e-2})
    assert list(run.consequences(config, twice, ["optim.lr"], step=1)) == ["the learning rate of step 2 is 0.02; it was to be 0.01"]
    assert list(run.consequences(config, twice, ["preview.seed"], step=1)) == []


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_made_again_to_the_bit(done: tuple[Path, Store], tmp_path: Path) -> None:
    folder, store = done
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "result.json").unlink()
    file = copy / "checkpoints" / "step-000004" / "adapter.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    reported: list[str] = []
    run.resume(copy, {}, store, out=reported.append)
    assert any("step-000004 is damaged" in line for line in reported) and (copy / "damaged" / "step-000004").is_dir()
    before, after = (json.loads((run_folder / "checkpoints" / "step-000004" / "state.json").read_text()) for run_folder in (folder, copy))
    assert after["files"]["training.pt"] == before["files"]["training.pt"]
    checkpoint.read(file.parent)


@pytest.mark.slow
@pytest.mark.parametrize("row", [5, {"step": 2}, {"step": "2", "changes": {}}, {"step": 2, "changes": []}])
def test_a_damaged_record_of_resumes_is_refused(row: Any, done: tuple[Path, Store], tmp_path: Path) -> None:
    folder, store = done
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    inputs = json.loads((copy / "inputs.json").read_text())
    (copy / "inputs.json").write_text(json.dumps(inputs | {"resumes": [row]}))
    with pytest.raises(Refused, match="does not hold a run's inputs"):
        run.resume(copy, {"steps": 6}, store)
