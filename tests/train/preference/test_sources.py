"""Votes of a grid's folder and of parquet files give the same pairs; what is broken is named, all of it at once."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from infer.vote.finished import read_grid
from infer.vote.preferences import write_preferences
from infer.vote.votes import read_votes
from registry.errors import Faults, Refused
from registry.progress import silent
from tests.infer.vote.made import key_of, vote
from tests.train.preference.voted import PROMPTS, voted_grid
from train.preference.dataset import read_pairs


def read(*given: Path) -> Any:
    return read_pairs([str(one) for one in given], setting="data.preferences", report=silent)


def exported(grid: Path, path: Path) -> Path:
    write_preferences(path, [read_grid(grid)], [(0, one) for one in read_votes(grid / "votes.jsonl").votes])
    return path


def identities(found: Any) -> list[tuple[str | None, str, str]]:
    return [(sample.caption, sample.sha256, sample.rejected.sha256) for sample in found.samples]


def test_a_grid_and_its_export_are_the_same_pairs_and_both_together_too(grid: Path, tmp_path: Path) -> None:
    path = exported(grid, tmp_path / "votes.parquet")
    one, other, both = read(grid), read(path), read(grid, path)
    assert identities(one) == identities(other) == identities(both) and len(one.samples) == 8
    assert one.tally == other.tally and both.tally.votes == 8, "an id counts once"
    assert one.sha256 == other.sha256
    winner = one.samples[0]
    assert hashlib.sha256(winner.read()).hexdigest() == winner.sha256 == hashlib.sha256(other.samples[0].read()).hexdigest()
    assert {sample.caption for sample in one.samples} == set(PROMPTS)
    ink = {cell.image.read_bytes() for cell in read_grid(grid).cells if cell.image and cell.values["adapter"] == "ink"}
    assert all(sample.read() in ink and sample.rejected.read() not in ink for sample in one.samples)


def test_pick_a_pics_own_columns_are_enough(grid: Path, tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(exported(grid, tmp_path / "votes.parquet"))
    plain = table.select(["caption", "jpg_0", "jpg_1", "label_0", "label_1"])
    pyarrow.parquet.write_table(plain, tmp_path / "plain.parquet", row_group_size=3)
    found = read(tmp_path / "plain.parquet")
    assert identities(found) == identities(read(grid)) and found.tally.voters == 8


def test_ties_prompts_and_cells_that_are_gone_are_left_out(tmp_path: Path) -> None:
    more = [
        vote("t", key_of("none", "a cat", 1), key_of("ink", "a cat", 1), "tie", voter="bo"),
        vote("p", key_of("none", "a cat", 1), key_of("ink", "a dog", 1), "left"),
        vote("g", "gone", key_of("ink", "a dog", 1), "left"),
    ]
    tally = read(voted_grid(tmp_path / "grid", more=more)).tally
    assert (tally.votes, tally.pairs, tally.tie, tally.two_prompts, tally.gone) == (11, 8, 1, 1, 1)


def changed(grid: Path, path: Path, **columns: Any) -> Path:
    """The export with other values in the first rows of these columns."""
    table = pyarrow.parquet.read_table(exported(grid, path)).to_pydict()
    for name, values in columns.items():
        table[name][: len(values)] = values
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


def test_every_broken_row_is_named(grid: Path, tmp_path: Path) -> None:
    path = changed(grid, tmp_path / "a.parquet", label_0=[0.3], jpg_1=[b"x", None], choice=["left", "left", "left"], left=["y" * 200] * 4)
    with pytest.raises(Faults) as error:
        read(path)
    text = str(error.value)
    assert "row 1: label_0 and label_1 are 0.3 and 1.0, not 1 and 0" in text
    assert "row 2: jpg_1 holds no image" in text
    assert "row 4: left is not a text of 1 to 128 characters" in text


def test_an_image_that_is_not_the_one_voted_on_or_none_is_named(grid: Path, tmp_path: Path) -> None:
    with pytest.raises(Faults, match="row 1: its left image is not the file that was voted on"):
        read(changed(grid, tmp_path / "a.parquet", left_sha256=["0" * 64]))
    broken = changed(grid, tmp_path / "b.parquet", jpg_0=[b"no image"], left_sha256=[None])
    with pytest.raises(Faults, match="cannot be learned from"):
        read(broken)


def test_sources_that_are_none_are_named_together(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(Faults) as error:
        read(tmp_path / "none", tmp_path / "text.parquet", tmp_path / "other.parquet", tmp_path)
    text = str(error.value)
    assert f"{tmp_path / 'none'} is not there. Expected the folder of a grid" in text
    assert "text.parquet is no parquet file that can be read" in text
    assert "other.parquet has no column jpg_0, jpg_1, label_0, label_1" in text
    assert "is not the folder of a grid: it has no cells.jsonl" in text
    with pytest.raises(Faults, match="names a source twice"):
        read(grid, grid)


def test_a_grid_without_votes_or_with_broken_ones_or_without_images(tmp_path: Path) -> None:
    folder = voted_grid(tmp_path / "grid", PROMPTS[:1])
    lines = (folder / "votes.jsonl").read_text()
    (folder / "votes.jsonl").write_text('{"id": 1}\n' + lines)
    with pytest.raises(Faults, match="line 1: it has no"):
        read(folder)
    (folder / "votes.jsonl").write_text("")
    with pytest.raises(Faults, match=r"has no votes\. Vote first"):
        read(folder)
    (folder / "votes.jsonl").write_text(lines)
    (folder / "images" / "0.png").unlink()
    with pytest.raises(Faults, match=r"1 voted image is not there: images/0\.png"):
        read(folder)


def test_votes_that_prefer_nothing_are_refused_with_the_count(tmp_path: Path) -> None:
    folder = voted_grid(tmp_path / "grid", PROMPTS[:1])
    path = folder / "votes.jsonl"
    path.write_text(
        path.read_text()
        .replace('"left"', '"left"')
        .replace('"choice": "right"', '"choice": "tie"')
        .replace('"choice": "left"', '"choice": "both_bad"')
    )
    with pytest.raises(Refused, match=r"none of 2 votes prefers one of two images of a prompt \(left out: 1 tie, 1 both bad\)"):
        read(folder)


def test_pairs_of_two_sizes_are_refused_with_the_reason(tmp_path: Path) -> None:
    from PIL import Image

    folder = voted_grid(tmp_path / "grid", PROMPTS[:1])
    Image.new("RGB", (64, 32), (9, 9, 9)).save(folder / "images" / "0.png")
    with pytest.raises(Faults, match=r"is 32x32 and images/0\.png 64x32: both get the same noise"):
        read(folder)
