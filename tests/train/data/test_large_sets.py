"""Sets of many images: the work grows with the images, not with their square."""

import cProfile
import pstats
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from registry.store import Store
from train.config import DataConfig, TrainConfig
from train.data import dataset
from train.data.lint import lint
from train.data.seen import SeenFiles
from train.run import plan

FEW, MANY = 60, 240


def written(folder: Path, count: int, *, table: bool) -> str:
    """A set of small drawings with captions, a text file without an image for each fourth, and a heldout/."""
    for place, number in ((folder, count), (folder / "heldout", count // 4)):
        place.mkdir(parents=True)
        random = numpy.random.default_rng(number)
        for index in range(number):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(place / f"{index:04d}.png")
            if not table:
                (place / f"{index:04d}.txt").write_text(f"drawing number {index} of sks, {'ink' if index % 2 else 'a pencil'}")
            if index % 4 == 0:
                (place / f"other-{index}.txt").write_text("notes")
                (place / f"other-{index}.bin").write_text("notes")
        if table:
            rows = "".join(f'{{"file_name": "{index:04d}.png", "text": "drawing {index}"}}\n' for index in range(number))
            (place / "metadata.jsonl").write_text(rows)
    return str(folder)


def calls(path: str) -> int:
    """Calls of functions, comparisons of paths among them, that a lint makes."""
    with cProfile.Profile() as profile:
        found = lint(DataConfig(path=path, trigger="sks"))
    assert not found.faults
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("table", [False, True], ids=["sidecars", "table"])
def test_the_work_grows_with_the_images(tmp_path: Path, table: bool) -> None:
    paths = [written(tmp_path / str(count), count, table=table) for count in (FEW, MANY)]
    calls(paths[0])  # what is imported and cached at the first time
    few, many = map(calls, paths)
    assert many < 4.4 * few


def repeated(folder: Path, count: int) -> str:
    """One image of one colour and one caption, so many times."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (40, 40), "grey").save(folder / f"{index:04d}.png")
        (folder / f"{index:04d}.txt").write_text("the same (words:1.2) of sks on every image, eight words and more")
    return str(folder)


def test_the_work_grows_with_images_that_are_all_one(tmp_path: Path) -> None:
    """Every image is in every group and finding."""
    paths = [repeated(tmp_path / str(count), count) for count in (FEW, MANY)]
    calls(paths[0])
    few, many = map(calls, paths)
    assert many < 4.4 * few


def plan_calls(path: str, config: TrainConfig, store: Store) -> int:
    """Calls of functions that the plan of a training makes, nothing of the images known before."""
    config = replace(config, data=DataConfig(path=path, trigger="sks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SEEN", SeenFiles())
        with cProfile.Profile() as profile:
            made = plan(config, store)
    assert made.train and made.heldout
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_plan_grows_with_the_images(tmp_path: Path, settings: Callable[..., TrainConfig], store: Store) -> None:
    """What it does for the base alone is the same for all, and falls out of the differences."""
    paths = [written(tmp_path / str(count), count, table=False) for count in (FEW, 2 * FEW, MANY)]
    config = settings(steps=4)
    plan_calls(paths[0], config, store)
    few, twice, many = (plan_calls(path, config, store) for path in paths)
    assert twice > few + 100 * FEW and many - twice < 2.2 * (twice - few)
