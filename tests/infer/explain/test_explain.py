"""An image explained: the last frame is the image, what is left out changes it, the page is whole and inert."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infer.explain.blocks import changes_by_block
from infer.explain.changes import difference
from infer.explain.explain import explain
from infer.explain.page import page, write_explanation
from infer.explain.plan import plan_explanation
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from infer.output.encoding import ImageFormat
from loraloom.cli import main
from tests.infer.conftest import Shelf
from tests.infer.images import square
from tests.infer.vote.made import chromium
from tests.tiny import SIZES, shared_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # of diffusers' schedulers under numpy 2
]

NASTY = "</style><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"


def drawn(shelf: Shelf, **settings: Any) -> Path:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 4, "guidance": 4.0, "size": 32, "out": str(shelf.work)}
    (image,) = (run(GridConfig(**given | settings, axes=Axes(seed=[5])), shelf.store).folder / "images").iterdir()
    return image


def pixels(path: Path) -> Any:
    return numpy.asarray(Image.open(path).convert("RGB"))


@pytest.mark.slow
def test_one_image_s_way(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = drawn(shelf, prompt=NASTY, negative="a dog", adapters="ink:0.7+words", sampler="euler_a")
    words = ["explain", str(image), "--against", "a <b>horse</b>", "--frames", "4", "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 0 and not (tmp_path / "out").exists()
    assert "5 images in 20 steps" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    folder = Path(values["page"]).parent
    assert values == json.loads((folder / "explain.json").read_text())
    assert values["largest_difference"] == 0 and "is truncated" in values["notes"][0] and values["tokens"][0]["cut"] > 0
    assert [one["call"] for one in values["frames"]] == [0, 2, 3, None] and values["frames"][0]["calls"] == 4
    frames = [pixels(folder / one["image"]) for one in values["frames"]]
    assert (frames[-1] == pixels(image)).all() and len({one.tobytes() for one in frames}) >= 3
    assert values["negative"]["mean"] > 0 and values["guidance"]["mean"] > 0
    assert {one["adapter"]: one["weight"] for one in values["adapters"]} == {"ink": 0.7, "words": 1.0}
    for one in values["adapters"]:
        map_of = pixels(folder / one["map"])
        assert one["mean"] > 0 and map_of.max() == 255 and (map_of[..., 0] == map_of[..., 1]).all()
        assert one["blocks"] and all(block["relative"] > 0 for block in one["blocks"])
    components = {one["adapter"]: {block["component"] for block in one["blocks"]} for one in values["adapters"]}
    assert components == {"ink": {"unet"}, "words": {"unet", "text_encoder"}}
    assert [(one["second"], one["encoder"]) for one in values["similarity"]] == [
        ("a dog", "text_encoder"),
        ("a <b>horse</b>", "text_encoder"),
    ]
    text = (folder / "explain.html").read_text()
    assert (
        "<script" not in text and "<b>horse" not in text and "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
    )
    first, other = values["tokens"]  # the prompt and the negative one, each of one text
    again = page(values | {"tokens": [first | {"text": "a <cat>"}, first | {"text": "a dog"}, other]}, defaultdict(str))
    assert "At a part" not in text and re.findall("At a part of the steps: ([^<]*)<", again) == ["a &lt;cat&gt;", "a dog"]


@pytest.mark.slow
def test_the_image_without_its_adapter_is_the_one_that_a_grid_draws(shelf: Shelf) -> None:
    image, plain = drawn(shelf, adapters="ink:0.7"), drawn(shelf)
    found = explain(plan_explanation(image, shelf.store, frames=2))
    (guidance, without) = found.changes
    assert guidance.variant.what == "guidance" and without.variant.what == "adapter"
    assert (numpy.asarray(without.image) == pixels(plain)).all()
    assert without.difference.mean == pytest.approx(abs(pixels(image).astype(float) - pixels(plain)).mean(), abs=1e-3)


@pytest.mark.slow
def test_a_lossy_image_is_compared_behind_its_encoder_and_a_cropped_one_is_named(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = drawn(shelf, image_format=ImageFormat.jpeg, name="lossy")
    assert main(["explain", str(image), "--frames", "2", "--out", str(tmp_path / "out"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["largest_difference"] == 0 and not any("drawn again" in note for note in values["notes"])
    whole = drawn(shelf, name="whole")
    with Image.open(whole) as opened:
        opened.crop((0, 0, 16, 16)).save(tmp_path / "part.png", pnginfo=_texts(opened))
    assert main(["explain", str(tmp_path / "part.png"), "--frames", "2", "--out", str(tmp_path / "part"), "--json"]) == 0
    assert any("has 16x16 pixels, the image 32x32" in note for note in json.loads(capsys.readouterr().out)["notes"])


def _texts(opened: Any) -> Any:
    found = PngInfo()
    for name, text in opened.text.items():
        found.add_itxt(name, text)
    return found


def test_a_difference_in_numbers() -> None:
    one, other = square((10, 20, 30), (2, 1)), square((10, 20, 30), (2, 1))
    other.putpixel((1, 0), (40, 20, 90))
    found = difference(one, other)
    assert (found.mean, found.largest, found.share, found.gain) == (15, 30, 0.5, 8.5)
    assert numpy.asarray(found.map).tolist() == [[0, 255]]
    same = difference(one, one)
    assert (same.mean, same.gain) == (0, 1) and not numpy.asarray(same.map).any()


def test_the_change_of_a_block_is_the_product_of_the_factors(shelf: Shelf) -> None:
    """norm(weight alpha / rank up down) / norm(W) of a LoRA's one layer, from the files alone."""
    import torch
    from safetensors.torch import load_file

    from infer.draw.files import Adapter
    from registry.detect.loading import load_base

    family, parts = load_base(shelf.store.find("tiny"), dtype=torch.float32, device="cpu")
    path = Path(str(shelf.store.find("ink").path))
    found = changes_by_block(Adapter(reference="ink", weight=0.5), path, family, parts)
    tensors, weights = load_file(path), dict(parts.denoiser.named_parameters())
    sums: dict[str, list[float]] = {}
    for key, down in tensors.items():
        if ".lora_A." in key or ".lora.down." in key or "lora_down" in key:
            up = tensors[key.replace("lora_A", "lora_B").replace("lora.down", "lora.up").replace("lora_down", "lora_up")]
            name = key.removeprefix("unet.").partition(".lora")[0]
            row = sums.setdefault("_".join(name.split(".")[: 1 if name.startswith("mid_block") else 2]), [0.0, 0.0])
            row[0] += float((0.5 * (up.flatten(1).float() @ down.flatten(1).float())).norm()) ** 2
            row[1] += float(weights[f"{name}.weight"].norm()) ** 2
    assert {one.block: one.relative for one in found} == pytest.approx({name: (a / b) ** 0.5 for name, (a, b) in sums.items()}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sdxl", "flux1"])
def test_other_families_are_explained(family: str, shelf: Shelf, tmp_path: Path) -> None:
    base = shared_folder(family)
    image = drawn(shelf, base=str(base), size=SIZES[family], steps=2, negative="a dog" if family == "sdxl" else None)
    found = explain(plan_explanation(image, shelf.store, frames=3))
    values = write_explanation(found, tmp_path)
    assert values["largest_difference"] == 0 and len(values["frames"]) == 3 and len({one["encoder"] for one in values["tokens"]}) == 2
    assert (pixels(tmp_path / values["frames"][-1]["image"]) == pixels(image)).all()
    assert (values["negative"] is None) == (family == "flux1")
    assert family == "sdxl" or "no negative prompt is read" in values["not_drawn"]["negative"]


@pytest.mark.browser
def test_the_page_in_chromium(shelf: Shelf, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    image = drawn(shelf, prompt=NASTY, negative=NASTY, adapters="words:0.7")
    values = write_explanation(explain(plan_explanation(image, shelf.store, against=[NASTY])), tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        for width, height in ((1400, 900), (390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"file://{values['page']}")
            assert page.title().startswith("One image's way") and page.locator("script").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        browser.close()
