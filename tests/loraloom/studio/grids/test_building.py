"""The builder: what is typed becomes the words of `loraloom grid`, read as typed; and back from a grid, or one of its cells."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infer.grid.config import GridConfig, to_plain
from infer.output.command import command_of
from loraloom.cli import main
from loraloom.commands.grid import job
from loraloom.hydra.run import configure
from loraloom.studio.grids.building import Form, form_of_cell, form_of_grid, planner, words_of
from registry.printable import shell_line
from tests.infer.images import resolved
from tests.infer.output.opened import NASTY
from tests.loraloom.studio.grids.made import drawn
from tests.loraloom.studio.opened import Served

TEXTS = ["a cat, sitting (red:1.2)", "'quoted'", '"a","b"', "${x} \\", "null", "[a|b] {c}", NASTY, "-x", "@file", "1-4", "~"]


def form(values: dict[str, str] | None = None, axes: dict[str, list[str]] | None = None) -> Form:
    return Form(values=values or {}, axes=axes or {})


def read_as(found: Form) -> GridConfig:
    return configure(job(), *words_of(found))


@pytest.mark.parametrize("text", [pytest.param(text, marks=[] if text in (TEXTS[0], NASTY) else pytest.mark.slow) for text in TEXTS])
def test_texts_are_read_as_typed(text: str) -> None:
    assert read_as(form({"prompt": text, "negative": text})).prompt == text
    assert read_as(form({}, {"prompt": [text, "b"]})).axes.prompt == [None if text == "null" else text, "b"]


def test_values_and_axes_are_those_of_the_command() -> None:
    words = words_of(
        form(
            {"base": "pocket", "adapters": "ink:0.6+hat:0.4", "size": "96x64", "steps": "8", "guidance": "", "name": " "},
            {
                "seed": ["1-4", "7"],
                "guidance": ["1..7/4"],
                "adapter": ["none", "ink:0.5", "a b/c.safetensors"],
                "hires": ["null", "{scale: 2}"],
            },
        )
    )
    assert words == [
        "base=pocket",
        "adapters=ink:0.6+hat:0.4",
        "size=96x64",
        "steps=8",
        "axes.seed=[1-4,7]",
        "axes.guidance=[1..7/4]",
        'axes.adapter=["none",ink:0.5,"a b/c.safetensors"]',
        "axes.hires=[null,{scale: 2}]",
    ]
    config = configure(job(), *words)
    assert config.axes.seed == ["1-4", 7] and config.axes.adapter == ["none", "ink:0.5", "a b/c.safetensors"] and config.steps == 8
    assert config.axes.hires == [None, {"scale": 2}]


def as_lists(config: GridConfig) -> dict[str, Any]:
    """The settings, an axis of one value as a list of it."""
    plain = to_plain(config)
    return plain | {"axes": {name: value if isinstance(value, list) else [value] for name, value in plain["axes"].items()}}


GIVEN = [
    ["prompt=a cat", "axes.seed=1-3"],
    ["axes.prompt=['a, b', 'c \\'d\\'']", "axes.adapter=[none,ink:0.5,{adapter: ink, start: 0.2}]", "negative='null'", "score=[sharpness]"],
    [
        "prompt=x",
        "adapters=ink:0.6+hat",
        "size=96x64",
        "paste=false",
        "axes.hires=[null,{scale: 2, upscaler: lanczos}]",
        "zip=[seed,steps]",
    ],
    ["prompt=x", "axes.weight={hat: [0,0.5,1]}", "axes.seed=[1,2]", "where=seed > 1", "image_format=webp", "quality=80", "batch_size=auto"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", GIVEN, ids=str)
def test_again_has_the_settings_of_the_grid(studio: Served, words: list[str], tmp_path: Path) -> None:
    config = configure(job(), *words)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=160))
    found = form_of_grid(studio.studio, tmp_path)
    assert as_lists(read_as(found)) == as_lists(config)
    assert len(words_of(found)) == len(words)


def test_a_cell_has_the_words_that_draw_it(tmp_path: Path) -> None:
    render = resolved(prompt=NASTY, seed=7, steps=9)
    line = {"key": render.key(), "render": render.to_json(), "image": None, "axes": {}, "scores": {}}
    (tmp_path / "cells.jsonl").write_text(json.dumps(line) + "\n")
    words = words_of(form_of_cell(tmp_path, render.key()))
    assert shell_line("loraloom", "grid", *words) == command_of(render)
    assert (configure(job(), *words).prompt, configure(job(), *words).seed) == (NASTY, 7)


@pytest.mark.slow
def test_the_plan_is_that_of_the_command(studio: Served, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"values": {"steps": "4"}, "axes": {"prompt": ["a cat", "a dog"], "seed": ["1-3"]}}
    status, found = studio.post("grids/plan", form=given, page="a", number=1)
    assert status == 200 and found["faults"] == []
    assert main(["grid", *found["words"], "dry_run=true", "--json"]) == 0
    assert found["plan"] == json.loads(capsys.readouterr().out) and found["plan"]["cells"] == 6


def test_faults_are_at_their_fields(studio: Served) -> None:
    given = {"values": {"base": "nope", "steps": "0"}, "axes": {"prompt": ["a"], "seed": ["x"]}}
    found = studio.post("grids/plan", form=given)[1]
    assert {fault["setting"] for fault in found["faults"]} >= {"base", "axes.seed"} and found["plan"] is None


@pytest.mark.parametrize(
    "given", [None, {}, {"values": {"a": 1}, "axes": {}}, {"values": {}, "axes": {"seed": "1"}}, {"values": [], "axes": {}}], ids=str
)
def test_what_is_no_form_is_refused(studio: Served, given: Any) -> None:
    assert studio.post("grids/plan", form=given)[0] == 400
    assert studio.post("grids/draw", form=given)[0] == 400


def test_every_setting_has_a_field_with_its_help(studio: Served) -> None:
    fields = studio.get("grids/form")[1]["fields"]
    names = {row["name"] for row in planner(studio.studio).describe()["settings"]} - {"dry_run", "out"}
    reached = {field["name"] for field in fields} | {f"axes.{field['axis']}" for field in fields if field["axis"]}
    assert reached == names and all(field["help"] or field["axis_help"] for field in fields)
    of = {field["name"]: field for field in fields}
    assert of["adapters"]["axis"] == "adapter" and of["size"]["axis"] == "size" and of["device"]["axis"] is None
    assert (
        "euler" in of["sampler"]["choices"] and of["paste"]["choices"] == ["true", "false"] and of["steps"]["range"].startswith("1 to 1000")
    )
    assert not any("in quotes" in one["axis_help"] for one in fields if one["long"])  # they would be part of the text


def test_models_are_suggested_by_kind(studio: Served) -> None:
    assert [one["name"] for one in studio.get("grids/models", kind="checkpoint", typed="POCK")[1]] == ["pocket"]
    assert studio.get("grids/models", kind="adapter", typed="")[1] == [] and studio.get("grids/models", kind="nonsense")[0] == 400


def test_a_grid_outside_gives_nothing(studio: Served, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "a/1", {"seed": ["1"]})
    assert studio.get("grids/again", folder=str(folder))[0] == 400
