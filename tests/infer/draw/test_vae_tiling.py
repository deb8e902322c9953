"""vae_tiling: another image under another key where there are tiles, the same one where the image is no larger than a tile."""

from typing import Any

import numpy
import pytest
from PIL import Image

from infer.draw.render import Render
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan, run
from registry.errors import Faults
from tests.infer.conftest import Shelf


def config(axes: dict[str, Any] | None = None, **settings: Any) -> GridConfig:
    return GridConfig(base="tiny", prompt="a cat", steps=2, size="64x64", axes=Axes(**(axes or {})), **settings)


def test_tiles_have_a_key_of_their_own_and_one_denoising_serves_them(shelf: Shelf) -> None:
    asked = config({"vaetiling": [None, 64, 32]}, sampler="ddim", out=str(shelf.work))
    whole, fits, tiled = (cell.render for cell in plan(asked, shelf.store).cells)
    found = run(asked, shelf.store)
    assert whole.key() == fits.key() != tiled.key() and whole.latents_key() == tiled.latents_key()
    assert (found.result["rendered"], found.result["reused"], found.result["forwards"]) == (2, 0, 2)
    pixels = {}
    for path in sorted((found.folder / "images").glob("*.png")):
        with Image.open(path) as image:
            pixels[path.stem] = numpy.asarray(image.convert("RGB"), dtype=int)
            assert ("VAE tile size: 32" in image.info["parameters"]) is (path.stem.endswith("32"))
    own, plain = pixels["vaetiling-32"], pixels[next(name for name in pixels if "none" in name)]
    assert 0 < abs(own - plain).mean() < 20


@pytest.mark.parametrize("side", [0, 8, 33])
def test_a_tile_that_cannot_be_is_refused_by_name(side: int, shelf: Shelf) -> None:
    with pytest.raises(Faults, match=f"vae_tiling is {side}"):
        plan(config(vae_tiling=side), shelf.store)


def test_older_images_have_no_tiles() -> None:
    assert Render.from_json({"base": "tiny", "prompt": "a cat"}).vae_tiling is None
