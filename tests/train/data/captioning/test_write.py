"""Captions are written beside the images, never over another; a stopped run goes on; every fault comes first."""

import json
from pathlib import Path

import pytest
from PIL import Image

from loraloom.cli import main
from registry.errors import Refused
from tests.train.data.captioning.test_tagger import write_tagger
from train.config import DataConfig
from train.data.captioning.write import finished, plan_captions, write_captions
from train.data.lint import lint

COLOURS = ("red", "blue", "white", "red", "blue")


def images(folder: Path) -> Path:
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (20 + number, 20), colour).save(folder / f"{number}.png")
    return folder


def plain(text: str) -> str:
    return finished(text, prefix=None, suffix=None, trigger=None)


def test_existing_captions_stay_and_are_counted(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    (folder / "0.txt").write_text("mine")
    (folder / "1.png.caption").write_text("mine too")
    Image.new("RGB", (9, 9)).save(folder / "2.jpg")  # the second image of that name
    Image.new("RGB", (9, 9)).save(folder / "3-masklabel.png")
    plan = plan_captions(folder)
    assert {image.name: target.name for image, target in plan.targets.items()} == {
        "2.jpg": "2.jpg.txt",
        "2.png": "2.png.txt",
        "3.png": "3.txt",
        "4.png": "4.txt",
    }
    done = write_captions(plan, lambda image: f"{image.width} wide", finish=plain)
    assert (folder / "0.txt").read_text() == "mine" and (folder / "4.txt").read_text() == "24 wide\n"
    assert done.to_json() == {
        "folder": str(folder),
        "images": 6,
        "existing": 2,
        "missing": 4,
        "written": {"2.jpg": "9 wide", "2.png": "22 wide", "3.png": "23 wide", "4.png": "24 wide"},
        "empty": [],
        "failed": {},
    }


def test_a_stopped_run_goes_on_to_the_same_files(tmp_path: Path) -> None:
    whole, stopped = images(tmp_path / "whole"), images(tmp_path / "stopped")
    seen = []

    def caption(image: Image.Image) -> str:
        seen.append(image.width)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return f"{image.width} wide"

    with pytest.raises(KeyboardInterrupt):
        write_captions(plan_captions(stopped), caption, finish=plain)
    assert sorted(file.name for file in stopped.glob("*.txt")) == ["0.txt", "1.txt"]
    write_captions(plan_captions(stopped), caption, finish=plain)
    assert seen == [20, 21, 22, 22, 23, 24]
    write_captions(plan_captions(whole), lambda image: f"{image.width} wide", finish=plain)
    files = [{file.name: file.read_bytes() for file in folder.glob("*.txt")} for folder in (whole, stopped)]
    assert files[0] == files[1] and len(files[0]) == 5


def test_a_caption_that_a_person_writes_meanwhile_stays(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")

    def caption(image: Image.Image) -> str:
        (folder / "1.txt").write_text("mine")
        (folder / "0.txt").write_text("mine")
        return "a model's"

    done = write_captions(plan_captions(folder), caption, finish=plain)
    assert done.existing == 2 and (folder / "0.txt").read_text() == (folder / "1.txt").read_text() == "mine"


def test_images_without_an_answer_and_broken_ones_are_named(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    (folder / "3.png").write_bytes(b"broken")
    done = write_captions(plan_captions(folder), lambda image: "" if image.width == 20 else " a\nb\x00 ", finish=plain)
    assert done.empty == ["0.png"] and [*done.failed] == ["3.png"] and (folder / "1.txt").read_text() == "a b\n"
    assert not (folder / "0.txt").exists() and not (folder / "3.txt").exists()


def test_prefix_suffix_and_trigger() -> None:
    assert finished("a cat", prefix="a photo", suffix="soft light", trigger="sks") == "sks, a photo, a cat, soft light"
    assert finished("sks cat", prefix=None, suffix=None, trigger="sks") == "sks cat"


def test_the_command_captions_a_set_that_training_then_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, tagger = images(tmp_path / "set"), write_tagger(tmp_path / "tagger")
    command = ["data", "caption", str(folder), "--model", str(tagger), "--trigger", "sks", "--exclude", "o_o, long_hair_(style)", "--json"]
    assert main([*command, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "images": 5, "existing": 0, "missing": 5}
    assert not [*folder.glob("*.txt")]
    assert main(command) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written["0.png"] == "sks, red hat" and written["1.png"] == "sks, blue hat" and len(written) == 5
    assert main(command) == 0 and json.loads(capsys.readouterr().out)["written"] == {}
    assert lint(DataConfig(path=str(folder))).faults == ()


def test_all_faults_are_reported_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    command = ["data", "caption", str(tmp_path / "empty"), "--model", str(tmp_path / "model"), "--beams", "0", "--device", "gpu"]
    assert main([*command, "--general", "0.3"]) == 2
    error = capsys.readouterr().err
    for part in ("has no config.json", "--general: for taggers", "--beams 0: expected 1 to 64", "there are no images", "--device gpu"):
        assert part in error, part


def test_a_set_with_a_table_of_captions_is_refused(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    (folder / "metadata.jsonl").write_text("")
    with pytest.raises(Refused, match=r"captions come from metadata.jsonl"):
        plan_captions(folder)
