"""Two trainings of one name: each has its folder, the name is the later one's, with the run that belongs to it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.store import Store
from tests.train.loop.test_resume import begin
from train import run
from train.config import DataConfig, TrainConfig, to_yaml
from train.output import folder

Settings = Callable[..., TrainConfig]


@pytest.mark.slow
def test_the_later_one_has_the_name_and_the_earlier_one_an_alias(settings: Settings, store: Store) -> None:
    first = run.run(settings(steps=1), store)
    reported: list[str] = []
    second = run.run(settings(steps=1, seed=1), store, out=reported.append)
    assert first.folder != second.folder
    assert store.find("discs", kind="adapter").path == second.result["files"]["diffusers"]
    (line,) = (line for line in reported if line.startswith("the name discs was "))
    earlier = line.rpartition(" ")[2]
    assert earlier.startswith("discs@2") and store.find(earlier).path == first.result["files"]["diffusers"]


@pytest.mark.slow
def test_the_same_training_again_is_the_same_file_and_one_record(
    settings: Settings, store: Store, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    copy = shutil.copytree(images, tmp_path / "elsewhere" / images.name)
    files = [
        run.run(settings(steps=1, out=str(tmp_path / out), data=DataConfig(path=str(data))), store).result["files"]
        for out, data in (("one", images), ("two", os.path.relpath(copy)))  # a path as typed, from the folder where it was typed
    ]
    written = Path(files[0]["diffusers"]).read_bytes()
    assert str(images.parent).encode() not in written and str(tmp_path).encode() not in written and b"2026-01-01" in written
    for dialect in ("diffusers", "kohya"):
        assert Path(files[0][dialect]).read_bytes() == Path(files[1][dialect]).read_bytes()
    assert [record.name for record in store.records(kind="adapter")] == ["discs"]


def test_a_training_that_goes_on_beside_it_is_seen(tmp_path: Path) -> None:
    mine, other, done = (tmp_path / "discs" / name for name in ("20260101-000000", "20260101-000001", "20260101-000002"))
    for place in (mine, other, done):
        place.mkdir(parents=True)
    with folder.held(done):
        pass
    with folder.held(other):
        assert folder.in_use_beside(mine) == [other]
    assert folder.in_use_beside(mine) == []


@pytest.mark.slow
def test_two_at_once_both_end_and_name_and_run_belong_together(settings: Settings, tmp_path: Path) -> None:
    processes = []
    for seed in (1, 2):
        file = tmp_path / f"{seed}.yaml"
        file.write_text(to_yaml(settings(steps=20, seed=seed)), encoding="utf-8")
        processes.append(begin(tmp_path / "home", file))
    texts = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    store = Store(tmp_path / "home")
    adapter = store.find("discs", kind="adapter")
    place = Path(str(adapter.path)).parent
    assert len(store.records(kind="adapter")) == 2 and store.find("discs", kind="run").path == str(place)
    assert store.find("discs@step-20").path == str(place / "checkpoints" / "step-000020" / "adapter.safetensors")
    assert sum("the name discs was" in text for text in texts) == 1
