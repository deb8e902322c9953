"""Scores of a finished grid: computed of its images alone, kept by content, the same in any order, written whole."""

import json
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.score import kept
from infer.score.finished import score_finished
from infer.vote.finished import read_grid
from infer.vote.ranking.rank import rank_grids, read_ballots
from loraloom.cli import main
from registry.errors import Faults, NotFound
from registry.store import Store
from tests.disks import close_folder
from tests.infer.vote.made import key_of, made_grid, vote, write_votes

PROMPTS = ["a cat", "a dog", "a house", "a tree", "a star", '<b>"a" & b</b>\u202e']
SCORES = ["contrast", "saturation", {"difference": {"name": "change"}}]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three weights of six prompts: noise that grows with the weight."""
    folder = made_grid(tmp_path / "grid", {"prompt": PROMPTS, "weight": [0, 0.5, 1], "seed": [1, 2]})
    for number, entry in enumerate(rows(folder)):
        noise = numpy.random.default_rng(number // 6).normal(size=(16, 16, 3)) * 60 * entry["axes"]["weight"] + 100 + number // 6
        Image.fromarray(noise.clip(0, 255).astype(numpy.uint8)).save(folder / entry["image"])
    (folder / "result.json").write_text(json.dumps({"cells": 36, "scores": None}))
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text(encoding="utf-8").splitlines()]


def test_scores_are_written_and_not_computed_again(grid: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(grid)
    found = score_finished(grid, SCORES, store)
    assert (found.scores.computed, found.scores.kept, found.scores.failed) == (36 * 3 - found.scores.kept, found.scores.kept, 0)
    after = rows(grid)
    assert [{**row, "scores": {}} for row in after] == before
    assert all(set(row["scores"]) == {"contrast", "saturation", "change"} for row in after)
    again = score_finished(grid, SCORES, store)
    assert (again.scores.computed, again.scores.kept) == (0, 36 * 3) and rows(grid) == after
    section = json.loads((grid / "result.json").read_text())["scores"]
    assert list(section) == ["definitions", "computed", "kept", "failed", "means", "differences", "notes"]
    more = score_finished(grid, ["brightness"], store)
    assert more.scores.computed > 0 and set(rows(grid)[0]["scores"]) == {"contrast", "saturation", "change", "brightness"}
    names = [one["name"] for one in json.loads((grid / "result.json").read_text())["scores"]["definitions"]]
    assert names == ["contrast", "saturation", "change", "brightness"]
    monkeypatch.setattr(kept, "VERSION", 2)
    assert score_finished(grid, ["contrast"], store).scores.computed > 0


def test_the_same_images_in_another_grid_and_order_have_the_same_numbers(grid: Path, store: Store, tmp_path: Path) -> None:
    score_finished(grid, SCORES, store)
    ordered = {row["key"]: row["scores"] for row in rows(grid)}
    lines = (grid / "cells.jsonl").read_text(encoding="utf-8").splitlines()
    first = [line for line in lines if json.loads(line)["axes"]["weight"] == 0]
    rest = [line for line in lines if line not in first]
    random.Random(0).shuffle(rest)
    (grid / "cells.jsonl").write_text("\n".join([*first, *rest]) + "\n", encoding="utf-8")
    other = Store(tmp_path / "other")
    score_finished(grid, SCORES, other)
    assert {row["key"]: row["scores"] for row in rows(grid)} == ordered


def test_differences_along_an_axis_are_paired_by_prompt_and_seed(grid: Path, store: Store) -> None:
    found = score_finished(grid, ["contrast"], store)
    numbers = {row["key"]: row["scores"]["contrast"] for row in rows(grid)}
    for one in found.scores.differences:
        weight = float(one.value)
        pairs = [
            numbers[key_of(prompt, int(weight) if weight == 1 else weight, seed)] - numbers[key_of(prompt, 0, seed)]
            for prompt in PROMPTS
            for seed in (1, 2)
        ]
        assert (one.axis, one.first, one.pairs, one.groups, one.over) == ("weight", "0", 12, 6, "prompt")
        assert one.mean == pytest.approx(numpy.mean(pairs))
        assert one.low is not None and one.high is not None and 0 < one.low < one.mean < one.high and one.verdict == "higher"
    assert [one.value for one in found.scores.differences] == ["0.5", "1"]


def test_one_prompt_has_seeds_and_one_pair_has_no_interval(store: Store, tmp_path: Path) -> None:
    seeds = score_finished(made_grid(tmp_path / "s", {"seed": [1, 2, 3, 4, 5], "steps": [2, 4]}), ["brightness"], store).scores
    assert [(one.groups, one.over, one.low is not None) for one in seeds.differences] == [(5, "seed", True)]
    single = score_finished(made_grid(tmp_path / "p", {"steps": [2, 4]}), ["brightness"], store).scores
    assert [(one.pairs, one.over, one.low, one.verdict) for one in single.differences] == [(1, None, None, "cannot tell")]


def test_axes_that_go_side_by_side_are_one(store: Store, tmp_path: Path) -> None:
    folder = made_grid(tmp_path / "z", {"prompt": ["a", "b"], "sampler": ["heun", "euler"]})
    lines = [{**row, "axes": {**row["axes"], "steps": {"heun": 9, "euler": 5}[row["axes"]["sampler"]]}} for row in rows(folder)]
    (folder / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    found = score_finished(folder, ["brightness", "difference"], store).scores
    assert [(one.axis, one.first, one.value) for one in found.differences][:1] == [("sampler + steps", "heun, 9", "euler, 5")]
    assert [row["scores"]["difference"] is not None for row in rows(folder)] == [True] * 4


def test_an_image_that_cannot_be_read_costs_its_own_number(grid: Path, store: Store) -> None:
    broken, gone = rows(grid)[3]["image"], rows(grid)[4]["image"]
    (grid / broken).write_bytes(b"no image")
    (grid / gone).unlink()
    found = score_finished(grid, ["contrast"], store)
    assert found.scores.failed == 1 and any("cannot be read as an image" in note for note in found.scores.notes)
    assert [row["scores"]["contrast"] is None for row in rows(grid)].count(True) == 2


def test_a_kept_file_that_is_damaged_counts_as_none(grid: Path, store: Store) -> None:
    score_finished(grid, ["contrast"], store)
    (file,) = (store.home / "scores").glob("*.json")
    for text in ("{", '{"identity": 1}', '{"identity": "x", "values": []}', "[]"):
        file.write_text(text)
        assert score_finished(grid, ["contrast"], store).scores.computed > 0


def test_what_is_no_grid_is_refused_and_nothing_is_written(grid: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        score_finished(tmp_path / "nothing", ["contrast"], store)
    before = (grid / "cells.jsonl").read_bytes()
    with pytest.raises(Faults):
        score_finished(grid, ["contrast", "sharpnes"], store)
    assert (grid / "cells.jsonl").read_bytes() == before


def test_votes_judge_the_scores(grid: Path, store: Store) -> None:
    """A voter who always prefers the weight of 1, whose contrast is the higher one."""
    votes = [vote(number, key_of(prompt, 1, 1), key_of(prompt, 0, 1), "left") for number, prompt in enumerate(PROMPTS)]
    write_votes(grid / "votes.jsonl", votes)
    score_finished(grid, ["contrast"], store)
    finished = [read_grid(grid)]
    ballots, notes = read_ballots(finished, None)
    ranked = rank_grids(finished, ballots, axes=("weight",), seed=0, notes=notes)
    assert [(one.name, one.agreement) for one in ranked.scores] == [("contrast", 1.0)]


def test_a_home_that_cannot_be_written_keeps_nothing_and_scores_all_the_same(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "closed"))
    (tmp_path / "closed").mkdir()
    close_folder(tmp_path / "closed", monkeypatch)
    assert main(["score", str(grid), "--score", "contrast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] > 0 and not any((tmp_path / "closed").iterdir())


def test_the_command_refuses_with_exit_code_2(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], [str(tmp_path / "nothing")], [str(grid), "--score", "sharpnes"], [str(grid), "--device", "gpu"]):
        assert main(["score", *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["score", "--list", "--json"]) == 0
    assert {"clip", "contrast"} <= {row["score"] for row in json.loads(capsys.readouterr().out)}
