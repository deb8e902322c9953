import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from registry.errors import Faults, NotFound, Refused
from registry.store import Store
from tests.patience import PATIENCE
from tests.train.conftest import short_run, stopped
from train import run
from train.config import CheckpointConfig, HeldoutConfig, LoraConfig, OptimConfig, ScheduleConfig, TrainConfig, to_yaml
from train.loop import checkpoint
from train.loop.saved_state import restore, training_state
from train.lora import lora_tensors
from train.output import export

Settings = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[3]


def begin(home: Path, settings: Path, folder: Path | None = None) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "tests.train.resumable", str(home), str(settings), *([str(folder)] if folder else [])]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read the process' lines up to one with the words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    pytest.fail(f"{words!r} never came:\n{''.join(lines)}")


def same_file(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def only_run(out: Path) -> Path:
    (folder,) = (entry for entry in (out / "discs").iterdir() if not entry.name.startswith("."))
    return folder


def adapter(folder: Path) -> Path:
    return folder / "discs.safetensors"


@pytest.mark.slow
def test_stopped_and_gone_on_with_is_the_same_to_the_bit(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")  # 2026-01-01: runs of two days differ in the day alone
    straight = run.run(settings(steps=6, out=str(tmp_path / "straight"), checkpoint=CheckpointConfig(every=3)), store)
    folder = stopped(settings(steps=6, out=str(tmp_path / "stopped"), checkpoint=CheckpointConfig(every=3)), store, at=4)
    assert not (folder / "result.json").exists()
    torch.manual_seed(123)  # whatever the process did before
    outcome = run.resume(folder, {}, store)
    for name in ("discs.safetensors", "discs-kohya.safetensors", "checkpoints/step-000006/adapter.safetensors"):
        assert (straight.folder / name).read_bytes() == (folder / name).read_bytes(), name
    assert outcome.result["heldout"] == straight.result["heldout"]
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (straight.folder, folder)]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["encoded", "step 6", "step 11"])
def test_twelve_steps_straight_are_six_a_kill_and_six_more(moment: str, settings: Settings, tmp_path: Path) -> None:
    config = settings(steps=12, checkpoint=CheckpointConfig(every=6), heldout=HeldoutConfig(every=1), out=str(tmp_path / "killed"))
    file = tmp_path / "settings.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    process = begin(tmp_path / "home", file)
    wait_for(process, moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    folder = only_run(tmp_path / "killed")
    again = begin(tmp_path / "home", file, folder)
    wait_for(again, "finished")
    assert again.wait() == 0
    from train.config import changed

    straight = run.run(changed(config, {"out": str(tmp_path / "straight")}), Store(tmp_path / "other"))
    assert same_file(adapter(straight.folder), adapter(folder))


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment_it_still_ends_the_same(settings: Settings, tmp_path: Path) -> None:
    checkpoints, heldout = CheckpointConfig(every=2), HeldoutConfig(every=1)  # held-out losses are reported step by step
    config = settings(steps=24, checkpoint=checkpoints, heldout=heldout, out=str(tmp_path / "killed"))
    file = tmp_path / "settings.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    process = begin(tmp_path / "home", file)
    kills = 0
    for moment in ("step 1:", "step 3:", "step 4:"):  # begins again between two checkpoints, and right behind one
        wait_for(process, moment)
        time.sleep(0.02)  # somewhere inside the next step, or the checkpoint after it
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL  # a busy machine may let the run end before its reader receives a step
        if process.returncode == 0:
            break
        process = begin(tmp_path / "home", file, only_run(tmp_path / "killed"))
    else:
        wait_for(process, "finished")
    assert process.wait() == 0 and kills > 0
    from train.config import changed

    straight = run.run(changed(config, {"out": str(tmp_path / "straight")}), Store(tmp_path / "other"))
    assert same_file(adapter(straight.folder), adapter(only_run(tmp_path / "killed")))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_leaves_a_checkpoint_and_130(number: signal.Signals, settings: Settings, tmp_path: Path) -> None:
    config = settings(steps=2000, heldout=HeldoutConfig(every=5), checkpoint=CheckpointConfig(every=1000))
    file = tmp_path / "settings.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    process = begin(tmp_path / "home", file)
    wait_for(process, "step 5:")
    process.send_signal(number)
    rest = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130, rest
    assert f"Stopped by {number.name} after step" in rest and "resume=" in rest
    folder = only_run(tmp_path / "runs")
    last = max((folder / "checkpoints").iterdir())
    assert f"after step {int(last.name[5:])} " in rest and json.loads((last / "state.json").read_text())["step"] >= 5


@pytest.fixture(scope="module")
def done(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    place = tmp_path_factory.mktemp("done")
    store = Store(place / "home")
    return run.run(short_run(base, images, place / "runs", steps=2), store).folder, store


def test_a_finished_run_tells_its_result_again(done: tuple[Path, Store]) -> None:
    folder, store = done
    before = (folder / "result.json").read_bytes()
    assert run.resume(folder, {}, store).result == json.loads(before)
    assert (folder / "result.json").read_bytes() == before


@pytest.mark.slow
def test_more_steps_train_on_and_the_change_is_reported(done: tuple[Path, Store]) -> None:
    folder, store = done
    reported: list[str] = []
    config = TrainConfig(resume=str(folder), steps=3)
    outcome = run.run(config, store, given={"resume": str(folder), "steps": 3}, out=reported.append)
    assert outcome.result["steps"] == 3
    assert "changed: steps 2 -> 3" in reported and any("stretched" in line for line in reported)
    assert "  the learning rate was 0.005 at step 2 and is 0.0025 at step 3" in reported  # half and three quarters of a cosine from 0.01
    inputs = json.loads((folder / "inputs.json").read_text())
    assert [(row["step"], row["changes"]) for row in inputs["resumes"]] == [(2, {"steps": 3})]
    with safe_open(outcome.result["files"]["diffusers"], "pt") as file:
        header = file.metadata()
    manifest = json.loads(header["loraloom.manifest"])
    assert manifest["resumes"] == [{"step": 2, "changes": {"steps": 3}}] and manifest["run"] == "discs"
    assert header["modelspec.date"] == inputs["started"][:10] and str(folder.parents[1]) not in str(header)


def test_base_data_and_lora_cannot_change(done: tuple[Path, Store]) -> None:
    folder, store = done
    with pytest.raises(Faults, match=r"lora\.rank \(2 -> 8\)"):
        run.resume(folder, {"lora.rank": 8, "steps": 9}, store)


def test_images_that_changed_are_named(done: tuple[Path, Store], tmp_path: Path) -> None:
    import shutil

    folder, store = done
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    inputs = json.loads((copy / "inputs.json").read_text())
    inputs["dataset"]["files"][0]["sha256"] = "0" * 64
    del inputs["dataset"]["files"][1]
    (copy / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(Faults) as caught:
        run.resume(copy, {"steps": 9}, store)
    assert caught.value.faults == ["000.png has another image, caption or mask", "001.png is new"]


def test_latest_is_the_newest_of_that_name(done: tuple[Path, Store]) -> None:
    from train.output.folder import find_folder

    folder, _ = done
    out = str(folder.parents[1])
    for stamp in ("20990101-000000", "20990101-000000-2", "20990101-000000-10"):
        (folder.parent / stamp).mkdir(exist_ok=True)
        (folder.parent / stamp / "config.yaml").write_text("name: discs\n")
        (folder.parent / stamp / "inputs.json").write_text("{}")
    grid = folder.parents[1] / "grid" / "20990101-000001"
    grid.mkdir(parents=True)
    (grid / "config.yaml").write_text("prompt: a disc\n")
    assert find_folder("latest", out=out, name="discs").name == "20990101-000000-10"
    assert find_folder("latest", out=out, name=None).name == "20990101-000000-10"
    with pytest.raises(NotFound, match="Did you mean 'discs'"):
        find_folder("latest", out=out, name="disks")
    with pytest.raises(NotFound, match="no such folder"):
        find_folder(str(folder / "nothing"), out=out, name=None)
    with pytest.raises(Refused, match="not a run folder"):
        find_folder(str(folder / "samples"), out=out, name=None)


def test_a_folder_in_use_is_refused(done: tuple[Path, Store]) -> None:
    from train.output.folder import held

    folder, _ = done
    with held(folder), pytest.raises(Refused, match="in use"), held(folder):
        pytest.fail("it was held twice")


def test_options_of_the_optimizer_cannot_change_and_the_schedule_s_can(done: tuple[Path, Store]) -> None:
    folder, _ = done
    with pytest.raises(Faults, match=r"optim\.betas \(\[0\.9, 0\.999\] -> \[0\.8, 0\.9\]\)\n.*optim\.params\.eps \(1e-08 -> 1e-06\)"):
        run.resumed_config(folder, {"optim.betas": [0.8, 0.9], "optim.params.eps": 1e-6})
    config = run.resumed_config(folder, {"schedule.name": "linear", "schedule.params.min_factor": 0.1, "optim.weight_decay": 0.2})
    assert (config.schedule.params.cycles, config.schedule.params.min_factor, config.optim.weight_decay) == (None, 0.1, 0.2)


def saved(state: Any, run_folder: Path) -> Path:
    """A checkpoint of step 2."""

    def write(path: Path) -> None:
        with state.evaluating():
            export.write_adapter(path, state.modules, {})

    (run_folder / "checkpoints").mkdir()
    return checkpoint.save(run_folder, 2, write_adapter=write, training=training_state(state), history={})


@pytest.mark.slow
def test_schedule_free_resumes_from_the_weights_that_train(
    prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path
) -> None:
    config = settings(optim=OptimConfig(name="adamw_schedule_free", lr=1e-2), schedule=ScheduleConfig(name="constant"))
    straight, resumed = prepared(config).state, prepared(config).state
    for step in range(2):
        straight.step(step)
    found = checkpoint.read(saved(straight, tmp_path))
    average = export.read_adapter(found.adapter)
    assert not all(torch.equal(average[name], tensor) for name, tensor in lora_tensors(straight.modules).items())
    restore(resumed, found, average)
    assert torch.equal(straight.step(2).losses, resumed.step(2).losses)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(straight.weights, resumed.weights, strict=True))


@pytest.mark.slow
def test_alpha_in_the_file_s_factors_does_not_touch_a_resume(
    prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path
) -> None:
    config = settings(lora=LoraConfig(rank=2, alpha=3.0))  # 1.5: dividing the file's factors by it again would round them
    straight, resumed = prepared(config).state, prepared(config).state
    for step in range(2):
        straight.step(step)
    found = checkpoint.read(saved(straight, tmp_path))
    restore(resumed, found, export.read_adapter(found.adapter))
    assert torch.equal(straight.step(2).losses, resumed.step(2).losses)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(straight.weights, resumed.weights, strict=True))


@pytest.mark.slow
def test_a_changed_weight_decay_acts_after_a_resume(prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path) -> None:
    before = prepared(settings()).state
    before.step(0)
    after = prepared(settings(optim=OptimConfig(lr=1e-2, weight_decay=0.5))).state
    found = checkpoint.read(saved(before, tmp_path))
    restore(after, found, export.read_adapter(found.adapter))
    assert [group["weight_decay"] for group in after.optimizer.param_groups] == [0.5]
