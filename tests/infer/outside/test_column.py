"""A folder of images made elsewhere in a grid: the same sheet, report and votes, and nothing that gives the side away."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.grid.job import plan, run
from infer.vote.comparison import choose_axes, compare
from infer.vote.finished import read_grid
from infer.vote.page.images import bare_image
from infer.vote.page.order import every_place
from infer.vote.page.page import write_static
from infer.vote.page.session import Session
from infer.vote.preferences import write_preferences
from infer.vote.ranking.rank import rank_grids
from registry.errors import Faults
from tests.infer.conftest import Shelf
from tests.infer.grid.test_job import config, lines
from tests.infer.outside.made import image

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

NASTY = "<script>document.title=1</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of a cat, a wide one of a dog, and one of something else."""
    place = tmp_path / "dalle"
    image(place / "a-cat-1.png", Comment=NASTY)
    image(place / "a-cat-2.webp", colour=(30, 200, 30))
    image(place / "a-dog.png", colour=(30, 30, 200), size=(80, 40))
    image(place / "a-fish.png")
    return place


def drawn(shelf: Shelf, folder: Path, axes: dict[str, Any], **settings: Any) -> Path:
    return run(config(shelf, axes, outside=[{"name": "dalle3", "path": str(folder)}], **settings), shelf.store).folder


@pytest.mark.slow
def test_a_column_beside_adapters_and_weights(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    axes = {"prompt": ["a cat", "a dog"], "adapter": ["none", "words"], "weight": [0.5, 1], "seed": [1, 2]}
    given = config(shelf, axes, where='adapter != "none"', outside=[{"name": "dalle3", "path": str(folder)}])
    planned = plan(given, shelf.store)
    assert (
        planned.to_json()["outside"] == [{"name": "dalle3", "cells": 4, "images": 3}]
        and planned.to_json()["axes"]["weight"][-1] == "dalle3"
    )
    assert (
        "8 cells: 2 adapter x 2 weight x 2 prompt x 2 seed" in planned.to_text()
        and "dalle3: 3 images made elsewhere in 4 cells" in planned.to_text()
    )
    notes = "\n".join(planned.notes)
    assert "seed 2 has no image of 'a dog': these cells stay empty" in notes and "of the grid: a-fish.png" in notes
    assert "1 image has another shape than the drawn ones (a-dog.png)" in notes
    found = run(given, shelf.store)
    assert found.result["outside"] == 3 and found.result["cells"] == 8
    rows = [line for line in lines(found.folder) if "outside" in line]
    assert [(row["axes"], row["status"]) for row in rows] == [
        ({"prompt": "a cat", "seed": 1, "weight": "dalle3"}, "outside"),
        ({"prompt": "a cat", "seed": 2, "weight": "dalle3"}, "outside"),
        ({"prompt": "a dog", "seed": 1, "weight": "dalle3"}, "outside"),
        ({"prompt": "a dog", "seed": 2, "weight": "dalle3"}, "absent"),
    ]
    assert rows[0]["outside"]["metadata"] == {"Comment": NASTY} and rows[0]["key"] == f"outside-{rows[0]['outside']['sha256']}"
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert NASTY not in page and "made elsewhere" in page and "3 made elsewhere" in page
    _voted_on(found.folder, tmp_path)
    again = run(given, shelf.store)  # nothing is drawn; the same keys
    assert again.result["rendered"] == 0 and [line["key"] for line in lines(again.folder)] == [line["key"] for line in lines(found.folder)]


def _voted_on(grid: Path, tmp_path: Path) -> None:
    """Every comparison has the column as a candidate, in every block of its prompt and seed, and the page shows its pixels alone."""
    read = read_grid(grid)
    for axes, names in {
        ("weight",): ("0.5", "1", "dalle3"),
        ("adapter",): ("words", "dalle3"),
        ("adapter", "weight"): ("adapter words, weight 0.5", "adapter words, weight 1", "dalle3"),
    }.items():
        assert compare([read], axes).candidates == names
    assert len(every_place(compare([read], ("adapter",)))[0, 1]) == 6  # three images, at two weights each
    session = Session([read], ("weight",))
    shown = [bare_image(path, session.boxes.get(name)) for name, path in session.images.items()]
    assert len(session.boxes) == 3 and {Image.open(io.BytesIO(one)).size for one in shown} == {(32, 32)}
    assert {tuple(Image.open(io.BytesIO(one)).info) for one in shown} == {()} and not any(NASTY.encode() in one for one in shown)
    state = session.start("anna")
    while (trial := state["trial"]) is not None:
        keys = {name: path.name for name, path in session.images.items()}
        left = "outside" in keys[trial["left"]]
        state = session.vote("anna", trial["id"], "left" if left else "right" if "outside" in keys[trial["right"]] else "tie", 1.0)
    ballots = [(0, vote) for vote in session.files[0].votes()]
    ranked = rank_grids([read], ballots, axes=("weight",)).to_json()
    assert ranked["candidates"][0]["value"] == "dalle3" and ranked["candidates"][0]["wins"] == 6
    assert write_preferences(tmp_path / "votes.parquet", [read], ballots) == len(ballots)
    write_static(tmp_path / "vote.html", compare([read], ("weight",)), asked=10, seed=0, voter=None)
    assert "dalle" not in (tmp_path / "vote.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_grid_of_prompts_alone_is_compared_by_its_base(shelf: Shelf, folder: Path) -> None:
    grid = drawn(shelf, folder, {"prompt": ["a cat", "a dog"]})
    read = read_grid(grid)
    assert choose_axes([read], None) == ("base",) and compare([read], ("base",)).candidates == ("tiny", "dalle3")
    with Image.open(grid / "sheet.png") as sheet:
        assert sheet.width > 100
    kept = [Image.open(cell.image).size for cell in read.cells if cell.outside and cell.image]
    assert kept == [(40, 40), (80, 40)]  # whole and unscaled in the grid's folder


@pytest.mark.slow
def test_two_columns_meet_once(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "journey"
    image(other / "1.png", colour=(9, 9, 9))
    columns = [{"name": "dalle3", "path": str(folder)}, {"name": "journey", "path": str(other)}]
    grid = run(config(shelf, {"weight": [0.5, 1]}, prompt="a cat", adapters="words", outside=columns), shelf.store).folder
    found = compare([read_grid(grid)], ("weight",))
    assert found.candidates == ("0.5", "1", "dalle3", "journey") and len(every_place(found)[2, 3]) == 1


def test_faults_come_with_those_of_the_grid(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    columns = [{"name": "words", "path": str(tmp_path / "gone")}, {"name": "b", "path": str(tmp_path / "empty")}]
    with pytest.raises(Faults) as caught:
        plan(config(shelf, {"adapter": ["words"], "seed": [1, 2]}, sampler="eulr", outside=columns), shelf.store)
    assert "outside b" not in str(caught.value) or "Did you mean 'euler'" in str(caught.value)
    with pytest.raises(Faults) as caught:
        plan(config(shelf, {"adapter": ["words"], "seed": [1, 2]}, outside=columns), shelf.store)
    said = str(caught.value)
    assert "adapter has a value of that name" in said and "there is no folder" in said and "holds no image" in said


def test_damaged_lines_are_no_cells(shelf: Shelf, folder: Path) -> None:
    grid = drawn(shelf, folder, {"prompt": ["a cat"]})
    rows = lines(grid)
    rows[-1]["outside"]["box"] = [0, 1 << 20]
    (grid / "cells.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(Faults, match="line 2: outside is no image made elsewhere"):
        read_grid(grid)
