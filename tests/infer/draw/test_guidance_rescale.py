"""Guidance rescale and eta are those of diffusers' pipelines, to a byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from infer.draw.denoise import rescaled
from infer.draw.render import Render
from infer.draw.samplers import build_scheduler
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from registry.store import Store
from tests.tiny import plain_pipeline, shared_folder, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def test_the_spread_comes_back_by_its_share() -> None:
    guided, conditional = torch.tensor([[[[2.0, -2.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
    assert rescaled(guided, conditional, 1.0).flatten().tolist() == pytest.approx([1.0, -1.0])
    assert rescaled(guided, conditional, 0.25).flatten().tolist() == pytest.approx([1.75, -1.75])
    assert rescaled(guided, conditional, 0.0) is guided


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings", "options"),
    [
        ("sd1", {"rescale": 0.7, "guidance": 9.0}, {"guidance_rescale": 0.7, "guidance_scale": 9.0}),
        ("sdxl", {"rescale": 0.5, "guidance": 9.0}, {"guidance_rescale": 0.5, "guidance_scale": 9.0}),
        ("sd1", {"eta": 0.8, "sampler": "ddim"}, {"eta": 0.8}),
    ],
)
def test_a_cell_is_the_plain_pipelines_image(
    family: str, settings: dict[str, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    store, folder, pipeline = Store(tmp_path / "home"), shared_folder(family), plain_pipeline(family)
    if "sampler" in settings:
        pipeline.scheduler = build_scheduler(tiny_parts(family)[1], settings["sampler"])
    expected = pipeline("a red cat", num_inference_steps=4, generator=torch.Generator("cpu").manual_seed(3), **options).images[0]
    config = GridConfig(base=str(folder), prompt="a red cat", steps=4, seed=3, out=str(tmp_path / "runs"), **settings)
    with Image.open(run(config, store).folder / "images" / "image.png") as image:
        actual = numpy.asarray(image.convert("RGB"), dtype=int)
        parameters = str(image.info["parameters"])
    assert abs(actual - numpy.asarray(expected, dtype=int)).max() <= 1 and actual.std() > 5
    shown = {"rescale": "CFG Rescale", "eta": "Eta DDIM"}
    assert all(f"{shown[name]}: {value:g}" in parameters for name, value in settings.items() if name in shown)
    keys = set()
    for off in ({}, {"rescale": 0.0, "eta": 0.0}):
        same = GridConfig(base=str(folder), prompt="a red cat", steps=4, seed=3, guidance=settings.get("guidance"), **off)
        keys |= {cell.render.key() for cell in plan(same, store).cells}
    assert len(keys) == 1


def test_axes_notes_and_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.errors import Faults

    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    store, folder = Store(tmp_path / "home"), str(shared_folder("sd1"))
    axes = Axes(schedule=[None, "karras", "SGM Uniform"], sampler=["euler", "dpmpp_2m"])
    planned = plan(GridConfig(base=folder, prompt="a cat", steps=3, axes=axes), store)
    assert planned.distinct == 6 and planned.forwards == 18
    assert planned.to_json()["axes"]["schedule"] == ["base's own", "karras", "sgm_uniform"]
    (note,) = plan(GridConfig(base=folder, prompt="a cat", steps=3, guidance=1.0, rescale=0.5), store).notes
    assert note.startswith("rescale has no effect")
    with pytest.raises(Faults) as caught:
        plan(
            GridConfig(base=folder, prompt="a cat", steps=3, rescale=1.5, eta=-1.0, sampler="euler", schedule_type="simple", sigma_min=1.0),
            store,
        )
    text = str(caught.value)
    assert all(words in text for words in ("rescale is 1.5", "eta is -1", "'simple' runs over the base's whole table"))
    assert Render.from_json(planned.cells[-1].render.to_json()) == planned.cells[-1].render
