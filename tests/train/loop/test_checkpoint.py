import json
import random
from pathlib import Path

import numpy
import pytest
import torch

from registry.errors import JobFailed, Refused
from registry.formats.atomic_file import write_safetensors
from train.loop import checkpoint


def save(run: Path, step: int) -> Path:
    return checkpoint.save(
        run,
        step,
        write_adapter=lambda path: write_safetensors(path, {"a": torch.full((2,), float(step))}, metadata={}),
        training={"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "random": checkpoint.random_states()},
        history={"base": [1.0], "heldout": [], "seconds": 2.0},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_a_checkpoint_comes_back(run: Path) -> None:
    folder = save(run, 300)
    assert folder.name == "step-000300" and sorted(f.name for f in folder.iterdir()) == ["adapter.safetensors", "state.json", "training.pt"]
    found = checkpoint.read(folder)
    assert found.step == 300 and found.history["seconds"] == 2.0
    assert torch.equal(found.training["optimizer"]["state"][0]["exp_avg"], torch.ones(2))


def test_a_failed_save_leaves_nothing(run: Path) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(run, 1, write_adapter=broken, training={}, history={})
    assert list(run.iterdir()) == [run / "checkpoints"] and not list((run / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ["adapter.safetensors", "training.pt", "state.json"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_taken(run: Path, name: str) -> None:
    save(run, 1)
    file = save(run, 2) / name
    file.write_bytes(file.read_bytes()[:-8])
    reported: list[str] = []
    found = checkpoint.newest(run, reported.append)
    assert found is not None and found.step == 1
    assert "step-000002 is damaged" in reported[0]


def test_a_damaged_checkpoint_is_moved_away_and_made_again(run: Path) -> None:
    save(run, 1)
    file = save(run, 2) / "adapter.safetensors"
    whole = file.read_bytes()
    for number in ("", "-2"):
        file.write_bytes(whole[:-1] + b"\x00\x00")
        reported: list[str] = []
        checkpoint.set_aside(run, after=1, out=reported.append)
        moved = run / "damaged" / f"step-000002{number}"
        assert reported == [f"the damaged checkpoint of step 2 is moved to {moved}; training makes it again"]
        assert list(checkpoint.steps_of(run)) == [1]
        assert save(run, 2) == file.parent and file.read_bytes() == whole
    file.write_bytes(whole[:-1] + b"\x00\x00")
    assert save(run, 2) == file.parent and file.read_bytes() == whole, "nobody moved it away before"


def test_an_intact_later_checkpoint_is_not_trained_over(run: Path) -> None:
    save(run, 1)
    save(run, 2)
    with pytest.raises(Refused, match="at step 2 by now"):
        checkpoint.set_aside(run, after=1, out=pytest.fail)
    assert list(checkpoint.steps_of(run)) == [1, 2]


def test_a_newer_program_s_checkpoint_is_not_passed_over(run: Path) -> None:
    save(run, 1)
    state = save(run, 2) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"version": 99}))
    with pytest.raises(JobFailed, match="Update loraloom"):
        checkpoint.newest(run, pytest.fail)


def test_a_checkpoint_without_the_digest_of_a_file_is_damaged(run: Path) -> None:
    folder = save(run, 1)
    state = json.loads((folder / "state.json").read_text())
    for name in ("adapter.safetensors", "training.pt"):
        others = {other: sha256 for other, sha256 in state["files"].items() if other != name}
        (folder / "state.json").write_text(json.dumps(state | {"files": others}))
        with pytest.raises(checkpoint.Damaged):
            checkpoint.read(folder)


def test_half_made_folders_are_not_seen(run: Path) -> None:
    (run / "checkpoints" / ".tmp-x").mkdir()
    (run / "checkpoints" / "step-000009.old").mkdir()
    assert checkpoint.newest(run, pytest.fail) is None


def test_a_newer_version_is_not_guessed(run: Path) -> None:
    state = save(run, 1) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"version": 99}))
    with pytest.raises(JobFailed, match="version 99"):
        checkpoint.read(state.parent)


def test_the_newest_and_the_best_are_kept(run: Path) -> None:
    for step in (1, 2, 3, 4):
        save(run, step)
    checkpoint.prune(run, keep=2, best=1, every=1, steps=9)
    assert list(checkpoint.steps_of(run)) == [1, 3, 4]


def test_checkpoints_of_a_falling_heldout_loss_leave_those_that_were_set(run: Path) -> None:
    for step in range(2, 17):
        if step % 2 == 0 or step % 5 == 0:  # a lower held-out loss every 2 steps, checkpoint.every=5
            save(run, step)
            checkpoint.prune(run, keep=2, best=step, every=5, steps=16)
    assert list(checkpoint.steps_of(run)) == [15, 16]  # the last of the steps counts
    save(run, 14)
    checkpoint.prune(run, keep=3, best=14, every=5, steps=16)
    assert list(checkpoint.steps_of(run)) == [14, 15, 16]
    for step in (10, 12):
        save(run, step)
    checkpoint.prune(run, keep=3, best=14, every=5, steps=16)
    assert list(checkpoint.steps_of(run)) == [10, 14, 15, 16]


def test_the_global_generators_come_back(run: Path) -> None:
    found = checkpoint.read(save(run, 1))
    wanted = (torch.rand(3), random.random(), numpy.random.rand())
    checkpoint.set_random_states(found.training["random"])
    again = (torch.rand(3), random.random(), numpy.random.rand())
    assert torch.equal(wanted[0], again[0]) and wanted[1:] == again[1:]
