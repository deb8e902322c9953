"""Images of a folder to prompts and seeds: what states a prompt, what a name spells, and what is refused or named."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infer.outside.column import read_outside
from infer.outside.folder import read_folder
from infer.outside.match import match, slug
from infer.outside.texts import read_stated
from registry.errors import Refused
from tests.infer.outside.made import captions, image

PROMPTS = ["A red fox, sitting.", "a house on a hill at night, oil painting", "route 66"]


def matched(
    folder: Path, prompts: Sequence[str] = PROMPTS, seeds: Sequence[int] = (1,)
) -> tuple[dict[str, tuple[int, int]], list[str], list[str]]:
    """(file name -> (prompt, seed) by their numbers, notes, faults)."""
    faults: list[str] = []
    read = read_folder("dalle3", str(folder), faults.append)
    if read is None:
        return {}, [], faults
    found = match(read, prompts, [seeds] * len(prompts), faults.append)
    return {one.image.path.name: (one.prompt, one.seed) for one in found.matches}, list(found.notes), faults


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("a-red-fox-sitting.png", 0),
        ("A_Red_Fox__Sitting_02.png", 0),
        ("DALL·E 2024-01-02 10.11.12 - A red fox, sitting.webp", 0),
        ("anna_a_house_on_a_hill_at_ni_0123abcd-0123-4abc-8def-0123456789ab.png", 1),
        ("anna_A_red_fox_sitting_0123abcd-0123-4abc-8def-0123456789ab_3.png", 0),
        ("a house on a hill at night.jpg", 1),
        ("route-66.png", 2),
        ("route-66-2.png", 2),
    ],
)
def test_a_file_name_spells_the_prompt(tmp_path: Path, name: str, prompt: int) -> None:
    image(tmp_path / name)
    found, _, faults = matched(tmp_path)
    assert found == {name: (prompt, 0)} and faults == []


@pytest.mark.parametrize("name", ["fox.png", "a-red-fox.png", "a-house.png", "a-red-fox-sitting-down.png", "route.png"])
def test_what_only_resembles_a_prompt_is_no_match(tmp_path: Path, name: str) -> None:
    image(tmp_path / name)
    found, notes, faults = matched(tmp_path)
    assert found == {} and "none of its 1 image matches" in faults[-1] and "a-red-fox-sitting.png" in faults[-1] and name in notes[-1]


TEXTS = {
    "parameters": "a red fox, sitting\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 7, Size: 64x64",
    "Comment": json.dumps({"prompt": "a red fox, sitting", "seed": 7}),
    "invokeai_metadata": json.dumps({"positive_prompt": "a red fox, sitting", "seed": 7}),
    "loraloom": json.dumps({"render": {"base": "pocket", "prompt": "a red fox, sitting", "seed": 7}}),
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_images_own_metadata_states_prompt_and_seed(tmp_path: Path, name: str) -> None:
    texts: dict[str, Any] = {name: TEXTS[name]}
    image(tmp_path / "x.png", **texts)
    assert matched(tmp_path, seeds=(3, 7))[0] == {"x.png": (0, 1)}  # the seed that it states


def test_swarm_midjourney_and_a1111_in_a_jpeg(tmp_path: Path) -> None:
    image(tmp_path / "s.png", parameters=json.dumps({"sui_image_params": {"prompt": PROMPTS[0], "seed": 5}}))
    image(tmp_path / "m.png", Description=f"{PROMPTS[1]} --ar 3:2 --v 6 Job ID: 0123abcd", Author="anna")
    image(tmp_path / "a.jpg", UserComment="route 66\nSteps: 20, Sampler: Euler, Seed: 9")
    image(tmp_path / "graph.png", prompt=json.dumps({"1": {"inputs": {"text": PROMPTS[0]}}}))  # no sampler reads the text
    found, notes, faults = matched(tmp_path)
    assert found == {"s.png": (0, 0), "m.png": (1, 0), "a.jpg": (2, 0)} and faults == []
    assert notes == ["outside dalle3: left out: 1 image matches no prompt and seed of the grid: graph.png."]
    assert read_stated((tmp_path / "m.png").read_bytes())[0]["Author"] == "anna"
    assert read_stated((tmp_path / "a.jpg").read_bytes())[1]["UserComment"].seed == 9


def test_files_beside_state_prompts_and_seeds(tmp_path: Path) -> None:
    for name in ("b", "c", "d", "e"):
        image(tmp_path / f"{name}.png")
    captions(tmp_path, {"b.png": "a red  FOX, sitting", "gone.png": "x"})
    (tmp_path / "c.txt").write_text("route 66\n")
    (tmp_path / "d.json").write_text(json.dumps({"prompt": "route 66", "seed": 8}))
    found, notes, faults = matched(tmp_path, seeds=(4, 8))
    assert found == {"b.png": (0, 0), "c.png": (2, 0), "d.png": (2, 1)} and faults == []
    assert "outside dalle3: captions.json names files that are not there: gone.png." in notes
    assert "outside dalle3: there is no image of 'a house on a hill at night, oil painting': these cells stay empty." in notes
    assert "outside dalle3: seed 8 has no image of 'A red fox, sitting.': these cells stay empty." in notes
    assert any("1 image matches no prompt and seed" in note and "e.png" in note for note in notes)


def test_several_images_of_a_prompt_go_to_the_seeds_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        image(tmp_path / f"route-66-{number}.png")
    found, notes, _ = matched(tmp_path, seeds=(5, 6))
    assert found == {"route-66-1.png": (2, 0), "route-66-2.png": (2, 1)} and "route-66-10.png" in notes[-1]


def test_numbers_count_the_prompts_where_nothing_else_matches(tmp_path: Path) -> None:
    for name in ("1.png", "02-1.png", "2-2.png", "4.png"):
        image(tmp_path / name)
    found, notes, faults = matched(tmp_path, seeds=(5, 6))
    assert found == {"1.png": (0, 0), "02-1.png": (1, 0), "2-2.png": (1, 1)} and faults == [] and "4.png" in notes[-1]
    image(tmp_path / "0.png")
    assert "numbered from 0" in matched(tmp_path)[2][0]


def test_what_may_be_of_two_prompts_is_a_fault(tmp_path: Path) -> None:
    image(tmp_path / "a-red-fox-sitting.png", parameters="route 66\nSteps: 20, Sampler: Euler, Seed: 1")
    assert (
        "a-red-fox-sitting.png may be of different prompts (its metadata (parameters): 'route 66'; its file name" in matched(tmp_path)[2][0]
    )
    image(tmp_path / "cut" / "a-house-on-a-hill-at-night.png")
    two = ["a house on a hill at night, oil", "a house on a hill at night, ink"]
    assert "may be of different prompts" in matched(tmp_path / "cut", two)[2][0]
    for number in (1, 2):
        image(tmp_path / "seeds" / f"{number}.png", parameters="route 66\nSteps: 20, Sampler: Euler, Seed: 1")
    assert "1.png and 2.png are both of seed 1" in matched(tmp_path / "seeds")[2][0]


def test_hostile_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    whole = image(folder / "route-66.png", size=(64, 64)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "page.png").write_text("<html>")
    (folder / "empty.png").touch()
    (folder / "<img src=x onerror=1>\x1b.png").write_text("x")
    image(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    (folder / "both.png").write_bytes(whole)
    (folder / "both.txt").write_text("x")
    (folder / "both.json").write_text("{}")
    found, _, faults = matched(folder)
    said = "\n".join(faults)
    assert found == {"route-66.png": (2, 0)} and len(faults) == 6
    assert (
        "cut.png: it cannot be decoded" in said
        and "page.png: it cannot be decoded (no image format" in said
        and "link.png: it is a link" in said
    )
    assert "empty.png" in said and "\x1b" not in said and "both both.json and both.txt are beside it" in said


def test_a_file_of_captions_is_refused_where_it_is_wrong(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    captions(tmp_path, {"a.png": {"seed": 1}})
    assert "captions.json, entry 1: it has no text prompt or text or caption" in matched(tmp_path)[2][0]
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,route 66\n")
    assert "captions.json are both there" in matched(tmp_path)[2][0]
    (tmp_path / "captions.json").unlink()
    assert matched(tmp_path)[0] == {"a.png": (2, 0)}
    assert "there is no folder" in matched(tmp_path / "gone")[2][0]


def test_the_setting() -> None:
    assert read_outside("shots/dalle") == [("dalle", "shots/dalle")] and read_outside(None) == []
    assert read_outside([{"name": "DALL-E 3", "path": "a"}, "b"]) == [("DALL-E 3", "a"), ("b", "b")]
    for bad in ([{"name": "a"}], [{"path": 3}], [{"name": "none", "path": "a"}], ["a/x", "b/x"], [{"name": "a/b", "path": "c"}], 5):
        with pytest.raises(Refused, match="outside"):
            read_outside(bad)
    assert slug("A red_fox, 3 Äpfel!") == "a-red-fox-3-äpfel"
