"""What an image was drawn with, left out one by one: its start image, ControlNets and embeddings; and images of other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infer.explain.explain import explain
from infer.explain.page import panel, write_explanation
from infer.explain.plan import plan_explanation
from infer.grid.config import GridConfig
from infer.grid.job import run
from loraloom.cli import main
from tests.infer.conftest import Shelf
from tests.infer.explain.test_explain import drawn, pixels
from tests.infer.metadata.images import png

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.mark.slow
def test_what_an_image_was_drawn_with_is_left_out_one_by_one(
    shelf: Shelf, tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    image = drawn(shelf, **given)
    assert main(["explain", str(image), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "6 images in 14 steps" in plan and "frames: 2 of 4 steps, by its strength" in plan and "from noise alone: 4 steps" in plan
    assert "without lines: 2 of 4" in plan and "without softness: 2 of 4" in plan and "sha256:" not in plan
    values = write_explanation(explain(plan_explanation(image, shelf.store, frames=2)), tmp_path)
    assert values["largest_difference"] == 0 and values["file"] is None and [one["call"] for one in values["frames"]] == [0, None]
    assert values["frames"][0]["calls"] == 3  # of the base's own PNDM, which has 5 timesteps for 4 steps
    (control,), (embedding,), start = values["controls"], values["embeddings"], values["start"]
    assert (control["control"], control["scale"]) == ("lines", 0.8) and (embedding["embedding"], embedding["token"]) == ("softness", "soft")
    assert values["settings"]["controls"].startswith("lines:/") and values["settings"]["embeddings"] == "softness as soft"
    assert (pixels(tmp_path / control["source"]) == pixels(tmp_path / "hint.png")).all()
    assert (pixels(tmp_path / start["source"]) == pixels(tmp_path / "start.png")).all()
    redrawn = abs(pixels(image).astype(float) - pixels(tmp_path / "start.png")).mean()
    assert start["redrawn"]["mean"] == pytest.approx(redrawn, abs=1e-3) and start["mean"] > 0 and control["mean"] > 0
    for row, left in ((control, "controls"), (embedding, "embeddings"), (start, "init")):
        without = {name: value for name, value in given.items() if name not in (left, *(("strength",) if left == "init" else ()))}
        assert (pixels(tmp_path / row["image"]) == pixels(drawn(shelf, name=left, **without))).all()
    text = (tmp_path / "explain.html").read_text()
    assert "What the ControlNets changed" in text and "the hint" in text and "the word soft" in text and "what was redrawn" in text


@pytest.mark.slow
def test_an_image_of_another_program_is_drawn_as_a_grid_from_it_is(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a cat <lora:ink:0.6>\nNegative prompt: a dog\nSteps: 2, Sampler: Euler, CFG scale: 4, Seed: 7, Size: 32x24"
    image = png(tmp_path / "a.png", parameters=f"{text}, Model: tiny, Version: v1.9.4, ADetailer model: face.pt")
    assert main(["explain", str(image), "--frames", "2", "--out", str(tmp_path / "out"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    folder = Path(values["page"]).parent
    (cell,) = (run(GridConfig(from_image=str(image), out=str(shelf.work)), shelf.store).folder / "images").iterdir()
    assert (pixels(folder / values["frames"][-1]["image"]) == pixels(cell)).all()
    assert values["file"]["from"]["tool"] == "A1111" and "drawn by A1111" in values["notes"][0]
    assert any("ADetailer model: face.pt" in note for note in values["notes"]) and [one["adapter"] for one in values["adapters"]] == ["ink"]
    assert values["file"]["difference"] is None and any("it was cropped or scaled" in note for note in values["notes"])
    page = (folder / "explain.html").read_text()
    assert "The file, and what is drawn here" in page and "not of one size" in page


@pytest.mark.slow
def test_an_image_beside_it_that_is_refused_is_left_out_with_its_reason(shelf: Shelf, tmp_path: Path) -> None:
    """Prompts that AND joins need an unconditional pass: there is no image at guidance 1, and all others are drawn."""
    image = drawn(shelf, prompt="a cat AND a dog", prompt_dialect="a1111", negative="a horse", steps=1, adapters="ink")
    plan = plan_explanation(image, shelf.store, frames=2)
    assert [one.what for one in plan.variants] == ["negative", "adapter"] and "joins 2 prompts by AND" in plan.why_not["guidance"]
    assert plan.why_not["guidance"] in plan.to_text()
    values = write_explanation(explain(plan), tmp_path)
    assert values["guidance"] is None and values["negative"]["mean"] > 0
    page = (tmp_path / "explain.html").read_text()
    assert "<h3>And guidance</h3>" in page and "The image at guidance 1 is not drawn: prompt joins 2 prompts by AND" in page
    (tmp_path / "panel.html").write_text(panel(values | {"not_drawn": dict.fromkeys(("start", "control"), "left out")}, Uris()))
    assert (tmp_path / "panel.html").read_text().count("left out") == 2
    both = values | {"guidance": values["negative"], "render": values["render"] | {"hires": {"guidance": 2.5}}}
    assert "drawn at 4, the second at 2.5" in panel(both, Uris())
    assert "drawn at" not in panel(both | {"render": values["render"] | {"hires": {"guidance": None}}}, Uris())


class Uris(dict[str, str]):
    """Each image by its own name."""

    def __missing__(self, name: str) -> str:
        return name
