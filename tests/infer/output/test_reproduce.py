"""An image drawn again from its own words."""

from pathlib import Path

import pytest
from PIL import Image

from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from infer.output.png import label_png, read_png
from infer.output.reproduce import compare, reproduce
from registry.errors import BadFile, Faults
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.infer.images import NAMES, square

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


@pytest.fixture
def png(shelf: Shelf) -> Path:
    """A finished cell with an adapter, a negative prompt and a sampler of its own."""
    asked = GridConfig(
        base="tiny",
        prompt="a cat",
        negative="a dog",
        steps=3,
        sampler="euler_a",
        adapters="words:0.7",
        out=str(shelf.work),
        axes=Axes(seed=[5]),
    )
    (image,) = (run(asked, shelf.store).folder / "images").iterdir()
    return image


def test_the_same_pixels(png: Path, shelf: Shelf) -> None:
    found = reproduce(png, shelf.store)
    assert found.equal and found.max_difference == 0 and found.share_different == 0.0 and not found.edited and found.notes == ()
    assert found.to_json()["equal"] is True and "the same pixels" in found.to_text()


@pytest.mark.slow
def test_files_are_found_by_content_under_any_name(png: Path, shelf: Shelf, models: Path, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "another home")
    elsewhere.add(models / "base", name="renamed")
    with pytest.raises(Faults, match=r"No adapter with sha256 [0-9a-f]{64} is known here \(it was called words\)"):
        reproduce(png, elsewhere)
    elsewhere.add(models / "words.safetensors", name="something")
    assert reproduce(png, elsewhere).equal


@pytest.mark.slow
def test_an_edited_image_is_reported(png: Path, shelf: Shelf) -> None:
    carried = read_png(png)
    with Image.open(png) as opened:
        image = opened.convert("RGB")
    old = image.getpixel((3, 4))
    assert isinstance(old, tuple)
    image.putpixel((3, 4), ((old[0] + 9) % 256, old[1], old[2]))
    edited = png.with_name("edited.png")
    image.save(edited)
    edited.write_bytes(label_png(edited.read_bytes(), carried.render, NAMES, pixels_sha256=carried.pixels_sha256))
    found = reproduce(edited, shelf.store)
    assert not found.equal and found.edited and found.max_difference in (9, 247) and found.share_different == 1 / (32 * 32)
    assert "edited" in found.to_text()
    image.crop((0, 0, 20, 16)).save(edited)
    edited.write_bytes(label_png(edited.read_bytes(), carried.render, NAMES, pixels_sha256=carried.pixels_sha256))
    cropped = reproduce(edited, shelf.store)
    assert not cropped.reproduced and "has 20x16 pixels, the image that was drawn again 32x32: it was cropped" in cropped.to_text()


def test_an_image_of_others_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    square((0, 0, 0)).save(tmp_path / "plain.png")
    with pytest.raises(BadFile, match="carries no Render"):
        reproduce(tmp_path / "plain.png", shelf.store)


def test_compare() -> None:
    one, other = square((10, 20, 30), (4, 4)), square((10, 20, 30), (4, 4))
    assert compare(one, other) == (0, 0.0)
    other.putpixel((0, 0), (10, 0, 31))
    assert compare(one, other) == (20, 1 / 16)
    assert compare(one, square((10, 20, 30), (4, 5))) == (255, 1.0)
