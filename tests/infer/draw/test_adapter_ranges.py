"""An adapter on a part of the steps: diffusers' pipeline with the adapter switched in a callback, and no trace of it afterwards."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from infer.draw.files import Adapter, read_adapters
from infer.draw.render import Render
from infer.draw.samplers import build_scheduler
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from registry.errors import Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import write_kind
from tests.infer.draw.test_kinds import shapes
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2
STEPS = 6


def drawn(shelf: Shelf, name: str = "image", **settings: Any) -> Any:
    given: dict[str, Any] = {"base": str(shared_folder("sd1")), "prompt": "a red cat", "seed": 3, "sampler": "euler"}
    given |= {"out": str(shelf.work)} | settings
    folder = run(GridConfig(**{"steps": STEPS} | given), shelf.store).folder
    with Image.open(next((folder / "images").glob(f"*{name}*.png"))) as image:
        return numpy.asarray(image.convert("RGB"), dtype=int)


@pytest.mark.slow
@pytest.mark.parametrize(("start", "end", "on"), [(0.0, 0.5, (0, 1, 2)), (0.3, 0.7, (2, 3))])
def test_it_is_the_pipeline_with_the_adapter_switched(start: float, end: float, on: tuple[int, ...], shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_adapter(shared_folder("sd1"), tmp_path / "mine.safetensors", seed=5), name="mine")
    pipeline = plain_pipeline("sd1")
    pipeline.scheduler = build_scheduler(tiny_parts("sd1")[1], "euler")
    pipeline.load_lora_weights(tmp_path / "mine.safetensors", adapter_name="mine")

    def switch(step: int) -> None:
        pipeline.set_adapters(["mine"], [0.9 if step in on else 0.0])

    def after(_pipeline: Any, step: int, _time: Any, kept: dict[str, Any]) -> dict[str, Any]:
        switch(step + 1)
        return kept

    switch(0)
    generator = torch.Generator("cpu").manual_seed(3)
    expected = pipeline("a red cat", num_inference_steps=STEPS, generator=generator, callback_on_step_end=after).images[0]
    pipeline.unload_lora_weights()
    actual = drawn(shelf, adapters={"adapter": "mine", "weight": 0.9, "start": start, "end": end})
    assert abs(actual - numpy.asarray(expected, dtype=int)).max() <= 1 and actual.std() > 5
    whole = drawn(shelf, adapters="mine:0.9")
    assert abs(actual - whole).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "lokr"])
def test_the_next_cell_has_no_trace(kind: str, shelf: Shelf, tmp_path: Path) -> None:
    if kind == "lora":
        path = tiny_adapter(shared_folder("sd1"), tmp_path / "one.safetensors", seed=5, text_encoder=True)
    else:
        path = write_kind(kind, shapes(tiny_parts("sd1")[1]), tmp_path / "one.safetensors")
    shelf.store.add(path, name="one")
    same: dict[str, Any] = {"base": str(shared_folder("sd1")), "prompt": "a red cat", "steps": STEPS, "adapters": "one"}

    def images(*ends: float) -> set[bytes]:
        config = GridConfig(**same, out=str(shelf.work), name=f"ends-{len(ends)}", axes=Axes(adapterend=list(ends), seed=[3, 4]))
        folder = run(config, shelf.store).folder
        return {_pixels(path.read_bytes()) for path in sorted((folder / "images").glob("*.png"))}

    both = images(0.5, 1.0)
    shutil.rmtree(shelf.home / "cells")
    alone = images(1.0)
    assert len(both) == 4 and len(alone) == 2 and alone < both


def _pixels(data: bytes) -> bytes:
    from io import BytesIO

    with Image.open(BytesIO(data)) as image:
        return image.convert("RGB").tobytes()


def test_keys_and_json_of_whole_adapters_stay() -> None:
    whole, part = Adapter(reference="ink", sha256="a" * 64), Adapter(reference="ink", sha256="a" * 64, end=0.5)
    assert whole.pinned() == ["a" * 64, 1.0] and part.pinned() == ["a" * 64, 1.0, None, 0.0, 0.5]
    assert str(part) == "ink (0..0.5 of the steps)" and str(replace(part, text_weight=0.2)) == "ink (text 0.2, 0..0.5 of the steps)"
    render = Render(base="tiny", adapters=(whole, part))
    rows = render.to_json()["adapters"]
    assert set(rows[0]) == {"reference", "weight", "sha256"} and rows[1]["end"] == 0.5 and "start" not in rows[1]
    assert Render.from_json(render.to_json()) == render


def test_what_is_no_part_of_the_steps_is_refused(shelf: Shelf) -> None:
    for start, end in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.5), (0.9, 0.1)):
        with pytest.raises(Refused, match=r"The adapter ink is to start at .* Expected two shares from 0 to 1"):
            read_adapters({"adapter": "ink", "start": start, "end": end})
    with pytest.raises(Refused, match="is no adapter"):
        read_adapters({"adapter": "ink", "start": "half"})
    with pytest.raises(Faults, match=r"to start at 0\.7 and end at 0\.5"):
        plan(GridConfig(base="tiny", prompt="a", axes=Axes(adapterstart=[0.0, 0.7], adapterend=[0.5]), adapters="ink"), shelf.store)
