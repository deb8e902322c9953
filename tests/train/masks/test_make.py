"""Masks are written beside their images, never over a file, after every fault is known."""

import json
from pathlib import Path

import pytest
from PIL import Image

from loraloom.cli import main
from registry.errors import Faults, JobFailed
from tests.train.masks.test_segmenters import noise, tiny_segformer
from train.masks.make import make_masks, plan_masks, would_make
from train.masks.segmenters import ModelOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_segformer(tmp_path_factory.mktemp("segmenter") / "model"))


def folder_of(place: Path, *names: str) -> Path:
    place.mkdir()
    for name in names:
        noise(40, 24).save(place / name)
    return place


def test_masks_are_written_beside_and_the_existing_are_kept(tmp_path: Path, model: str) -> None:
    place = folder_of(tmp_path / "set", "a.png", "b.jpg", "c.png", "c_mask.png")
    before = (place / "c_mask.png").read_bytes()
    job = plan_masks(str(place), model, ModelOptions(), in_folder=False)
    assert [mask.name for _, mask, _ in would_make(job).masks] == ["a-masklabel.png", "b-masklabel.png"]
    assert not (place / "a-masklabel.png").exists()
    made = make_masks(job)
    assert made.to_json()["kept"] == ["c.png"] and (place / "c_mask.png").read_bytes() == before
    for name in ("a", "b"):
        with Image.open(place / f"{name}-masklabel.png") as mask:
            assert mask.mode == "L" and mask.size == (40, 24) and mask.getbbox() is not None
    again = plan_masks(str(place), model, ModelOptions(), in_folder=False)
    assert not again.targets and len(again.kept) == 3


def test_a_turned_image_gets_an_upright_mask(tmp_path: Path, model: str) -> None:
    place = folder_of(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise(40, 24).save(place / "a.jpg", exif=exif)
    make_masks(plan_masks(str(place), model, ModelOptions(), in_folder=True))
    with Image.open(place / "masks" / "a.png") as mask:
        assert mask.size == (24, 40)


def test_faults_come_together_and_nothing_is_written(tmp_path: Path, model: str) -> None:
    place = folder_of(tmp_path / "set", "a.png", "a.jpg")
    (place / "b.png").write_bytes(b"no image")
    with pytest.raises(Faults) as refused:
        plan_masks(str(place), "nowhere", ModelOptions(), in_folder=False)
    assert refused.value.faults[0] == "a-masklabel.png would be the mask of a.jpg, a.png: give them different names"
    assert "b.png: it cannot be decoded" in refused.value.faults[1] and "--model nowhere" in refused.value.faults[2]
    assert not list(place.glob("*mask*"))


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path: Path, model: str) -> None:
    place = folder_of(tmp_path / "set", "a.png")
    job = plan_masks(str(place), model, ModelOptions(), in_folder=False)
    (place / "a-masklabel.png").write_bytes(b"mine")
    with pytest.raises(JobFailed, match="It is not written over"):
        make_masks(job)
    assert (place / "a-masklabel.png").read_bytes() == b"mine"


def test_an_image_in_which_nothing_is_found_gets_no_mask(tmp_path: Path, model: str) -> None:
    place = folder_of(tmp_path / "set", "a.png")
    made = make_masks(plan_masks(str(place), model, ModelOptions(), in_folder=False), threshold=1.0)
    assert made.to_json()["empty"] == ["a.png"] and "nothing is found in a.png" in made.to_text()
    assert not (place / "a-masklabel.png").exists()


def test_the_command_makes_them(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder_of(tmp_path / "set", "a.png")
    assert main(["data", "mask", str(place), "--model", model, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] == [{"image": "a.png", "mask": str(place / "a-masklabel.png"), "share": None}]
    assert not (place / "a-masklabel.png").exists()
    assert main(["data", "mask", str(place), "--model", model, "--label", "dog", "--threshold", "1"]) == 1
    assert "nothing is found in a.png" in capsys.readouterr().out
    assert main(["data", "mask", str(place), "--model", model]) == 0 and (place / "a-masklabel.png").exists()
    assert main(["data", "mask", str(place), "--model", "nowhere"]) == 2
