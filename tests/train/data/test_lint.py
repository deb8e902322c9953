from pathlib import Path

import pytest

from tests import tiny
from train.config import DataConfig
from train.data.lint import lint


def test_a_sound_set_is_accepted(tmp_path: Path) -> None:
    found = lint(DataConfig(path=str(tiny.tiny_dataset(tmp_path / "set"))), resolution=64)
    assert not found.faults and "6 images, 6 captions, 0 held out\nno faults" in found.to_text()
    assert any(note.startswith("enlarged at 64 pixels: 000.png (32x32)") for note in found.notes)
    assert any("'a red disc' (2 times)" in note for note in found.notes)


def test_faults_of_both_folders_are_reported_and_leaks_named(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set")
    tiny.tiny_dataset(folder / "heldout", 2)
    (folder / "003.txt").unlink()
    (folder / "heldout" / "001.txt").write_text("")
    assert lint(DataConfig(path=str(folder))).faults == (
        "003.png: has no caption, the others have; write 003.txt",
        "heldout/: 001.png: its caption is empty",
        "heldout/000.png is the training image 000.png",
        "heldout/001.png is the training image 001.png",
    )


def test_the_command_answers_with_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from loraloom.cli import main

    (tmp_path / "empty").mkdir()
    assert main(["data", "lint", str(tmp_path / "empty"), "--json"]) == 2
    assert "there are no images" in json.loads(capsys.readouterr().out)["faults"][0]
    assert main(["data", "lint", str(tiny.tiny_dataset(tmp_path / "set"))]) == 0


def test_captions_are_judged_on_what_the_base_reads(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 4)
    (folder / "000.txt").write_text("a disc\nof red\nwith sks")
    (folder / "001.txt").write_text("sks, a green disc BREAK")
    (folder / "002.txt").write_text("word " * 100)
    config = DataConfig(path=str(folder), trigger="sks")
    notes = lint(config, count=lambda text: (len(text.split()) + 2, 6)).notes
    assert "1 of 4 captions has several lines, which are joined to one" in notes
    assert "3 of 4 captions need more than 6 tokens, the rest is not read (most: 002.png, 102)" in notes
    assert "1 of 4 captions contains the trigger" in notes
    assert "1 of 4 captions contains it only behind the token limit, unread; it is prepended to those" in notes
    assert not any("BREAK" in note for note in notes)  # it is the fifth word
    plain = lint(config).notes
    assert "1 of 4 captions has more than 60 words (most: 002.png, 100): give --base to see how much of them is read" in plain
    assert any("1 of 4 captions holds BREAK" in note for note in plain)


def test_one_of_a_kind_is_no_plural(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 1)
    assert "1 image, 1 caption, 0 held out" in lint(DataConfig(path=str(folder))).to_text()
    (folder / "000.txt").write_text("")
    assert "1 fault; training refuses the set:" in lint(DataConfig(path=str(folder))).to_text()
