"""Votes as a preference data set: read by `datasets`, by diffusers' Diffusion-DPO conventions, and back."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from infer.vote.finished import read_grid
from infer.vote.preferences import read_preferences, write_preferences
from infer.vote.returned import read_returned
from registry.errors import BadFile, Faults, Refused
from tests.infer.vote.made import key_of, made_grid, vote, write_votes

AXES = {"adapter": ["none", "ink"], "prompt": ["a cat", "a dog"]}


def votes_of() -> list[object]:
    pairs = [("left", "a cat"), ("right", "a dog"), ("tie", "a cat"), ("both_bad", "a dog")]
    return [vote(number, key_of("none", prompt), key_of("ink", prompt), choice) for number, (choice, prompt) in enumerate(pairs)]


def exported(tmp_path: Path) -> tuple[Path, list[object], Path]:
    folder = made_grid(tmp_path / "grid", AXES)
    votes = votes_of()
    path = tmp_path / "votes.parquet"
    assert write_preferences(path, [read_grid(folder)], [(0, one) for one in votes]) == 4  # type: ignore[misc]
    return path, votes, folder


def test_datasets_opens_it_and_the_columns_are_pick_a_pics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    import datasets

    path, _, folder = exported(tmp_path)
    rows = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
    assert [row["caption"] for row in rows] == ["a cat", "a dog", "a cat", "a dog"]
    assert [(row["label_0"], row["label_1"]) for row in rows] == [(1, 0), (0, 1), (0.5, 0.5), (0.5, 0.5)]
    assert [Image.open(io.BytesIO(row["jpg_1"])).convert("RGB").getpixel((0, 0)) for row in rows] == [
        (2, 0, 90),
        (3, 0, 90),
        (2, 0, 90),
        (3, 0, 90),
    ]
    first = rows[0]
    file = folder / "images" / "0.png"
    assert first["left_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(first["right_values"]) == {"adapter": "ink", "prompt": "a cat"} and json.loads(first["left_settings"]) == {
        "adapters": []
    }


def test_the_votes_come_back(tmp_path: Path) -> None:
    path, votes, folder = exported(tmp_path)
    assert read_preferences(path) == votes
    placed, notes = read_returned(path, [read_grid(folder)])
    assert [one for _, one in placed] == votes and notes == []


def test_no_votes_and_images_that_are_gone_are_refused(tmp_path: Path) -> None:
    folder = made_grid(tmp_path / "grid", AXES)
    grid = read_grid(folder)
    with pytest.raises(Refused, match="no votes"):
        write_preferences(tmp_path / "a.parquet", [grid], [])
    (folder / "images" / "0.png").unlink()
    with pytest.raises(Refused, match="1 image of the votes is not there"):
        write_preferences(tmp_path / "a.parquet", [grid], [(0, one) for one in votes_of()])  # type: ignore[misc]
    assert not (tmp_path / "a.parquet").exists()


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(BadFile, match="no parquet file"):
        read_preferences(path)
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1"]}), path)
    with pytest.raises(BadFile, match="has no column left, right"):
        read_preferences(path)
    rows = [{**vote(1, "a", "b", "left").__dict__, "choice": "maybe"}, {**vote(1, "a", "a", "left").__dict__}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(Faults, match="row 1: choice is 'maybe'") as caught:
        read_preferences(path)
    assert len(caught.value.faults) == 2


def test_the_command_exports_and_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from loraloom.cli import main

    folder = made_grid(tmp_path / "grid", AXES)
    write_votes(folder / "votes.jsonl", [*votes_of(), vote("x", "gone", "away", "left")])  # type: ignore[list-item]
    path = tmp_path / "votes.parquet"
    assert main(["vote", str(folder), "--export", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(path) and "1 vote is" in shown.err
    (folder / "votes.jsonl").unlink()
    assert main(["vote", str(folder), "--import", str(path)]) == 0
    assert capsys.readouterr().out.startswith("4 votes added")
    assert main(["vote", str(folder), "--import", str(path)]) == 0
    assert capsys.readouterr().out.startswith("0 votes added, 4 were there already")
    for wrong in (["--export", str(tmp_path / "votes.csv")], ["--export", str(path), "--import", str(path)]):
        assert main(["vote", str(folder), *wrong]) == 2
