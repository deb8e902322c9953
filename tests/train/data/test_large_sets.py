"""Sets of many images: the work grows with the images, not with their square."""

import cProfile
import pstats
from pathlib import Path

import numpy
import pytest
from PIL import Image

from train.config import DataConfig
from train.data.lint import lint

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


@pytest.mark.parametrize("table", [False, True], ids=["sidecars", "table"])
def test_the_work_grows_with_the_images(tmp_path: Path, table: bool) -> None:
    paths = [written(tmp_path / str(count), count, table=table) for count in (FEW, MANY)]
    calls(paths[0])  # what is imported and cached at the first time
    few, many = map(calls, paths)
    assert many < 4.4 * few
