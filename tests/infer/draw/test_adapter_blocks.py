"""Block weights of adapters: the image is the one diffusers' pipeline draws with its own scales by block, for every kind of adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

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
SAME: dict[str, Any] = {"base": str(shared_folder("sd1")), "prompt": "a red cat", "seed": 3, "steps": 4, "sampler": "euler"}


def drawn(shelf: Shelf, **settings: Any) -> list[Any]:
    folder = run(GridConfig(**SAME | {"out": str(shelf.work)} | settings), shelf.store).folder
    return [_pixels(path) for path in sorted((folder / "images").glob("*.png"))]


def _pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"), dtype=int)


@pytest.mark.slow
def test_it_is_diffusers_with_its_scales_by_block(shelf: Shelf, tmp_path: Path) -> None:
    path = tiny_adapter(shared_folder("sd1"), tmp_path / "mine.safetensors", seed=5, text_encoder=True)
    shelf.store.add(path, name="mine")
    pipeline = plain_pipeline("sd1")
    pipeline.scheduler = build_scheduler(tiny_parts("sd1")[1], "euler")
    pipeline.load_lora_weights(path, adapter_name="mine")
    scales = {"unet": {"down": 0.5, "mid": 0.0, "up": 1.0}, "text_encoder": 0.25}
    pipeline.set_adapters(["mine"], [scales])
    expected = pipeline("a red cat", num_inference_steps=4, generator=torch.Generator("cpu").manual_seed(3)).images[0]
    pipeline.unload_lora_weights()
    blocks = {"IN*": 0.5, "M00": 0, "BASE": 0.25}
    (actual,) = drawn(shelf, adapters={"adapter": "mine", "blocks": blocks})
    assert abs(actual - numpy.asarray(expected, dtype=int)).max() <= 1 and actual.std() > 5
    (whole,) = drawn(shelf, adapters="mine")
    assert abs(actual - whole).max() > 1
    (tag,) = drawn(shelf, prompt="a red cat<lora:mine:1:lbw=IN*=0.5>", prompt_dialect="a1111_no_norm")
    (same,) = drawn(shelf, adapters={"adapter": "mine", "blocks": "IN*=0.5"}, prompt_dialect="a1111_no_norm")
    assert (tag == same).all()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_variants_of_one_file_in_one_grid(batch: int, shelf: Shelf, tmp_path: Path) -> None:
    path = tiny_adapter(shared_folder("sd1"), tmp_path / "mine.safetensors", seed=5)
    shelf.store.add(path, name="mine")
    half = {
        key: tensor * 0.5 if ("lora_B" in key or "up" in key.split(".")) and ".mid_block." in key else tensor
        for key, tensor in load_file(path).items()
    }
    assert any(not tensor.equal(load_file(path)[key]) for key, tensor in half.items())
    save_file(half, tmp_path / "half.safetensors")
    shelf.store.add(tmp_path / "half.safetensors", name="half")
    variants = drawn(shelf, adapters="mine", axes=Axes(blocks=["none", "M00=0.5", "IN*=0"]), name="variants", batch_size=batch)
    by_file = drawn(shelf, adapters="half", name="file")
    plain = drawn(shelf, adapters="mine", name="plain")
    assert min(abs(one - by_file[0]).max() for one in variants) <= 1
    assert min(abs(one - plain[0]).max() for one in variants) <= (0 if batch == 1 else 1)
    assert all(abs(one - other).max() > 1 for index, one in enumerate(variants) for other in variants[:index])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lokr", "boft"])
def test_kinds_in_the_weights(kind: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(write_kind(kind, shapes(tiny_parts("sd1")[1]), tmp_path / f"{kind}.safetensors"), name=kind)
    weighted = drawn(shelf, adapters={"adapter": kind, "blocks": dict.fromkeys(("BASE", "IN*", "M00", "OUT*"), 0.5)}, name="blocks")
    halved = drawn(shelf, adapters=f"{kind}:0.5", name="half")
    whole = drawn(shelf, adapters=kind, name="whole")
    assert abs(weighted[0] - halved[0]).max() <= 1 and abs(whole[0] - halved[0]).max() > 1


def test_keys_and_text(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_adapter(shared_folder("sd1"), tmp_path / "mine.safetensors", seed=5), name="mine")

    def render(blocks: Any) -> Render:
        given = {"adapter": "mine", "blocks": blocks} if blocks is not None else "mine"
        (cell,) = plan(GridConfig(**SAME, adapters=given), shelf.store).cells
        return cell.render

    plain, none, named = render(None), render({"IN*": 1}), render({"M00": 0.5})
    assert plain.key() == none.key() != named.key()
    numbers = render([1.0 if name != "M00" else 0.5 for name in ("BASE", *_names(shelf, plain))])
    assert numbers.key() == named.key() and numbers.adapters == named.adapters
    assert Render.from_json(named.to_json()).key() == named.key()
    assert "blocks" not in plain.to_json()["adapters"][0]
    assert read_adapters({"adapter": "mine", "blocks": "M00=0.5"}) == (replace(Adapter(reference="mine"), blocks="M00=0.5"),)


def test_a_record_with_a_typing_mistake_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(Refused, match=r"An adapter's record has no strat\. Did you mean 'start'"):
        read_adapters({"adapter": "mine", "strat": 0.5})


def _names(shelf: Shelf, render: Render) -> list[str]:
    from infer.draw.resolve import Resolver

    resolver = Resolver(shelf.store)
    return resolver.blocks(resolver.base(render))[0]


def test_faults_of_all_adapters_at_once(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_adapter(shared_folder("sd1"), tmp_path / "mine.safetensors", seed=5), name="mine")
    shelf.store.add(tiny_adapter(shared_folder("sd1"), tmp_path / "hat.safetensors", seed=6), name="hat")
    with pytest.raises(Faults) as refused:
        plan(
            GridConfig(**SAME, adapters=[{"adapter": "mine", "blocks": {"IN77": 0}}, {"adapter": "hat", "blocks": [1, 2, 3]}]), shelf.store
        )
    assert "blocks of the adapter mine: The block 'IN77'" in str(refused.value)
    assert "blocks of the adapter hat: 3 block weights" in str(refused.value)
