"""Class images that the base draws: none in a plan, each once, the same bytes for a resume, refused where it cannot draw."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.errors import LoomError
from registry.families import FAMILIES
from registry.home import home_dir
from registry.progress import Tick, silent
from registry.store import Store
from tests.tiny import shared_folder
from tests.tiny_families import builds, module_of
from tests.train.conftest import stopped
from train import run
from train.config import DataConfig, TrainConfig
from train.prior import drawn

Settings = Callable[..., TrainConfig]
TRAINED = [build for build in builds() if FAMILIES[build[0]].untrained is None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own: what one test draws is not there for another."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "loom"))


def asking(settings: Settings, images: Path, count: int = 2, **given: Any) -> TrainConfig:
    return settings(data=DataConfig(path=str(images), prior_images=count, prior_prompt="a disc", prior_weight=0.5), **given)


def files() -> list[Path]:
    return sorted((home_dir() / "cache" / "prior").glob("*/*.png"))


def test_a_plan_draws_nothing_and_counts_what_it_would(settings: Settings, images: Path, store: Store) -> None:
    made = run.plan(asking(settings, images), store)
    found = made.to_json()["prior"]
    assert not files() and found["drawn"]["missing"] == 2 and found["share"] == 0.5
    assert "2 regularisation images: 6 of the 12 images of an epoch; 'a disc' at 32x32, 50 steps, guidance 7.5: the base draws all 2" in (
        made.to_text()
    )
    assert made.estimate.seconds and made.estimate.seconds["class images"] > 0


@pytest.mark.slow
def test_they_are_drawn_once_and_more_are_added(settings: Settings, images: Path, store: Store) -> None:
    drawn.draw(_of(asking(settings, images), store), store, report=silent)
    first = [file.read_bytes() for file in files()]
    assert len(first) == 2 and first[0] != first[1]
    lines: list[str] = []
    outcome = run.run(asking(settings, images, 3, seed=5, steps=1), store, out=lines.append)  # another seed uses the same images
    assert [file.read_bytes() for file in files()][:2] == first and len(files()) == 3
    assert any(line.startswith("drawing 1 class image by 'a disc'") for line in lines)
    rows = json.loads((outcome.folder / "inputs.json").read_text())["dataset"]["files"]
    assert [row["file"] for row in rows[6:]] == [f"data.prior/0000{number}.png" for number in range(3)]
    assert not run.plan(asking(settings, images, 3), store).to_json()["prior"]["drawn"]["missing"]


@pytest.mark.slow
def test_they_are_drawn_with_the_runs_swapped_blocks_and_are_the_same_images(settings: Settings, images: Path, store: Store) -> None:
    swapped = _of(asking(settings, images, 1, swap_blocks=2, gradient_checkpointing=True), store)
    plain = _of(asking(settings, images, 1), store)
    assert (swapped.render.swap_blocks, plain.render.swap_blocks) == (2, 0) and swapped.folder == plain.folder


def _of(config: TrainConfig, store: Store) -> drawn.DrawnImages:
    found = run.plan(config, store).class_images
    assert found is not None
    return found


@pytest.mark.slow
def test_of_two_processes_one_draws(settings: Settings, images: Path, store: Store) -> None:
    found, ticks = _of(asking(settings, images), store), []

    def report(tick: Tick) -> None:
        if tick.stage == "draw class images":
            ticks.append(tick.done)

    both = [threading.Thread(target=drawn.draw, args=(found, store), kwargs={"report": report}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert ticks == [1, 2] and len(files()) == 2


@pytest.mark.slow
def test_a_resume_has_the_same_images_and_bytes(settings: Settings, images: Path, store: Store) -> None:
    straight = run.run(asking(settings, images, name="straight"), store)
    place = stopped(asking(settings, images, name="halted"), store, at=2)
    before = [file.read_bytes() for file in files()]
    shutil.rmtree(home_dir() / "cache")
    again = run.resume(place, {}, store)
    assert [file.read_bytes() for file in files()] == before
    one, other = (load_file(outcome.folder / f"{name}.safetensors") for name, outcome in (("straight", straight), ("halted", again)))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_few_step_base_draws_them_in_its_own_steps(settings: Settings, images: Path, base: Path, store: Store, tmp_path: Path) -> None:
    place = shutil.copytree(base, tmp_path / "tiny-lcm")
    found = _of(asking(settings, images, base=str(place)), store)
    assert (found.render.steps, found.render.guidance) == (8, 1.0)
    drawn.draw(found, store, report=silent)
    assert len(files()) == 2 and not found.missing


@pytest.mark.slow
def test_what_the_base_cannot_draw_is_refused_in_the_plan(settings: Settings, images: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(LoomError, match="clip_skip"):
        run.plan(asking(settings, images, clip_skip=40), store)
    drawn.draw(found := _of(asking(settings, images), store), store, report=silent)
    found.file(1).write_bytes(b"no image")
    with pytest.raises(LoomError, match=r"has damaged class images. Remove these files, and they are drawn again"):
        run.plan(asking(settings, images), store)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_every_family_draws_them(name: str, variant: str, settings: Settings, images: Path, store: Store) -> None:
    config = asking(settings, images, 1, base=str(shared_folder(name, variant=variant)), resolution=module_of(name).SIZE)
    drawn.draw(_of(config, store), store, report=silent)
    assert len(files()) == 1 and not run.plan(config, store).to_json()["prior"]["drawn"]["missing"]
