"""The list of grids: those below the Studio's folders, newest first, with what each has."""

import os
from pathlib import Path

from loraloom.studio.grids.listing import Listing, _axes
from tests.infer.output.opened import NASTY
from tests.loraloom.studio.grids.made import drawn
from tests.loraloom.studio.opened import Served


def begun(folder: Path, seconds: int) -> Path:
    os.utime(folder / "config.yaml", (seconds, seconds))
    return folder


def test_the_newest_is_first_and_pages_follow(served: Served) -> None:
    work = served.studio.folder
    for number in range(3):
        begun(drawn(work / "runs" / f"g{number}" / "1", {"seed": ["1", "2"]}, failed=[(1,)] if number == 1 else []), 1000 + number)
    status, found = served.get("grids/list", limit=2)
    assert status == 200 and found["total"] == 3 and found["whole"]
    assert [row["name"] for row in found["rows"]] == ["g2", "g1"]
    first, second = found["rows"]
    assert (first["cells"], first["done"], first["failed"], first["state"], first["base"]) == (2, 2, 0, "done", "pocket")
    assert (second["done"], second["failed"]) == (1, 1)
    assert first["axes"] == [{"name": "seed", "count": "2", "values": "1, 2"}]
    assert first["images"] == [str(work / "runs/g2/1/sheet.png")] and first["sheet"]
    assert [row["name"] for row in served.get("grids/list", offset=2)[1]["rows"]] == ["g0"]


def test_a_search_asks_for_all_words(served: Served) -> None:
    for name in ("hats", "cats"):
        drawn(served.studio.folder / "runs" / name / "1", {"prompt": [f"some {name}", NASTY]})
    for words, names in (("HATS pocket", ["hats"]), ("some", ["cats", "hats"]), ("hats cats", []), ("owned", ["cats", "hats"])):
        assert sorted(row["name"] for row in served.get("grids/list", search=words)[1]["rows"]) == names


def test_a_grid_that_is_begun_goes_on_and_is_removed(tmp_path: Path) -> None:
    listing = Listing([tmp_path])
    assert listing.places() == []
    folder = drawn(tmp_path / "runs/a/1", {"seed": ["1"]}, sheet=False)
    before = listing.state()
    assert [place.folder for place in listing.places()] == [folder] and listing.row(folder)["images"] == [str(folder / "images/0.png")]
    (folder / "result.json").unlink()
    assert listing.row(folder)["state"] == "killed" and listing.row(folder)["done"] == 1 and listing.state() != before
    (folder / "report.html").unlink()
    assert listing.places() == []


def test_nothing_outside_is_listed_and_no_image_outside_is_named(tmp_path: Path) -> None:
    (tmp_path / "work/runs").mkdir(parents=True)
    outside = drawn(tmp_path / "outside/1", {"seed": ["1"]})
    (tmp_path / "work/runs/link").symlink_to(tmp_path / "outside")
    listing = Listing([tmp_path / "work"])
    assert listing.places() == []
    hostile = drawn(tmp_path / "work/runs/a/1", {"seed": ["1"]}, sheet=False)
    line = (hostile / "cells.jsonl").read_text().replace("images/0.png", f"../../../../{outside.relative_to(tmp_path)}/images/0.png")
    (hostile / "cells.jsonl").write_text(line)
    assert listing.row(hostile)["images"] == []


def test_broken_files_are_no_end_of_the_list(served: Served) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    for name, text in (("config.yaml", "a: [1"), ("result.json", "[1"), ("cells.jsonl", "no\n[]\n{}\n"), ("votes.jsonl", "\0")):
        (folder / name).write_text(text)
    (row,) = served.get("grids/list")[1]["rows"]
    assert (row["cells"], row["done"], row["axes"], row["base"]) == (3, 0, [], "")


def test_a_value_that_stands_for_several_is_not_counted() -> None:
    config = {"axes": {"seed": ["0-9"], "prompt": ["a well-lit room", "1 - 2 cats"], "adapter": ["ink@step-*"], "weight": [0, -0.5]}}
    counts = {one["name"]: one["count"] for one in _axes(config)}
    assert counts == {"seed": None, "prompt": None, "adapter": None, "weight": "2"}
    assert _axes({"axes": {"prompt": ["a well-lit room", "a cat, 3-4 years old"]}})[0]["count"] == "2"
