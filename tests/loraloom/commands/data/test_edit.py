"""`loraloom data edit` on the real command line."""

import json
import os
import shlex
from pathlib import Path

import pytest

from loraloom.cli import main
from tests.train.data.editing.conftest import files_of, image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(["a", "b", "-c"]):
        image(tmp_path / "photos" / f"{name}.png", number)
        (tmp_path / "photos" / f"{name}.txt").write_text(f"{name}, hat\n")
    return tmp_path / "photos"


def test_operations_are_done_in_their_order(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "edit", str(photos), "--replace", "hat", "cap", "--add", "cap", "--rename", "cap", "x", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["changed"] == 3 and shown["edit"]["number"] == 1 and shown["changes"][1]["after"] == "a, x"
    assert main(["data", "edit", str(photos), "--undo"]) == 0 and (photos / "a.txt").read_text() == "a, hat\n"


def test_a_dry_run_shows_each_change(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(photos)
    assert main(["data", "edit", str(photos), "--add", "sks", "--files", "a.png", "./-c.png", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{photos}: 2 of 2 images would change:",
        *("-c.png", "  - -c, hat", "  + sks, -c, hat", "a.png", "  - a, hat", "  + sks, a, hat"),
    ]
    assert files_of(photos) == before


def test_the_history_has_commands_that_do_the_same(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--set-caption", "./-c.png", " -x"], ["--hold-out", "./-c.png"], ["--remove", "hat", "--only", "A"]):
        assert main(["data", "edit", str(photos), *words]) == 0
    after = files_of(photos)
    capsys.readouterr()
    assert main(["data", "edit", str(photos), "--history", "--json"]) == 0
    edits = json.loads(capsys.readouterr().out)["edits"]
    for _ in edits:
        assert main(["data", "edit", str(photos), "--undo"]) == 0
    for edit in reversed(edits):
        assert main(shlex.split(edit["command"])[1:]) == 0
    assert files_of(photos) == after and (photos / "heldout" / "-c.txt").read_text() == "-x\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--undo", "--add", "x"], "--undo goes with no other edit"),
        (["--undo", "--only", "x"], "--undo goes with no other edit"),
        (["--add", "x", "--keep-changed"], "--keep-changed is for --undo"),
        (["--add", "x", "--regex"], "--regex is for --replace"),
        (["--sort", "--end"], "--end is for --add"),
        (["--hold-out", "a.png", "--only", "x"], "choose the images of operations"),
        (["--set-caption", "a.png", "x", "--set-caption", "a.png", "y"], "a.png is given twice"),
        (["--set-caption", "a.png", os.fsdecode(b"\xff")], "no bytes for"),
        (["--set-mask", "a.png", "none.png"], "there is no such file"),
        ([], "This would edit nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(photos: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(photos)
    assert main(["data", "edit", str(photos), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and files_of(photos) == before


def test_a_set_that_is_read_only_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        assert main(["data", "edit", str(photos / "none"), "--sort"]) == 2 and "no such folder" in capsys.readouterr().err
        return
    photos.chmod(0o555)
    assert main(["data", "edit", str(photos), "--sort", "--add", "x"]) == 2 and "cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_choice_of_no_image_says_what_no_caption_has(dry_run: list[str], photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(photos)
    words = ["data", "edit", str(photos), "--add", "sks", "--only", "zebra", "--tagged", "hat", "--tagged", "no\nne", *dry_run]
    assert main(words) == 0
    wanted = "no image has 'zebra' in a caption (--only) and the tag 'hat' (--tagged) and the tag 'no\\nne' (--tagged)"
    assert capsys.readouterr().out == f"{photos}: {wanted}: nothing is to be done\n"
    assert files_of(photos) == before
