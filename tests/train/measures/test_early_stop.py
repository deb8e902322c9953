"""Early stopping: by measurements written out, and of runs that stop, are resumed, go on, or decide at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.errors import Faults, Refused
from registry.store import Store
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, HeldoutConfig, OptimConfig, TrainConfig
from train.loop.history import History
from train.measures.early_stop import Stopped, best_so_far, check_early_stop, early_stop, early_stop_notes

BASE = [0.80, 0.90, 0.70, 0.85]
NOISE = [0.001, -0.002, 0.002, -0.001]


def shifted(by: float, sign: int = 1) -> list[float]:
    return [loss + by + sign * noise for loss, noise in zip(BASE, NOISE, strict=True)]


def history(*by: float) -> History:
    """Measurements at steps 10, 20, ... whose losses differ from the base's by so much; training images too."""
    rows: list[dict[str, Any]] = [
        {"step": 10 * number, "losses": shifted(each, (-1) ** number), "trained": [0.5 + each]} for number, each in enumerate(by, 1)
    ]
    return History(base=BASE, before={"losses": BASE, "trained": [0.5]}, heldout=rows)


def test_the_best_is_the_last_one_that_was_better_beyond_chance() -> None:
    assert best_so_far([BASE, shifted(-0.1), shifted(-0.1005, -1), shifted(-0.2)]) == (3, 0)
    assert best_so_far([BASE, shifted(-0.1), shifted(-0.1005, -1)]) == (1, 1), "a ten-thousandth is chance"
    assert best_so_far([BASE, shifted(0.1)]) == (0, 1)


def test_a_run_stops_after_as_many_measurements_without_a_better_one() -> None:
    found, config = history(-0.1, -0.2, -0.2, -0.1), HeldoutConfig(patience=2)
    assert [early_stop(found, config, step=step) is not None for step in (10, 20, 30, 40)] == [False, False, False, True]
    assert early_stop(found, config, step=40) == (
        "2 held-out measurements in a row were not better than step 20 beyond chance (heldout.patience=2)"
    )
    assert early_stop(found, config, step=45) is None, "nothing was measured there"
    assert early_stop(found, HeldoutConfig(patience=2, min_steps=41), step=40) is None
    assert early_stop(found, HeldoutConfig(patience=3), step=40) is None and early_stop(found, HeldoutConfig(), step=40) is None
    assert "the base" in str(early_stop(history(0.1, 0.1), config, step=20))


def test_a_run_stops_at_the_first_measurement_that_is_worse_than_the_base() -> None:
    config = HeldoutConfig(stop_when_worse=True)
    assert "the learning rate is too high" in str(early_stop(history(0.1), config, step=10))
    assert early_stop(history(0.004), config, step=10) is None, "less than a hundredth"
    assert early_stop(history(-0.1), config, step=10) is None
    overfitted = history(0.1)
    overfitted.heldout[0]["trained"] = [0.3]
    assert early_stop(overfitted, config, step=10) is None, "training images are better: no rate is too high"


def test_what_cannot_be_judged_is_refused_and_the_schedule_is_noted() -> None:
    with pytest.raises(Refused, match=r"heldout\.patience stops by held-out images, and there are no held-out images"):
        check_early_stop(HeldoutConfig(patience=2), 0)
    with pytest.raises(Refused, match="one held-out image gives no interval"):
        check_early_stop(HeldoutConfig(stop_when_worse=True), 1)
    check_early_stop(HeldoutConfig(patience=2), 2)
    check_early_stop(HeldoutConfig(), 0)
    assert next(early_stop_notes(HeldoutConfig(patience=2), 500)).endswith("schedule of all 500 steps until then")
    assert list(early_stop_notes(HeldoutConfig(), 500)) == []
    with pytest.raises(Faults, match=r"heldout\.min_steps acts on nothing"):
        TrainConfig(heldout=HeldoutConfig(min_steps=5))
    with pytest.raises(Faults, match=r"heldout\.patience must be at least 1"):
        TrainConfig(heldout=HeldoutConfig(patience=0))


def worse(base: Path, images: Path, out: Path, **given: Any) -> TrainConfig:
    """A run that gets no better: its rate is far too small for that."""
    heldout = HeldoutConfig(every=2, **({"patience": 2} | given))
    return short_run(base, images, out, steps=10, optim=OptimConfig(lr=1e-9), checkpoint=CheckpointConfig(every=6, keep=9), heldout=heldout)


@pytest.fixture(scope="module")
def stopped(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Store]:
    place = tmp_path_factory.mktemp("stopped")
    store = Store(place / "home")
    outcome = run.run(worse(base, images, place / "runs"), store)
    return outcome.folder, dict(outcome.result), store


@pytest.mark.slow
def test_a_stopped_run_is_finished_at_its_step(stopped: tuple[Path, dict[str, Any], Store]) -> None:
    folder, result, _ = stopped
    assert result["steps"] == 4 and result["adapter_step"] == 4
    assert result["stopped_early"]["step"] == 4 and result["stopped_early"]["of"] == 10
    assert "heldout.patience=2" in result["stopped_early"]["reason"]
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir())[-1] == "step-000004"
    images = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in images}) == [0, 4], "the last step is measured as a last step is"
    assert "stopped early after step 4 of 10" in Stopped(4, 10, "x").sentence()


@pytest.mark.slow
def test_it_goes_on_only_where_it_is_asked_to(
    stopped: tuple[Path, dict[str, Any], Store], base: Path, images: Path, tmp_path: Path
) -> None:
    folder, result, store = stopped
    lines: list[str] = []
    assert run.resume(folder, {}, store, out=lines.append).result == result
    assert "stopped early after step 4 of 10" in lines[-1] and "larger heldout.patience" in lines[-1]
    with pytest.raises(Refused, match=r"would do so again.*min_steps above 4"):
        run.resume(folder, {"steps": 20}, store)
    planned = TrainConfig(resume=str(folder), dry_run=True)
    assert run.plan(planned, store).notes[0] == lines[-1]
    with pytest.raises(Refused, match=r"would do so again.*min_steps above 4"):
        run.plan(planned, store, given={"steps": 20})
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    on = run.resume(copy, {"heldout.patience": 4}, store).result
    assert on["steps"] == 8 and on["stopped_early"]["step"] == 8
    straight = run.run(worse(base, images, tmp_path / "runs", patience=4), store)
    for step in (6, 8):
        one, other = (load_file(each / "checkpoints" / f"step-{step:06d}" / "adapter.safetensors") for each in (copy, straight.folder))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    rows = [json.loads((each / "images.jsonl").read_text().splitlines()[-1]) for each in (copy, straight.folder)]
    assert rows[0]["step"] == 8 and rows[0]["loss"] == rows[1]["loss"]
    assert straight.result["stopped_early"] == on["stopped_early"]


@pytest.mark.slow
def test_a_kill_before_the_result_is_written_does_not_train_on(stopped: tuple[Path, dict[str, Any], Store], tmp_path: Path) -> None:
    folder, result, store = stopped
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "result.json").unlink()
    again = run.resume(copy, {}, store).result
    assert again["steps"] == 4 and again["stopped_early"] == result["stopped_early"]
