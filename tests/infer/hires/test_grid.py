"""Grids with second passes: what is counted, shared and kept, what is written and read back, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.grid.config import Axes, GridConfig
from infer.grid.job import GridOutcome, plan, run
from infer.hires.setting import Hires, read_hires, size_note
from infer.metadata.a1111 import read
from infer.metadata.result import SecondPass
from infer.output.png import read_png
from infer.output.reproduce import reproduce
from infer.prompt.schedule import scheduled
from loraloom.cli import main
from registry.errors import Faults, Refused
from tests.infer.conftest import Shelf

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

BASE: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 4, "size": 32, "seed": 5, "sampler": "euler"}
PASSES = [None, 1.5, {"scale": 2, "upscaler": "lanczos", "steps": 2, "strength": 0.5}]


def config(work: Path, axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    return GridConfig(**{**BASE, "out": str(work), "axes": Axes(**(axes or {}))} | settings)


def images(outcome: GridOutcome) -> list[Path]:
    lines = (outcome.folder / "cells.jsonl").read_text().splitlines()
    return [outcome.folder / json.loads(line)["image"] for line in lines]


@pytest.mark.slow
def test_second_passes_share_the_first_one_and_are_kept(shelf: Shelf, tmp_path: Path) -> None:
    given = config(tmp_path, {"hires": PASSES})
    planned = plan(given, shelf.store)
    assert planned.forwards == 4 + 4 + 2 and planned.distinct == 3  # the first pass once, and the two second ones
    drawn = run(given, shelf.store)
    assert (drawn.result["forwards"], drawn.result["encodes"]) == (planned.forwards, planned.encodes)
    assert [Image.open(path).size for path in images(drawn)] == [(32, 32), (48, 48), (64, 64)]
    more = config(tmp_path, {"hires": [{"scale": 2, "steps": 3}]})
    planned = plan(more, shelf.store)
    assert (planned.forwards, planned.latents_reused) == (3, 1)
    again = run(more, shelf.store)
    assert (again.result["forwards"], again.result["latents_reused"]) == (3, 1)


@pytest.mark.slow
def test_a_second_pass_is_drawn_alike_whatever_is_drawn_beside_it(shelf: Shelf, tmp_path: Path) -> None:
    beside = images(run(config(tmp_path, {"hires": PASSES}, keep_latents="0"), shelf.store))[1]
    found = reproduce(beside, shelf.store)
    assert found.max_difference == 0


def test_cells_that_share_forwards_leave_it_alone(shelf: Shelf, tmp_path: Path) -> None:
    planned = plan(config(tmp_path, {"hires": [None, 1.5], "guidance": [1, 2]}, batch_size=4), shelf.store)
    assert [cell.render.shared for cell in planned.cells].count(True) == 2
    assert any("a second pass follows" in note for note in planned.notes)


def test_another_vae_decodes_the_latents_of_a_latent_upscaler_alone(shelf: Shelf) -> None:
    def key(upscaler: str, **changes: Any) -> str:
        hires = {"scale": 2, "upscaler": upscaler}
        cell = plan(GridConfig(**BASE, hires=hires), shelf.store).cells[0].render
        return replace(cell, **changes).latents_key()

    another = {"vae": "x", "vae_sha256": "0" * 64}
    assert key("latent") == key("latent", **another) and key("lanczos") != key("lanczos", **another)


def test_what_is_as_the_first_pass_has_it_is_the_same_key(shelf: Shelf) -> None:
    def key(hires: Any) -> str:
        return plan(GridConfig(**BASE, hires=hires), shelf.store).cells[0].render.key()

    spelt = {"size": "64x64", "upscaler": "Latent", "steps": 4, "strength": 0.7, "sampler": "Euler", "seed": 5}
    assert key(2) == key("2x") == key(spelt) and key(2) != key(None) != key({"scale": 2, "seed": 6})


@pytest.mark.slow
def test_it_is_written_as_a1111_does_and_read_back(shelf: Shelf, tmp_path: Path) -> None:
    hires = {"scale": 1.5, "upscaler": "Latent (bicubic)", "steps": 3, "strength": 0.6, "sampler": "Euler a", "guidance": 3, "seed": 6}
    (path,) = images(run(config(tmp_path, hires=hires), shelf.store))
    text = Image.open(path).info["parameters"]
    assert "Size: 32x32" in text and "Denoising strength: 0.6" in text and "Hires upscale: 1.5, Hires steps: 3" in text
    found = read(text, source="parameters")
    assert found is not None and found.init is None and found.unread == ()
    second: dict[str, Any] = {"scale": 1.5, "upscaler": "Latent (bicubic)", "steps": 3, "strength": 0.6}
    own: dict[str, Any] = {"sampler": "Euler a", "schedule": "Uniform", "guidance": 3.0, "seed": 6}
    assert found.second == SecondPass(**second, **own)
    render = read_png(path).render
    assert Render.from_json(json.loads(json.dumps(render.to_json()))) == render and render.final_size == (48, 48)
    planned = plan(GridConfig(from_image=str(path)), shelf.store)
    assert (planned.stored, planned.cells[0].render.key()) == (1, render.key())


def test_a_scale_that_gives_no_size_of_the_family_is_noted_and_written_as_a_size(shelf: Shelf, tmp_path: Path) -> None:
    given = config(tmp_path, hires=1.3)
    assert "The second pass draws 40x40 pixels: 1.3 times 32x32 is 41.6x41.6." in plan(given, shelf.store).notes
    (path,) = images(run(given, shelf.store))
    assert "Hires resize: 40x40" in Image.open(path).info["parameters"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hires": {"scale": 2, "upscaler": "R-ESRGAN 4x+"}}, "another network"),
        ({"hires": {"scale": 2, "upscaler": "latnt"}}, "Did you mean 'latent'"),
        ({"hires": 0.5}, "hires.scale is 0.5. Expected 1 to 8"),
        ({"hires": {"strength": 0}}, "hires.strength is 0"),
        ({"hires": {"size": "64x32"}}, "Give 64x64, or a scale"),
        ({"hires": {"size": 24}}, "Expected a larger one"),
        ({"hires": {"scale": 2, "size": 64}}, "a scale and a size"),
        ({"hires": {"scale": 2, "strngth": 1}}, "Did you mean 'strength'"),
        ({"hires": {"scale": 2, "steps": 500, "strength": 0.1}}, "The second pass"),
        ({"hires": {"scale": 2, "sampler": "eulr"}}, "Did you mean 'euler'"),
        ({"hires": 2, "init": "a.png"}, "hires is given with init"),
        ({"axes": {"hiressteps": [1, 2]}}, "axes.hiressteps changes the second pass, and this cell has none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(shelf: Shelf, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    axes = settings.pop("axes", None)
    with pytest.raises(Faults) as caught:
        plan(config(tmp_path, axes, **settings), shelf.store)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("hires", "message", "fitting"),
    [
        (
            {"steps": 500, "strength": 0.1},
            "steps / strength = 5000, and at most 1000 are possible with its sampler. Expected at most 100 steps or a strength of at least"
            " 0.5.",
            ({"steps": 100, "strength": 0.1}, {"steps": 500, "strength": 0.5}),
        ),
        ({"steps": 20, "strength": 0.3, "sampler": "lcm"}, "Expected at most 15 steps or a strength of at least 0.393.", ()),
        ({"steps": 60, "strength": 1, "sampler": "lcm"}, "Expected at most 50 steps.", ()),
    ],
)
def test_too_many_steps_are_said_in_what_was_typed(
    shelf: Shelf, tmp_path: Path, hires: dict[str, Any], message: str, fitting: tuple[dict[str, Any], ...]
) -> None:
    with pytest.raises(Faults) as caught:
        plan(config(tmp_path, hires={"scale": 2, **hires}), shelf.store)
    assert message in str(caught.value) and "steps is" not in str(caught.value) and len(caught.value.faults) == 1
    for one in fitting:
        plan(config(tmp_path, hires={"scale": 2, **one}), shelf.store)


def test_an_axis_of_a_field_without_hires_is_answered_with_what_works(shelf: Shelf, tmp_path: Path) -> None:
    axes: dict[str, Any] = {"hiresscale": [1.5, 2]}
    with pytest.raises(Faults, match=r"Give hires \(hires=1.5\)"):
        plan(config(tmp_path, axes), shelf.store)
    assert len(plan(config(tmp_path, axes, hires=1.5), shelf.store).cells) == 2
    given = config(tmp_path, {"hires": [None, 1.5], **axes}, where="hires != null")
    assert len(plan(given, shelf.store).cells) == 2


def test_sizes_in_the_note_are_rounded() -> None:
    assert "1.3 times 72x64 is 93.6x83.2." in str(size_note(Hires(scale=1.3, width=88, height=80), (72, 64)))
    assert size_note(Hires(scale=1.1, width=352, height=352), (320, 320)) is None  # 352.00000000000006


def test_axes_of_its_fields(shelf: Shelf, tmp_path: Path) -> None:
    axes = {"hiresscale": [1.5, 2], "hiresupscaler": ["latent", "Latent (nearest-exact)"], "hiressteps": [2], "hiresstrength": [0.5]}
    cells = plan(config(tmp_path, axes, hires=1), shelf.store).cells
    assert {(cell.render.final_size, str(cell.render.hires)) for cell in cells} == {
        ((side, side), f"{scale}x {name} at 0.5, 2 steps")
        for side, scale in ((48, "1.5"), (64, "2"))
        for name in ("latent", "latent_nearest_exact")
    }


@pytest.mark.slow
def test_the_command_of_a_cell_draws_it(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from infer.output.command import words_of

    render = plan(config(tmp_path, hires={"scale": 2, "upscaler": "lanczos", "sampler": "ddim"}), shelf.store).cells[0].render
    assert main(["grid", *words_of(render), "dry_run=true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forwards"] == 8
    assert plan(GridConfig(**BASE, hires=render.hires and render.hires.to_record()), shelf.store).cells[0].render.key() == render.key()


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("[cat:dog:0.5]", ["cat", "dog"], ["dog"]),
        ("[cat:dog:1.5]", ["cat"], ["cat", "dog"]),
        ("[cat:dog:2]", ["cat", "dog"], ["dog"]),
        ("[cat:dog:6]", ["cat"], ["cat", "dog"]),
        ("[a|b]", ["a", "b", "a", "b"], ["a", "b", "a", "b"]),
    ],
)
def test_schedules_of_a_prompt_go_on_in_the_second_pass(text: str, first: list[str], second: list[str]) -> None:
    """A1111 1.6 and later: steps are counted on from the first pass, shares from 1."""
    assert [one.text for one in scheduled(text, 4)] == first and [one.text for one in scheduled(text, 4, 4)] == second


@pytest.mark.parametrize(
    "hires",
    [
        {"scale": float("nan")},
        {"scale": 1e308},
        {"strength": float("nan")},
        {"upscaler": "x"},
        {"scale": None, "width": 10**9, "height": 10**9},
        {"steps": 10**30},
        {"seed": -1},
        {"sampler": "x"},
        {"schedule": "x"},
        {"guidance": 1e300},
        {"width": "x"},
        3,
        {"other": 1},
    ],
)
def test_what_anyone_wrote_into_an_image_is_refused(shelf: Shelf, hires: Any) -> None:
    """Metadata is anyone's: it is read or not, and what is read is checked like a person's."""
    plain = plan(GridConfig(**BASE, hires=2), shelf.store).cells[0].render.to_json()
    plain["hires"] = plain["hires"] | hires if isinstance(hires, dict) else hires
    try:
        render = Render.from_json(json.loads(json.dumps(plain)))
    except (ValueError, TypeError):
        return
    with pytest.raises(Faults):
        Resolver(shelf.store).resolve(render)


def test_how_it_is_spelt() -> None:
    one = read_hires({"size": "96x64", "steps": 8, "sampler": "DPM++ 2M Karras", "schedule_type": None, "seed": 3})
    assert str(one) == "96x64 latent at 0.7, 8 steps, dpmpp_2m_karras, seed 3" and read_hires("none") is None
    assert one == read_hires(one and one.to_record()) and read_hires("1.5x") == Hires(scale=1.5)
    for wrong in ("large", [1], True, {"steps": 1.5}, {"scale": "x"}, {"upscaler": 3}):
        with pytest.raises(Refused):
            read_hires(wrong)
